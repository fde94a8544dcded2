//! What the stages of a study work with.

use burn::module::AutodiffModule as _;
use serde_json::json;

use content_identity::Identity;
use quant_kernels::{backends::quant_backend::QuantAutodiffBackend, spec::bit_width::BitWidth};
use span_reader::choice::fingerprint::ModelFingerprint;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::question_task::TaskRef;
use squad_data::TextTokenizer;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::adapters::AdapterFolders as _;
use switchable_model::model::{SwitchableModel as _, TrainableModel};
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::Result;
use crate::robustness::attacks::table::Attacks;
use crate::robustness::victim::model_under_attack::VictimOptions;
use crate::running::memory::Memory;
use crate::running::outputs::Outputs;
use crate::running::progress::ShowProgress;
use crate::train::regimes::table::Regimes;
use crate::train::trainer::TrainRun;

/// The questions of a study.
#[derive(Debug, Clone, Copy)]
pub struct StudyData<'a> {
    /// Adapters are trained on these.
    pub train: TaskRef<'a>,
    /// Sensitivities are measured and plans chosen on these.
    pub search: TaskRef<'a>,
    /// Results are reported on these.
    pub report: TaskRef<'a>,
    /// The tokenizer of all of them.
    pub tokenizer: &'a TextTokenizer,
    /// Longest window in tokens; by default the model's positions, at most 384 each time that it holds its context.
    pub window: Option<usize>,
}

/// How a study runs.
#[derive(Debug, Clone, Default)]
pub struct RunSettings {
    /// Seed of everything random.
    pub seed: u64,
    /// Evaluation.
    pub evaluate: EvaluateOptions,
    /// Training: folders of checkpoints are made in the folder of the study.
    pub train: TrainRun,
    /// Whether progress is shown.
    pub show: ShowProgress,
}

/// Model, data, settings and memory of a study, and what it has found so far.
#[derive(Debug)]
pub struct Workbench<'a, B: QuantAutodiffBackend, M: TrainableModel<B>> {
    /// The model, to be trained.
    pub model: &'a ForQuestionAnswering<B, M>,
    /// Its questions.
    pub data: StudyData<'a>,
    /// How it runs.
    pub run: RunSettings,
    /// What is known from before.
    pub memory: Memory,
    /// Regimes by name.
    pub regimes: Regimes,
    /// Attacks by name.
    pub attacks: Attacks<B, M>,
    /// What stages have found so far.
    pub outputs: Outputs,
    plain: ForQuestionAnswering<B::InnerBackend, M::InnerModule>,
}

impl<'a, B: QuantAutodiffBackend, M: TrainableModel<B>> Workbench<'a, B, M> {
    /// A bench with the regimes and attacks of this crate, on which nothing has been found yet. What it
    /// remembers belongs to the contents of this model and these questions, read in this way.
    pub fn new(model: &'a ForQuestionAnswering<B, M>, data: StudyData<'a>, run: RunSettings, memory: Memory) -> Self {
        let memory = memory.made_from(|| contents(model, &data, &run));
        Self {
            plain: model.valid(),
            model,
            data,
            run,
            memory,
            regimes: Regimes::default(),
            attacks: Attacks::default(),
            outputs: Outputs::default(),
        }
    }

    /// The model as it answers, without gradients.
    pub fn plain(&self) -> &ForQuestionAnswering<B::InnerBackend, M::InnerModule> {
        &self.plain
    }

    /// Where the model is.
    pub fn device(&self) -> B::Device {
        self.model.transformer.device()
    }

    /// The model on some questions.
    ///
    /// # Errors
    ///
    /// When the batch size is zero.
    pub fn evaluator<'s>(&'s self, task: TaskRef<'s>) -> Result<Evaluator<'s, B::InnerBackend, M::InnerModule>> {
        Ok(Evaluator::new(&self.plain, task, self.run.evaluate.clone(), &self.device())?)
    }

    /// The precision of a width, with its adapter where the model has one.
    pub fn precision(&self, bits: BitWidth) -> SitePrecision {
        self.plain.transformer.precision_at(bits)
    }

    /// Every site at one precision.
    pub fn uniform_plan(&self, precision: SitePrecision) -> SitePlan {
        self.plain.transformer.uniform_plan(precision)
    }

    /// How the model reads when it is attacked.
    pub fn victim_options(&self) -> VictimOptions {
        let evaluate = &self.run.evaluate;
        VictimOptions {
            window: self.data.window,
            batch_size: evaluate.batch_size,
            decode: evaluate.decode,
            workers: evaluate.workers.clone(),
            stop: evaluate.stop.clone(),
        }
    }
}

/// What every result of a study depends on.
fn contents<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    model: &ForQuestionAnswering<B, M>,
    data: &StudyData<'_>,
    run: &RunSettings,
) -> Identity {
    let decode = format!("{:?}", run.evaluate.decode);
    let settings = model.transformer.settings();
    Identity::default()
        .with_content("model", "", ModelFingerprint::of(model).into())
        .with_content("search questions", "", data.search.content())
        .with_content("report questions", "", data.report.content())
        .with_content("training questions", "", data.train.content())
        .with_options(json!({
            "backend": B::name(&model.transformer.device()), "batch_size": run.evaluate.batch_size, "decode": decode,
            "window": data.window, "execution": settings.execution, "compute": settings.compute,
        }))
}
