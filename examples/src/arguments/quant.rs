//! How weights are quantised.

use clap::Args;

use switchable_quant::kernels::QuantSpec;
use switchable_quant::lora::{LinearSettings, QuantizedCache};
use switchable_quant::transformer::options::ModelOptions;

/// How weights and activations are quantised.
#[derive(Debug, Clone, Args)]
pub struct QuantArgs {
    /// Weight quantiser: granularity,mapping,range; e.g. per-channel,symmetric,min-max
    #[arg(long, default_value = "per-tensor,symmetric,min-max", value_name = "SPEC")]
    pub quantizer: QuantSpec,
    /// Most memory for quantised weights that are kept, in GiB; by default four forms of each weight
    #[arg(long, value_name = "GIB", value_parser = gib)]
    pub quantized_cache: Option<f64>,
}

fn gib(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(gib) if (0.0..=1e6).contains(&gib) => Ok(gib),
        _ => Err("expected a number of GiB from 0 to 1000000".into()),
    }
}

impl QuantArgs {
    /// Options to build a model with.
    pub fn model_options(&self) -> ModelOptions {
        let linear = LinearSettings { weight: self.quantizer, ..LinearSettings::default() };
        let bytes = self.quantized_cache.map(|gib| (gib * f64::from(1u32 << 30)) as usize);
        let cache = bytes.map_or_else(QuantizedCache::default, QuantizedCache::new);
        ModelOptions { linear, cache, ..ModelOptions::default() }
    }
}
