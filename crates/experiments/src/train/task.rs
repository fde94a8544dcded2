//! What is trained on: batches in a fixed order, and the loss of a forward pass.

use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use serde_json::Value;

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use switchable_model::site_plan::SitePlan;

use crate::error::Result;

/// The task of a model `M`.
///
/// The order of the batches follows from the task alone, so that a run which starts in the middle
/// sees what an uninterrupted one would have seen.
pub trait TrainTask<B: QuantAutodiffBackend, M: AutodiffModule<B>>: Sync {
    /// A micro-batch.
    type Batch: Send + Sync;

    /// Micro-batches from a position on, counted from the start of the run; without end.
    ///
    /// # Errors
    ///
    /// When there is nothing to train on.
    fn batches_from(&self, position: usize) -> Result<Box<dyn Iterator<Item = Self::Batch> + '_>>;

    /// Tokens of a micro-batch, padding not counted.
    fn tokens(&self, batch: &Self::Batch) -> usize;

    /// Looked at once, before a run.
    ///
    /// # Errors
    ///
    /// When the task does not fit the model.
    fn check_model(&self, model: &M) -> Result<()>;

    /// What must be the same of the model for a saved run to go on, beside its numbers: by default nothing.
    fn model_identity(&self, _model: &M) -> Value {
        Value::Null
    }

    /// # Errors
    ///
    /// When the model lacks an adapter of the plan.
    fn check_plan(&self, model: &M, plan: &SitePlan) -> Result<()>;

    /// Loss and scores of a micro-batch under a plan.
    fn forward(&self, model: &M, batch: &Self::Batch, plan: &SitePlan) -> TaskOutput<B>;
}

/// What a forward pass gives.
#[derive(Debug, Clone)]
pub struct TaskOutput<B: Backend> {
    /// What is minimised, in nats, `[1]`.
    pub loss: Tensor<B, 1>,
    /// The part of it that the task is about, in nats, `[1]`.
    pub main_loss: Tensor<B, 1>,
    /// Scores of choices, `[rows, choices]` each, for distillation; −1e9 where a choice is
    /// impossible.
    pub scores: Vec<Tensor<B, 2>>,
}
