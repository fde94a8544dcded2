//! Evaluation of a plan, from the first block or from where it departs from one evaluated before.

use std::sync::Arc;

use burn::tensor::{Tensor, backend::Backend};

use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::{Batch, Format, NullAnswers, Predictions, SpanDecoder, evaluate};
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::{Error, Result};
use crate::evaluation::accuracy::Accuracy;
use crate::evaluation::answer_distribution::{EndScores, MeanDivergence, MeanLoss};
use crate::evaluation::floor::{Floor, Tally, Trial};
use crate::evaluation::options::EvaluateOptions;
use crate::evaluation::reader::Reader;
use crate::evaluation::reading::{BatchTensors, ReadingTask, scores};
use crate::evaluation::work::{Work, WorkMeter};

/// Evaluates plans of one model on one set of questions.
#[derive(Debug)]
pub struct Evaluator<'a, B: Backend, M> {
    model: &'a ForQuestionAnswering<B, M>,
    task: &'a ReadingTask,
    options: EvaluateOptions,
    batches: Vec<(Batch, BatchTensors<B>)>,
    meter: WorkMeter,
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
    stride: usize,
    /// Batch → state at each kept block.
    states: Vec<Vec<Tensor<B, 3>>>,
    /// Batch → scores of the reference.
    reference: Arc<[EndScores]>,
}

/// A plan to evaluate, and how.
struct Request<'r, B: Backend> {
    plan: &'r SitePlan,
    kept: Option<&'r KeptStates<B>>,
    keep: Keep,
    floor: Option<Floor>,
    /// Told of every batch.
    after_batch: Option<&'r (dyn Fn() + Sync)>,
}

/// Which states a run keeps.
#[derive(Clone, Copy)]
enum Keep {
    Nothing,
    Every(usize),
}

/// What a batch gives: scores of the span's ends and, where asked for, the states on the way.
struct BatchOutput<B: Backend> {
    scores: EndScores,
    states: Vec<Tensor<B, 3>>,
}

/// What all batches give.
struct Evaluated<B: Backend> {
    accuracy: Accuracy,
    predictions: Predictions,
    /// Of data of version 2.0.
    nulls: Option<NullAnswers>,
    outputs: Vec<BatchOutput<B>>,
}

impl<'a, B: QuantBackend, M: SwitchableModel<B>> Evaluator<'a, B, M> {
    /// Prepares the batches of a task.
    ///
    /// # Errors
    ///
    /// When the batch size is zero.
    pub fn new(
        model: &'a ForQuestionAnswering<B, M>,
        task: &'a ReadingTask,
        options: EvaluateOptions,
        device: &B::Device,
    ) -> Result<Self> {
        let batches = task.evaluation_batches(options.windows_per_batch(model.transformer.sites(), &task.features))?;
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
    pub fn task(&self) -> &'a ReadingTask {
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

    /// Number of batches in one evaluation.
    pub fn batches(&self) -> usize {
        self.batches.len()
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
        let (scores, states): (Vec<_>, _) =
            run.outputs.into_iter().map(|output| (output.scores, output.states)).unzip();
        let reference = request.kept.map_or_else(|| scores.into(), |kept| kept.reference.clone());
        (run.accuracy, KeptStates { plan: request.plan.clone(), stride, states, reference })
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
        self.model.check_plan(request.plan)?;
        let blocks = request.plan.blocks();
        let kept = |kept: &KeptStates<B>| kept.entry(request.plan).map_or(0, |entry| entry * kept.stride);
        let to_compute = blocks - request.kept.map_or(0, kept);
        self.meter.add_plain(blocks * self.task.features.len());
        let mut decoder = SpanDecoder::new(&self.task.features, self.options.decode)?;
        let (mut loss, mut divergence) = (MeanLoss::default(), MeanDivergence::default());
        let mut outputs: Vec<BatchOutput<B>> = Vec::with_capacity(self.batches.len());
        let mut watch = request.floor.map(|floor| (floor, Tally::new(self.task)));
        while outputs.len() < self.batches.len() {
            let first = outputs.len();
            let most = if watch.is_some() { self.options.workers.len() } else { self.batches.len() };
            let chunk = &self.batches[first..self.batches.len().min(first + most)];
            let reader = Reader { model: self.model, options: &self.options };
            let compute = |i: usize, tensors: &BatchTensors<B>| {
                let output = self.run_batch(request, first + i, tensors);
                if let Some(tell) = request.after_batch {
                    tell();
                }
                output
            };
            let mut short = None;
            reader.each(chunk, compute, |batch, output| {
                self.meter.add_computed(to_compute * batch.batch);
                // Decided by a batch before: those computed beside it change nothing, so that the bounds do
                // not depend on the number of workers.
                if short.is_some() {
                    return Ok(());
                }
                decoder.add_batch(batch, &output.scores.start, &output.scores.end)?;
                loss.add(batch, &output.scores);
                if let Some(kept) = request.kept {
                    divergence.add(batch, &kept.reference[outputs.len()], &output.scores);
                }
                outputs.push(output);
                let Some((floor, tally)) = &mut watch else { return Ok(()) };
                tally.add(batch, &decoder)?;
                let bounds = tally.bounds();
                if !floor.admits(bounds.high) && outputs.len() < self.batches.len() {
                    short = Some(bounds);
                } else if floor.admits(bounds.low) {
                    watch = None;
                }
                Ok(())
            })?;
            if let Some(bounds) = short {
                return Ok(Trial::Short(bounds));
            }
        }
        let decoded = decoder.finish()?;
        let nulls = (self.task.dataset.format == Format::V2).then(|| NullAnswers::from(decoded.as_slice()));
        let predictions = Predictions::from(decoded.as_slice());
        let evaluation = evaluate(&self.task.dataset, &predictions)?;
        let mut accuracy = Accuracy::new(evaluation.exact_match, evaluation.f1, evaluation.scores, loss.mean());
        accuracy.divergence = request.kept.map(|_| divergence.mean());
        Ok(Trial::Whole(Evaluated { accuracy, predictions, nulls, outputs }))
    }

    fn run_batch(&self, request: &Request<'_, B>, index: usize, tensors: &BatchTensors<B>) -> BatchOutput<B> {
        let body = &self.model.transformer;
        let plan = request.plan;
        let blocks = plan.blocks();
        let (mut block, mut states) = match request.kept.and_then(|kept| Some((kept, kept.entry(plan)?))) {
            Some((kept, entry)) => (entry * kept.stride, kept.states[index][..=entry].to_vec()),
            None => (0, vec![body.embed(tensors.ids.clone(), None, plan)]),
        };
        let mut hidden = states.last().cloned().expect("the first state is always kept");
        let stride = match request.keep {
            Keep::Nothing => blocks - block,
            Keep::Every(stride) => stride,
        };
        while block < blocks {
            let next = (block + stride).min(blocks);
            hidden = body.forward_blocks(block..next, hidden, None, plan);
            block = next;
            if block < blocks {
                states.push(hidden.clone());
            }
        }
        if matches!(request.keep, Keep::Nothing) {
            // Those of all batches would be as much as the input of the first block for every window.
            states.clear();
        }
        let logits = self.model.span_logits(body.normalise(hidden), plan);
        BatchOutput { scores: EndScores { start: scores(logits.start), end: scores(logits.end) }, states }
    }
}

impl<B: Backend> KeptStates<B> {
    /// Position among the kept states of the last one that a plan shares; that of the last block when
    /// the plans are equal, and none when they embed differently.
    fn entry(&self, plan: &SitePlan) -> Option<usize> {
        let differs = || plan.first_difference(&self.plan).unwrap_or(plan.blocks() - 1);
        plan.has_same_input(&self.plan).then(|| differs() / self.stride)
    }
}
