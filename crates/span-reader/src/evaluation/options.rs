//! How questions are read.

use squad_data::{DecodeConfig, SpanFeatures};
use switchable_model::sites::Sites;

use crate::running::stop::StopFlag;
use crate::running::workers::Workers;

/// Options of an evaluation.
#[derive(Debug, Clone)]
pub struct EvaluateOptions {
    /// Windows per batch, at most.
    pub batch_size: usize,
    /// Bytes in f32 that the widest activation of a batch may take: a batch has no more windows than that, but one.
    /// It bounds the memory of a model whatever its width; `None` where batches of the whole size are wanted, as on a
    /// GPU.
    pub activation_bytes: Option<usize>,
    /// Batches computed at once.
    pub workers: Workers,
    /// How spans become answers.
    pub decode: DecodeConfig,
    /// Bytes that [`KeptStates`](crate::evaluation::evaluate::KeptStates) may hold.
    pub kept_state_bytes: usize,
    /// Asked between batches.
    pub stop: StopFlag,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self {
            batch_size: 32,
            activation_bytes: Some(32 << 20),
            workers: Workers::callers_thread(),
            decode: DecodeConfig::default(),
            kept_state_bytes: 2 << 30,
            stop: StopFlag::default(),
        }
    }
}

impl EvaluateOptions {
    /// Windows per batch for a model with these sites.
    ///
    /// ```text
    /// windows = clamp(bytes / (4 · longest window · widest output), 1, batch size)
    /// ```
    pub fn windows_per_batch(&self, sites: &Sites, features: &SpanFeatures) -> usize {
        let longest = features.windows().iter().map(|window| window.ids.len()).max().unwrap_or(1);
        let widest = sites.iter().map(|site| sites.shape(site)[1]).max().unwrap_or(1);
        let fitting = |bytes: usize| (bytes / (longest * widest * size_of::<f32>()).max(1)).max(1);
        self.activation_bytes.map_or(self.batch_size, |bytes| self.batch_size.min(fitting(bytes)))
    }
}
