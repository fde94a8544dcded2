//! What a model is calibrated on.

use std::path::Path;

use clap::Args;

use switchable_quant::experiments::running::progress::ShowProgress;
use switchable_quant::kernels::{BitWidth, ScalingMethod};
use switchable_quant::transformer::scaling::ScalingChoice;

use crate::arguments::{count::parse_count, scaling::ScalingArgs};
use crate::calibration::{CalibrationRequest, plan_needs_moments};
use crate::ending::usage;

/// What a model is calibrated on, where its quantiser or a plan goes by inputs.
#[derive(Debug, Clone, Default, Args)]
pub struct CalibrationArgs {
    /// Questions (SQuAD) or text (.txt, .txt.zst) that show what the inputs of the model are like, on which nothing is
    /// reported; by default training questions of the built-in model, and
    /// those that a bank is trained on
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub calibration: Vec<String>,
    /// Windows to calibrate on; by default 128
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub calibration_samples: Option<usize>,
    /// Which windows: the same for every command that is to give the same codes; by default 0
    #[arg(long, value_name = "SEED")]
    pub calibration_seed: Option<u64>,
    /// Factors that are folded in by it.
    #[command(flatten)]
    pub scaling: ScalingArgs,
}

impl CalibrationArgs {
    /// The first flag that says how to calibrate, where one is given.
    fn given(&self) -> Option<&'static str> {
        let given = [
            ("--calibration", !self.calibration.is_empty()),
            ("--calibration-samples", self.calibration_samples.is_some()),
            ("--calibration-seed", self.calibration_seed.is_some()),
        ];
        given.into_iter().find_map(|(flag, is_given)| is_given.then_some(flag))
    }

    /// Refuses all of it where a command calibrates nothing.
    ///
    /// # Errors
    ///
    /// The first flag that is given.
    pub fn expect_none(&self) -> anyhow::Result<()> {
        let scaling = (self.scaling.scaling != ScalingMethod::None).then_some("--scaling");
        let scaling_bits = self.scaling.scaling_bits.and(Some("--scaling-bits"));
        match self.given().or(scaling).or(scaling_bits) {
            Some(flag) => Err(usage(format!("`{flag}` is for a calibration, which this command has none of"))),
            None => Ok(()),
        }
    }

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
            samples: self.calibration_samples.unwrap_or(CalibrationRequest::SAMPLES),
            seed: self.calibration_seed.unwrap_or_default(),
            given: self.given(),
            is_needed: plan.map(plan_needs_moments).transpose()?.unwrap_or_default(),
            scaling: ScalingChoice { method: self.scaling.scaling, bits: self.scaling.bits(asked) },
            show,
        })
    }
}
