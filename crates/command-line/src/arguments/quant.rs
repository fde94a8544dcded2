//! How weights are quantised.

use clap::Args;

use switchable_quant::kernels::{QuantSpec, Rotation, RoundingMethod, ScalingMethod};
use switchable_quant::lora::{LinearSettings, QuantizedCache};
use switchable_quant::transformer::options::ModelOptions;

use crate::arguments::calibration::CalibrationArgs;

/// How weights and activations are quantised.
#[derive(Debug, Clone, Args)]
pub struct QuantArgs {
    /// Weight quantiser: granularity,mapping,range; e.g. per-channel,symmetric,min-max
    /// ranges are min-max, percentile:P, mse and, by the inputs of a calibration, importance
    #[arg(long, default_value = "per-tensor,symmetric,min-max", value_name = "SPEC")]
    pub quantizer: QuantSpec,
    /// How weights are rounded where no learned step does: nearest, hqq (scales of small error but for a few
    /// weights), nested (the highest bits of the codes of 8 bits) or gptq (each input makes up for the error of those
    /// before it, by a calibration)
    #[arg(long, default_value_t = RoundingMethod::Nearest, value_name = "METHOD")]
    pub rounding: RoundingMethod,
    /// How inputs and weights of a layer are rotated before they are quantised: none, hadamard, or hadamard:SEED for
    /// other signs; for activations of few bits
    #[arg(long, default_value_t = Rotation::None, value_name = "ROTATION")]
    pub rotation: Rotation,
    /// What the model is calibrated on.
    #[command(flatten)]
    pub calibration: CalibrationArgs,
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
    /// Whether something asked for goes by the inputs of the model.
    pub fn needs_calibration(&self) -> bool {
        self.rounding.needs_moments(self.quantizer) || self.calibration.scaling.scaling != ScalingMethod::None
    }

    /// Options to build a model with.
    pub fn model_options(&self) -> ModelOptions {
        let Self { quantizer: weight, rounding, rotation, .. } = *self;
        let linear = LinearSettings { weight, rounding, rotation, ..LinearSettings::default() };
        let bytes = self.quantized_cache.map(|gib| (gib * f64::from(1u32 << 30)) as usize);
        let cache = bytes.map_or_else(QuantizedCache::default, QuantizedCache::new);
        ModelOptions { linear, cache, ..ModelOptions::default() }
    }
}
