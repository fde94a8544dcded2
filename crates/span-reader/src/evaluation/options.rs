//! How questions are read.

use squad_data::DecodeConfig;

use crate::running::stop::StopFlag;
use crate::running::workers::Workers;

/// Options of an evaluation.
#[derive(Debug, Clone)]
pub struct EvaluateOptions {
    /// Windows per batch.
    pub batch_size: usize,
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
            workers: Workers::callers_thread(),
            decode: DecodeConfig::default(),
            kept_state_bytes: 2 << 30,
            stop: StopFlag::default(),
        }
    }
}
