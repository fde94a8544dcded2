//! Training on running text: next tokens.
//!
//! ```text
//! L = −1/n · Σ log p(xₜ₊₁ | x≤ₜ)
//! ```
//!
//! The text is one stream of tokens, cut into windows that do not overlap. Every epoch takes the
//! windows in another order, which follows from the seed.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use serde_json::Value;

use quant_kernels::backends::quant_backend::{QuantAutodiffBackend, QuantBackend};
use switchable_model::loss::next_token_loss;
use switchable_model::model::{SwitchableModel, TrainableModel};
use switchable_model::site_plan::SitePlan;

use crate::error::{Error, Result};
use crate::train::config::TrainConfig;
use crate::train::epochs::Epochs;
use crate::train::model_identity::model_identity;
use crate::train::task::{TaskOutput, TrainTask};

/// Windows of running text.
#[derive(Debug, Clone)]
pub struct TextTask {
    tokens: Vec<u32>,
    window: usize,
    micro_batch: usize,
    seed: u64,
}

impl TextTask {
    /// Cuts a stream of tokens into windows; what is left at the end is not used.
    ///
    /// # Errors
    ///
    /// When a window has fewer than two tokens, or the stream is shorter than one micro-batch.
    pub fn new(tokens: Vec<u32>, window: usize, config: &TrainConfig) -> Result<Self> {
        if window < 2 {
            return Err(Error::option("window", window, "at least 2 tokens"));
        }
        let micro_batch = config.batch_size / config.micro_batches;
        let least = window * micro_batch;
        if tokens.len() < least {
            return Err(Error::TooLittleText { tokens: tokens.len(), least });
        }
        Ok(Self { tokens, window, micro_batch, seed: config.seed })
    }

    fn batch(&self, windows: &[usize]) -> TextBatch {
        let ids = windows.iter().flat_map(|w| &self.tokens[w * self.window..(w + 1) * self.window]);
        TextBatch { ids: ids.map(|id| i64::from(*id)).collect(), windows: windows.len() }
    }
}

/// A micro-batch of windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextBatch {
    ids: Vec<i64>,
    windows: usize,
}

impl TextBatch {
    fn tensor<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2, Int> {
        let shape = [self.windows, self.ids.len() / self.windows];
        Tensor::from_data(TensorData::new(self.ids.clone(), shape), device)
    }
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> TrainTask<B, M> for TextTask {
    type Batch = TextBatch;

    fn batches_from(&self, position: usize) -> Result<Box<dyn Iterator<Item = TextBatch> + '_>> {
        let Self { window, micro_batch, seed, .. } = *self;
        let epochs = Epochs { items: self.tokens.len() / window, micro_batch, seed };
        Ok(Box::new(epochs.micro_batches_from(position).map(|windows| self.batch(&windows))))
    }

    fn tokens(&self, batch: &TextBatch) -> usize {
        batch.ids.len()
    }

    fn check_model(&self, model: &M) -> Result<()> {
        check_fit(model, &self.tokens, self.window)
    }

    fn model_identity(&self, model: &M) -> Value {
        model_identity(model)
    }

    fn check_plan(&self, model: &M, plan: &SitePlan) -> Result<()> {
        Ok(model.check_plan(plan)?)
    }

    fn forward(&self, model: &M, batch: &TextBatch, plan: &SitePlan) -> TaskOutput<B> {
        let ids = batch.tensor::<B>(&model.device());
        let logits = model.next_token_scores(model.forward(ids.clone(), None, plan), plan);
        let [windows, tokens, vocabulary] = logits.dims();
        let scores = logits.clone().slice([0..windows, 0..tokens - 1]);
        let loss = next_token_loss(logits, ids, None);
        let rows = windows * (tokens - 1);
        TaskOutput { main_loss: loss.clone(), loss, scores: vec![scores.reshape([rows, vocabulary])] }
    }
}

/// # Errors
///
/// When the window is longer than the model's positions, or a token is not in the vocabulary.
fn check_fit<B: QuantBackend, M: SwitchableModel<B>>(model: &M, tokens: &[u32], window: usize) -> Result<()> {
    let shape = model.shape();
    if window > shape.positions {
        return Err(Error::DoesNotFit { what: "the window", got: window, room: shape.positions });
    }
    match tokens.iter().max() {
        Some(&highest) if highest as usize >= shape.vocabulary => {
            Err(Error::DoesNotFit { what: "a token of the text", got: highest as usize, room: shape.vocabulary })
        }
        _ => Ok(()),
    }
}

/// Mean next-token loss of a stream of tokens in nats, window by window.
///
/// `exp` of it is the perplexity per token.
///
/// # Errors
///
/// When the stream is shorter than a window, a token is not in the vocabulary, or the model lacks an
/// adapter of the plan.
///
/// # Panics
///
/// When the backend gives a loss that cannot be read as f32.
pub fn text_loss<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    tokens: &[u32],
    window: usize,
    plan: &SitePlan,
) -> Result<f64> {
    const WINDOWS_AT_ONCE: usize = 8;
    if window < 2 {
        return Err(Error::option("window", window, "at least 2 tokens"));
    }
    if tokens.len() < window {
        return Err(Error::TooLittleText { tokens: tokens.len(), least: window });
    }
    model.check_plan(plan)?;
    let (mut sum, mut windows) = (0.0, 0);
    for chunk in tokens[..tokens.len() / window * window].chunks(window * WINDOWS_AT_ONCE) {
        let of_chunk = chunk.len() / window;
        sum += windows_loss(model, chunk, window, plan)? * of_chunk as f64;
        windows += of_chunk;
    }
    Ok(sum / windows as f64)
}

/// Mean next-token loss of windows that run at once.
pub(crate) fn windows_loss<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    tokens: &[u32],
    window: usize,
    plan: &SitePlan,
) -> Result<f64> {
    check_fit(model, tokens, window)?;
    let batch = TextBatch { ids: tokens.iter().map(|id| i64::from(*id)).collect(), windows: tokens.len() / window };
    let ids = batch.tensor::<B>(&model.device());
    let loss = next_token_loss(model.next_token_scores(model.forward(ids.clone(), None, plan), plan), ids, None);
    Ok(f64::from(loss.into_data().convert::<f32>().into_vec::<f32>().expect("converted to f32")[0]))
}
