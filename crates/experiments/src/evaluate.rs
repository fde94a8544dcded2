//! Evaluation of a plan, from the first block or from where it departs from one evaluated before.

use std::sync::Arc;

use burn::tensor::{Tensor, backend::Backend};
use gpt2_model::{Gpt2ForQuestionAnswering, SitePlan};
use quant_kernels::QuantBackend;
use squad_data::{Batch, DecodeConfig, Predictions, SpanDecoder, evaluate};

use crate::accuracy::Accuracy;
use crate::answer_distribution::{EndScores, MeanDivergence, MeanLoss};
use crate::reading::{BatchTensors, ReadingTask, scores};
use crate::workers::Workers;
use crate::{Error, Result, StopFlag};

/// Options of an evaluation.
#[derive(Debug, Clone)]
pub struct EvaluateOptions {
    /// Windows per batch.
    pub batch_size: usize,
    /// Batches computed at once.
    pub workers: Workers,
    /// How spans become answers.
    pub decode: DecodeConfig,
    /// Bytes that [`KeptStates`] may hold.
    pub kept_state_bytes: usize,
    /// Asked between batches.
    pub stop: StopFlag,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self {
            batch_size: 32,
            workers: Workers::new(1),
            decode: DecodeConfig::default(),
            kept_state_bytes: 2 << 30,
            stop: StopFlag::default(),
        }
    }
}

/// Evaluates plans of one model on one set of questions.
#[derive(Debug)]
pub struct Evaluator<'a, B: Backend> {
    model: &'a Gpt2ForQuestionAnswering<B>,
    task: &'a ReadingTask,
    options: EvaluateOptions,
    batches: Vec<(Batch, BatchTensors<B>)>,
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

/// What a batch gives: scores of the span's ends and, where asked for, the states on the way.
struct BatchOutput<B: Backend> {
    scores: EndScores,
    states: Vec<Tensor<B, 3>>,
}

impl<'a, B: QuantBackend> Evaluator<'a, B> {
    /// Prepares the batches of a task.
    ///
    /// # Errors
    ///
    /// When the batch size is zero.
    pub fn new(
        model: &'a Gpt2ForQuestionAnswering<B>,
        task: &'a ReadingTask,
        options: EvaluateOptions,
        device: &B::Device,
    ) -> Result<Self> {
        let batches = task.evaluation_batches(options.batch_size)?;
        let batches = batches.into_iter().map(|batch| {
            let tensors = BatchTensors::new(&batch, device);
            (batch, tensors)
        });
        Ok(Self { model, task, batches: batches.collect(), options })
    }

    /// The model.
    pub fn model(&self) -> &'a Gpt2ForQuestionAnswering<B> {
        self.model
    }

    /// The options.
    pub fn options(&self) -> &EvaluateOptions {
        &self.options
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
        self.score(&self.run(plan, None, Keep::Nothing)?, None)
    }

    /// Accuracy of a plan, computed from where it departs from the kept one, and its divergence from
    /// the reference.
    ///
    /// # Errors
    ///
    /// As [`Evaluator::evaluate`].
    pub fn evaluate_from(&self, kept: &KeptStates<B>, plan: &SitePlan) -> Result<Accuracy> {
        Ok(self.score(&self.run(plan, Some(kept), Keep::Nothing)?, Some(&kept.reference))?.0)
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
        let stride = kept.map_or_else(|| self.stride(), |kept| kept.stride);
        let mut outputs = self.run(plan, kept, Keep::Every(stride))?;
        let accuracy = self.score(&outputs, kept.map(|kept| &*kept.reference))?.0;
        let states = outputs.iter_mut().map(|output| std::mem::take(&mut output.states)).collect();
        let reference = match kept {
            Some(kept) => kept.reference.clone(),
            None => outputs.into_iter().map(|output| output.scores).collect(),
        };
        Ok((accuracy, KeptStates { plan: plan.clone(), stride, states, reference }))
    }

    /// Distance between kept blocks at which all states fit their bytes.
    fn stride(&self) -> usize {
        let config = self.model.config();
        let one: usize = self.batches.iter().map(|(batch, _)| batch.batch * batch.len * config.n_embd * 4).sum();
        let room = (self.options.kept_state_bytes / one.max(1)).max(1);
        config.n_layer.div_ceil(room).max(1)
    }

    fn run(&self, plan: &SitePlan, kept: Option<&KeptStates<B>>, keep: Keep) -> Result<Vec<BatchOutput<B>>> {
        self.model.transformer.check_plan(plan)?;
        let outputs = self.options.workers.map(&self.batches, |i, (_, tensors)| {
            self.options.stop.check()?;
            Ok::<_, Error>(self.run_batch(tensors, plan, kept.map(|kept| (kept, kept.states[i].as_slice())), keep))
        });
        outputs.into_iter().collect()
    }

    fn run_batch(
        &self,
        tensors: &BatchTensors<B>,
        plan: &SitePlan,
        kept: Option<(&KeptStates<B>, &[Tensor<B, 3>])>,
        keep: Keep,
    ) -> BatchOutput<B> {
        let body = &self.model.transformer;
        let blocks = plan.blocks();
        let (mut block, mut states) = match kept {
            Some((kept, states)) => {
                let first = plan.first_difference(&kept.plan).unwrap_or(blocks - 1) / kept.stride;
                (first * kept.stride, states[..=first].to_vec())
            }
            None => (0, vec![body.embed(tensors.ids.clone(), None)]),
        };
        let mut hidden = states.last().cloned().expect("the first state is always kept");
        let stride = match keep {
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
        let logits = self.model.span_logits(body.ln_f.forward(hidden));
        BatchOutput { scores: EndScores { start: scores(logits.start), end: scores(logits.end) }, states }
    }

    fn score(&self, outputs: &[BatchOutput<B>], reference: Option<&[EndScores]>) -> Result<(Accuracy, Predictions)> {
        let mut decoder = SpanDecoder::new(&self.task.features, self.options.decode)?;
        let mut loss = MeanLoss::default();
        let mut divergence = MeanDivergence::default();
        for (i, ((batch, _), BatchOutput { scores, .. })) in self.batches.iter().zip(outputs).enumerate() {
            decoder.add_batch(batch, &scores.start, &scores.end)?;
            loss.add(batch, scores);
            if let Some(reference) = reference {
                divergence.add(batch, &reference[i], scores);
            }
        }
        let decoded = decoder.finish()?;
        let predictions = Predictions::from(decoded.as_slice());
        let evaluation = evaluate(&self.task.dataset, &predictions)?;
        let mut accuracy = Accuracy::new(evaluation.exact_match, evaluation.f1, evaluation.scores, loss.mean());
        accuracy.divergence = reference.map(|_| divergence.mean());
        Ok((accuracy, predictions))
    }
}

/// Which states a run keeps.
#[derive(Clone, Copy)]
enum Keep {
    Nothing,
    Every(usize),
}
