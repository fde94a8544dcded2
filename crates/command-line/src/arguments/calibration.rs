//! What a model is calibrated on.

use std::path::Path;

use clap::Args;

use switchable_quant::experiments::running::progress::ShowProgress;
use switchable_quant::kernels::BitWidth;
use switchable_quant::transformer::scaling::ScalingChoice;

use crate::arguments::{count::parse_count, scaling::ScalingArgs};
use crate::calibration::{CalibrationRequest, plan_needs_moments};

/// What a model is calibrated on, where its quantiser or a plan goes by inputs.
#[derive(Debug, Clone, Args)]
pub struct CalibrationArgs {
    /// Questions (SQuAD) or text (.txt, .txt.zst) that show what the inputs of the model are like, on which nothing is
    /// reported; by default training questions of the built-in model, and
    /// those that a bank is trained on
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub calibration: Vec<String>,
    /// Windows to calibrate on
    #[arg(long, default_value_t = CalibrationRequest::SAMPLES, value_name = "N", value_parser = parse_count)]
    pub calibration_samples: usize,
    /// Which windows: the same for every command that is to give the same codes
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub calibration_seed: u64,
    /// Factors that are folded in by it.
    #[command(flatten)]
    pub scaling: ScalingArgs,
}

impl Default for CalibrationArgs {
    fn default() -> Self {
        Self {
            calibration: Vec::new(),
            calibration_samples: CalibrationRequest::SAMPLES,
            calibration_seed: 0,
            scaling: ScalingArgs::default(),
        }
    }
}

impl CalibrationArgs {
    /// What the flags ask for, and a plan by what its sites say. Factors are looked for at the lowest of the widths
    /// asked for.
    ///
    /// # Errors
    ///
    /// When the plan cannot be read, or a flag contradicts another.
    pub fn request(
        &self,
        plan: Option<&Path>,
        asked: impl IntoIterator<Item = BitWidth>,
        show: ShowProgress,
    ) -> anyhow::Result<CalibrationRequest> {
        self.scaling.check()?;
        Ok(CalibrationRequest {
            files: self.calibration.clone(),
            samples: self.calibration_samples,
            seed: self.calibration_seed,
            is_needed: plan.map(plan_needs_moments).transpose()?.unwrap_or_default(),
            scaling: ScalingChoice { method: self.scaling.scaling, bits: self.scaling.bits(asked) },
            show,
        })
    }
}
