//! Both models measured on the same questions, to a certificate.

use std::path::Path;

use burn::tensor::backend::Backend;

use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::NullRule;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;

use crate::certificate::certificate_file::{Certificate, CertifiedData, Comparison, ReadingOptions, Side, Unseen};
use crate::certificate::file_names::MADE_FROM;
use crate::certificate::held_out::HeldOut;
use crate::certificate::measured_model::{MeasureOptions, MeasuredModel};
use crate::certificate::model_files::ModelFiles;
use crate::certificate::seen_data::SeenData;
use crate::error::{Error, Result};
use crate::evaluation::evaluate::Evaluator;
use crate::evaluation::options::EvaluateOptions;
use crate::evaluation::reading::ReadingTask;
use crate::model_folder::ModelFolder;

/// What to do with an artefact that does not say which questions made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MissingRecord {
    /// No certificate is made.
    #[default]
    Refuse,
    /// The caller asserts that none of the questions did, and the certificate says so.
    Asserted,
}

impl CertifiedData {
    /// The questions, held to be unseen by the record in the folder of the artefact.
    ///
    /// # Errors
    ///
    /// When the artefact has no record and the caller does not assert it, or one of the questions is in the record.
    pub fn of(held_out: &HeldOut, artefact: impl AsRef<Path>, missing: MissingRecord) -> Result<Self> {
        let (unseen, of_seen_paragraphs) = match (SeenData::read(&artefact)?, missing) {
            (Some(seen), _) => (Unseen::Recorded, seen.check_unseen(held_out)?),
            (None, MissingRecord::Asserted) => (Unseen::Asserted, 0),
            (None, MissingRecord::Refuse) => {
                return Err(Error::NoSeenData { path: artefact.as_ref().join(MADE_FROM) });
            }
        };
        Ok(Self { content: held_out.record(), unseen, of_seen_paragraphs })
    }
}

impl ReadingOptions {
    /// The questions in the windows of a model.
    ///
    /// # Errors
    ///
    /// When they do not fit the model.
    pub fn task<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        folder: &ModelFolder<B, M>,
        held_out: &HeldOut,
    ) -> Result<ReadingTask> {
        ReadingTask::new(held_out.dataset().clone(), &folder.tokenizer, folder.model.config(), self.window)
    }

    /// The same options with batches and null rule of these.
    #[must_use]
    pub fn evaluation(&self, mut options: EvaluateOptions) -> EvaluateOptions {
        options.batch_size = self.batch;
        options.decode.null = self.null_threshold.map_or(NullRule::Never, NullRule::Threshold);
        options
    }
}

/// A model that takes part.
#[derive(Debug)]
pub struct Contender<'a, B: Backend, M> {
    /// What it is called, for messages.
    pub name: String,
    /// The model.
    pub folder: &'a ModelFolder<B, M>,
    /// Its files.
    pub files: ModelFiles,
    /// The plan that it runs at.
    pub plan: &'a SitePlan,
}

/// How both are measured.
#[derive(Debug)]
pub struct CertifyOptions {
    /// The questions, and why they are held to be unseen.
    pub data: CertifiedData,
    /// How questions are read.
    pub reading: ReadingOptions,
    /// Workers and when to stop; the rest is that of `reading`.
    pub evaluation: EvaluateOptions,
    /// What else.
    pub measure: MeasureOptions,
}

impl<B: QuantBackend, M: SwitchableModel<B>> Contender<'_, B, M> {
    /// Measures the model on some questions.
    ///
    /// # Errors
    ///
    /// When the questions do not fit the model, an adapter of the plan is missing, or the work is stopped.
    pub fn measure(self, held_out: &HeldOut, options: &CertifyOptions) -> Result<Side> {
        let task = options.reading.task(self.folder, held_out)?;
        let evaluation = options.reading.evaluation(options.evaluation.clone());
        let device = self.folder.model.transformer.device();
        let evaluator = Evaluator::new(&self.folder.model, &task, evaluation, &device)?;
        let measured = MeasuredModel::measure(&evaluator, self.plan, options.measure, &|| ())?;
        Ok(Side { name: self.name, files: self.files, measured })
    }
}

/// Measures an original and the artefact that was made of it on questions that `options.data` says to be unseen.
///
/// In one process the memory of the two cannot be told apart: `resident` is then `None`
/// ([`Process`](crate::certificate::measured_model::Process)). A program that wants it measures each
/// [`Contender`] in a process of its own and makes a [`Certificate`] of the [`Side`]s.
///
/// # Errors
///
/// When the questions do not fit one of the models, an adapter of a plan is missing, or the work is stopped.
pub fn certify<B: QuantBackend, M: SwitchableModel<B>, N: SwitchableModel<B>>(
    original: Contender<'_, B, M>,
    artefact: Contender<'_, B, N>,
    held_out: &HeldOut,
    options: &CertifyOptions,
) -> Result<Certificate> {
    let original = original.measure(held_out, options)?;
    let artefact = artefact.measure(held_out, options)?;
    let comparison = Comparison { original, artefact, held_out, data: options.data.clone(), reading: options.reading };
    Certificate::new(comparison)
}
