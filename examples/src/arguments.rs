//! Flags that several examples take.

use std::path::PathBuf;

use clap::Args;
use switchable_quant::device::{Device, DeviceChoice};
use switchable_quant::experiments::{EvaluateOptions, ShowProgress, StopFlag, Workers};
use switchable_quant::kernels::{BitWidth, QuantSpec};
use switchable_quant::model::{LinearSettings, ModelOptions};

/// Where and how a command runs.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// auto, cpu, ndarray, cuda, cuda:N or wgpu
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: DeviceChoice,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Folder for results; made when missing
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Batches computed at once; by default one per core on a CPU, one on a GPU
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// Show no progress
    #[arg(long)]
    pub quiet: bool,
}

impl RunArgs {
    /// The workers for a device.
    pub fn workers(&self, device: &Device) -> Workers {
        Workers::new(self.workers.unwrap_or_else(|| device.worker_threads().get()))
    }

    /// Whether progress is shown.
    pub fn show(&self) -> ShowProgress {
        if self.quiet { ShowProgress::No } else { ShowProgress::Yes }
    }

    /// Options of an evaluation.
    pub fn evaluate_options(&self, device: &Device, batch_size: usize, stop: &StopFlag) -> EvaluateOptions {
        EvaluateOptions { batch_size, workers: self.workers(device), stop: stop.clone(), ..EvaluateOptions::default() }
    }
}

/// Model and questions.
#[derive(Debug, Clone, Args)]
pub struct InputArgs {
    /// Hugging Face folder of a GPT-2, or a name such as openai-community/gpt2 to download;
    /// by default the model that is part of the program
    #[arg(long, value_name = "DIR|NAME")]
    pub model: Option<String>,
    /// Folder of adapters, one sub-folder per width (bits-4, bits-8, …); by default those of the
    /// built-in model, and none for another model
    #[arg(long, value_name = "DIR")]
    pub adapters: Option<PathBuf>,
    /// SQuAD JSON file, v1.1 or v2.0, or squad to download it; by default generated questions
    #[arg(long, value_name = "FILE")]
    pub data: Option<String>,
    /// Use at most this many questions
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Longest window in tokens; by default the model's positions, at most 384
    #[arg(long, value_name = "N")]
    pub window: Option<usize>,
    /// Windows per batch
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub batch: usize,
}

/// How weights and activations are quantised.
#[derive(Debug, Clone, Args)]
pub struct QuantArgs {
    /// Weight quantiser: granularity,mapping,range; e.g. per-channel,symmetric,min-max
    #[arg(long, default_value = "per-tensor,symmetric,min-max", value_name = "SPEC")]
    pub quantizer: QuantSpec,
}

impl QuantArgs {
    /// Options to build a model with.
    pub fn model_options(&self) -> ModelOptions {
        let linear = LinearSettings { weight: self.quantizer, ..LinearSettings::default() };
        ModelOptions { linear, ..ModelOptions::default() }
    }
}

/// Widths separated by commas, such as `32,16,8,4`.
///
/// # Errors
///
/// When one is not a width.
pub fn parse_bits(text: &str) -> Result<Vec<BitWidth>, String> {
    text.split(',').map(|part| part.trim().parse().map_err(|e| format!("{e}"))).collect()
}
