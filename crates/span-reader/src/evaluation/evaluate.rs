//! Evaluation of a plan, from the first block or from where it departs from one evaluated before.

use std::sync::Arc;

use burn::tensor::{Tensor, backend::Backend};

use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::{Batch, NullAnswers, Predictions};
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::{Error, Result};
use crate::evaluation::accuracy::Accuracy;
use crate::evaluation::answer_distribution::AnswerScores;
use crate::evaluation::floor::{Floor, Trial};
use crate::evaluation::options::EvaluateOptions;
use crate::evaluation::question_task::TaskRef;
use crate::evaluation::reading::BatchTensors;
use crate::evaluation::work::{Work, WorkMeter};

/// Evaluates plans of one model on one set of questions.
///
/// What it is asked is the same for both [forms](TaskRef) of answering. Only spans are computed from where plans depart from
/// each other: a generated answer needs keys and values of every block.
#[derive(Debug)]
pub struct Evaluator<'a, B: Backend, M> {
    pub(super) model: &'a ForQuestionAnswering<B, M>,
    task: TaskRef<'a>,
    pub(super) options: EvaluateOptions,
    /// Batches of windows where answers are spans.
    pub(super) batches: Vec<(Batch, BatchTensors<B>)>,
    pub(super) meter: WorkMeter,
}

/// Hidden states that entered some of the blocks under one plan, for every batch.
///
/// Another plan that differs from block `i` on starts at the last kept block up to `i`. The result
/// is bit for bit that of the whole forward pass: the same operations on the same numbers.
///
/// The scores of the first plan in a row of kept states stay with them: they are the reference that
/// [`Accuracy::divergence`] is measured from.
#[derive(Debug, Clone)]
pub struct KeptStates<B: Backend> {
    plan: SitePlan,
    /// States are kept at blocks `0, stride, 2·stride, …`.
    pub(super) stride: usize,
    /// Batch → state at each kept block; none where answers are generated.
    pub(super) states: Vec<Vec<Tensor<B, 3>>>,
    /// Batch, or prompt → scores of the reference.
    pub(super) reference: Arc<[AnswerScores]>,
}

/// A plan to evaluate, and how.
pub(super) struct Request<'r, B: Backend> {
    pub(super) plan: &'r SitePlan,
    pub(super) kept: Option<&'r KeptStates<B>>,
    pub(super) keep: Keep,
    pub(super) floor: Option<Floor>,
    /// Told of every batch, or prompt.
    pub(super) after_batch: Option<&'r (dyn Fn() + Sync)>,
}

/// Which states a run keeps.
#[derive(Clone, Copy)]
pub(super) enum Keep {
    Nothing,
    Every(usize),
}

impl<B: Backend> Request<'_, B> {
    /// Whether the scores of this run are those that others are measured from.
    pub(super) fn is_reference(&self) -> bool {
        self.kept.is_none() && matches!(self.keep, Keep::Every(_))
    }
}

/// What all batches, or prompts, give.
pub(super) struct Evaluated<B: Backend> {
    pub(super) accuracy: Accuracy,
    pub(super) predictions: Predictions,
    /// Of spans in data of version 2.0.
    pub(super) nulls: Option<NullAnswers>,
    /// Of each, where the run is the reference.
    pub(super) scores: Vec<AnswerScores>,
    /// The states of each, where they are kept.
    pub(super) states: Vec<Vec<Tensor<B, 3>>>,
}

impl<'a, B: QuantBackend, M: SwitchableModel<B>> Evaluator<'a, B, M> {
    /// Prepares the batches of a task.
    ///
    /// # Errors
    ///
    /// When the batch size is zero.
    pub fn new(
        model: &'a ForQuestionAnswering<B, M>,
        task: impl Into<TaskRef<'a>>,
        options: EvaluateOptions,
        device: &B::Device,
    ) -> Result<Self> {
        let task = task.into();
        let batches = match task {
            TaskRef::Generate(_) => Vec::new(),
            TaskRef::Span(task) => {
                task.evaluation_batches(options.windows_per_batch(model.transformer.sites(), &task.features))?
            }
        };
        let batches = batches.into_iter().map(|batch| {
            let tensors = BatchTensors::new(&batch, device);
            (batch, tensors)
        });
        Ok(Self { model, task, batches: batches.collect(), options, meter: WorkMeter::default() })
    }

    /// The model.
    pub fn model(&self) -> &'a ForQuestionAnswering<B, M> {
        self.model
    }

    /// The questions.
    pub fn task(&self) -> TaskRef<'a> {
        self.task
    }

    /// The options.
    pub fn options(&self) -> &EvaluateOptions {
        &self.options
    }

    /// The work of all evaluations so far.
    pub fn work(&self) -> Work {
        self.meter.read()
    }

    /// Accuracy of a plan.
    ///
    /// # Errors
    ///
    /// When an adapter of the plan is missing, or the work is stopped.
    pub fn evaluate(&self, plan: &SitePlan) -> Result<Accuracy> {
        Ok(self.predict(plan)?.0)
    }

    /// Accuracy of a plan and the answers it gives.
    ///
    /// # Errors
    ///
    /// As [`Evaluator::evaluate`].
    pub fn predict(&self, plan: &SitePlan) -> Result<(Accuracy, Predictions)> {
        self.predict_telling(plan, &|| ())
    }

    /// The same; `after_batch` is told of every batch that was read, [`batches`](Self::batches) of them.
    ///
    /// # Errors
    ///
    /// As [`Evaluator::evaluate`].
    pub fn predict_telling(&self, plan: &SitePlan, after_batch: &(dyn Fn() + Sync)) -> Result<(Accuracy, Predictions)> {
        let (accuracy, predictions, _) = self.predict_with_nulls(plan, after_batch)?;
        Ok((accuracy, predictions))
    }

    /// [`Evaluator::predict_telling`], and for data of version 2.0 the best span of each question and how its
    /// score compares with that of "no answer", whatever the options' null rule.
    ///
    /// # Errors
    ///
    /// As [`Evaluator::evaluate`].
    pub fn predict_with_nulls(
        &self,
        plan: &SitePlan,
        after_batch: &(dyn Fn() + Sync),
    ) -> Result<(Accuracy, Predictions, Option<NullAnswers>)> {
        let told = Some(after_batch);
        let run = self.run_whole(&Request { plan, kept: None, keep: Keep::Nothing, floor: None, after_batch: told })?;
        Ok((run.accuracy, run.predictions, run.nulls))
    }

    /// What a null threshold is chosen on, of data of version 2.0.
    ///
    /// # Errors
    ///
    /// As [`Evaluator::evaluate`], and when the data are of version 1.1, where each question has an answer.
    pub fn null_answers(&self, plan: &SitePlan) -> Result<NullAnswers> {
        self.predict_with_nulls(plan, &|| ())?.2.ok_or_else(|| {
            let expected = "data of version 2.0, in which questions may have no answer";
            Error::option("null_threshold", "data of version 1.1", expected)
        })
    }

    /// Number of batches in one evaluation, or of prompts.
    pub fn batches(&self) -> usize {
        match self.task {
            TaskRef::Span(_) => self.batches.len(),
            TaskRef::Generate(task) => task.prompts().len(),
        }
    }

    /// Accuracy of a plan, computed from where it departs from the kept one, and its divergence from
    /// the reference.
    ///
    /// # Errors
    ///
    /// As [`Evaluator::evaluate`].
    pub fn evaluate_from(&self, kept: &KeptStates<B>, plan: &SitePlan) -> Result<Accuracy> {
        let request = Request { plan, kept: Some(kept), keep: Keep::Nothing, floor: None, after_batch: None };
        Ok(self.run_whole(&request)?.accuracy)
    }

    /// Accuracy of a plan, its states kept for plans that depart from it.
    ///
    /// With the states of an earlier plan only what follows the difference is computed, and their
    /// reference is kept on. Without, this plan is the reference of all that follow.
    ///
    /// # Errors
    ///
    /// As [`Evaluator::evaluate`].
    pub fn evaluate_keeping(&self, kept: Option<&KeptStates<B>>, plan: &SitePlan) -> Result<(Accuracy, KeptStates<B>)> {
        let keep = Keep::Every(kept.map_or_else(|| self.stride(), |kept| kept.stride));
        let request = Request { plan, kept, keep, floor: None, after_batch: None };
        Ok(self.keep(&request, self.run_whole(&request)?))
    }

    /// [`Evaluator::evaluate_from`], given up once the exact match cannot reach a floor any more.
    ///
    /// # Errors
    ///
    /// As [`Evaluator::evaluate`].
    pub fn try_from(&self, kept: &KeptStates<B>, plan: &SitePlan, floor: Option<Floor>) -> Result<Trial<Accuracy>> {
        let request = Request { plan, kept: Some(kept), keep: Keep::Nothing, floor, after_batch: None };
        Ok(match self.run(&request)? {
            Trial::Whole(run) => Trial::Whole(run.accuracy),
            Trial::Short(bounds) => Trial::Short(bounds),
        })
    }

    /// [`Evaluator::evaluate_keeping`], given up once the exact match cannot reach a floor any more.
    ///
    /// # Errors
    ///
    /// As [`Evaluator::evaluate`].
    pub fn try_keeping(
        &self,
        kept: &KeptStates<B>,
        plan: &SitePlan,
        floor: Option<Floor>,
    ) -> Result<Trial<(Accuracy, KeptStates<B>)>> {
        let request = Request { plan, kept: Some(kept), keep: Keep::Every(kept.stride), floor, after_batch: None };
        Ok(match self.run(&request)? {
            Trial::Whole(run) => Trial::Whole(self.keep(&request, run)),
            Trial::Short(bounds) => Trial::Short(bounds),
        })
    }

    fn keep(&self, request: &Request<'_, B>, run: Evaluated<B>) -> (Accuracy, KeptStates<B>) {
        let stride = match request.keep {
            Keep::Nothing => self.model.transformer.sites().blocks(),
            Keep::Every(stride) => stride,
        };
        let reference = request.kept.map_or_else(|| run.scores.into(), |kept| kept.reference.clone());
        (run.accuracy, KeptStates { plan: request.plan.clone(), stride, states: run.states, reference })
    }

    /// Distance between kept blocks at which all states fit their bytes.
    fn stride(&self) -> usize {
        let shape = self.model.transformer.shape();
        let one: usize = self.batches.iter().map(|(batch, _)| batch.batch * batch.len * shape.width * 4).sum();
        let room = (self.options.kept_state_bytes / one.max(1)).max(1);
        shape.blocks.div_ceil(room).max(1)
    }

    fn run_whole(&self, request: &Request<'_, B>) -> Result<Evaluated<B>> {
        match self.run(&Request { floor: None, ..*request })? {
            Trial::Whole(run) => Ok(run),
            Trial::Short(_) => unreachable!("without a floor every question is read"),
        }
    }

    fn run(&self, request: &Request<'_, B>) -> Result<Trial<Evaluated<B>>> {
        match self.task {
            TaskRef::Span(task) => {
                self.model.check_plan(request.plan)?;
                self.run_spans(task, request)
            }
            TaskRef::Generate(task) => {
                // Whatever span head would answer.
                self.model.transformer.check_plan(request.plan)?;
                self.run_prompts(task, request)
            }
        }
    }
}

impl<B: Backend> KeptStates<B> {
    /// Position among the kept states of the last one that a plan shares; that of the last block when
    /// the plans are equal, and none when they embed differently.
    pub(super) fn entry(&self, plan: &SitePlan) -> Option<usize> {
        let differs = || plan.first_difference(&self.plan).unwrap_or(plan.blocks() - 1);
        plan.has_same_input(&self.plan).then(|| differs() / self.stride)
    }
}
