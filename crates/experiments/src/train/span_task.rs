//! Training on questions: the span head, and next tokens beside it.
//!
//! ```text
//! L = L_span + λ·L_next
//! ```
//!
//! The next-token part teaches a small model to bind a value to its entity; without it the model
//! learns the kind of value that is asked for, but not whose.

use burn::tensor::Tensor;
use serde_json::Value;

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use span_reader::evaluation::reading::{BatchTensors, ReadingTask};
use squad_data::{Batch, BatchConfig, Batches, Select};
use switchable_model::loss::{next_token_loss, span_loss};
use switchable_model::model::TrainableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::{Error, Result};
use crate::train::config::TrainConfig;
use crate::train::model_identity::model_identity;
use crate::train::objective::Objective;
use crate::train::task::{TaskOutput, TrainTask};

/// Score of a position where no answer can start or end: its probability is zero in f32.
const IMPOSSIBLE: f64 = -1e9;

/// Windows that hold their answer, in a seeded order.
#[derive(Debug)]
pub struct SpanTask<'a> {
    batches: Batches<'a>,
    objective: Objective,
}

impl<'a> SpanTask<'a> {
    /// Batches and losses of a run.
    ///
    /// # Errors
    ///
    /// When fewer windows hold their answer than a micro-batch needs.
    pub fn new(task: &'a ReadingTask, config: &TrainConfig) -> Result<Self> {
        let micro = config.batch_size / config.micro_batches;
        let mut batch_config = BatchConfig::training(micro, task.special.pad, config.seed);
        batch_config.select = Select::WithTarget;
        let batches = Batches::new(&task.features, batch_config)?;
        if batches.steps_per_epoch() == 0 {
            return Err(Error::NoQuestions { what: format!("a batch of {micro} windows with their answers inside") });
        }
        Ok(Self { batches, objective: config.objective })
    }
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> TrainTask<B, ForQuestionAnswering<B, M>> for SpanTask<'_> {
    type Batch = Batch;

    fn batches_from(&self, position: usize) -> Result<Box<dyn Iterator<Item = Batch> + '_>> {
        let per_epoch = self.batches.steps_per_epoch();
        Ok(Box::new(self.batches.iter_from(position / per_epoch, position % per_epoch)))
    }

    fn tokens(&self, batch: &Batch) -> usize {
        batch.tokens()
    }

    fn check_model(&self, _model: &ForQuestionAnswering<B, M>) -> Result<()> {
        // A `ReadingTask` is made for its model.
        Ok(())
    }

    fn model_identity(&self, model: &ForQuestionAnswering<B, M>) -> Value {
        model_identity(&model.transformer)
    }

    fn check_plan(&self, model: &ForQuestionAnswering<B, M>, plan: &SitePlan) -> Result<()> {
        Ok(model.check_plan(plan)?)
    }

    fn forward(&self, model: &ForQuestionAnswering<B, M>, batch: &Batch, plan: &SitePlan) -> TaskOutput<B> {
        let batch = BatchTensors::<B>::new(batch, &model.transformer.device());
        let hidden = model.transformer.forward(batch.ids.clone(), None, plan);
        let logits = model.span_logits(hidden.clone(), plan);
        let masked = |t: Tensor<B, 2>| t.mask_fill(batch.unanswerable.clone(), IMPOSSIBLE);
        let (start, end) = (masked(logits.start), masked(logits.end));
        let span = span_loss(start.clone(), end.clone(), batch.starts, batch.ends);
        let loss = if self.objective.next_token > 0.0 {
            let logits = model.transformer.next_token_scores(hidden, plan);
            span.clone() + next_token_loss(logits, batch.ids, Some(batch.padding)) * self.objective.next_token
        } else {
            span.clone()
        };
        TaskOutput { loss, main_loss: span, scores: vec![start, end] }
    }
}
