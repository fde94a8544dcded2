//! How weights are quantised.

use clap::Args;

use switchable_quant::kernels::QuantSpec;
use switchable_quant::lora::LinearSettings;
use switchable_quant::transformer::options::ModelOptions;

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
