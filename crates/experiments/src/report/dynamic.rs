//! The part of a study that chooses plans at run time.

use gpt2_model::{BitWidth, Gpt2ForQuestionAnswering, PackOptions, PackedForm, SitePrecision, SwitchableModel};
use quant_kernels::QuantBackend;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Stages;
use crate::{Error, Result};
use span_reader::choice::measured_cascade::{CalibratedCascade, MeasuredCascade};
use span_reader::choice::resident::ResidentBytes;
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::reading::ReadingTask;

/// A confidence cascade against its plans alone, all from one nested copy of the weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DynamicStudy {
    /// Widths of the plans, 2 to 8 bits.
    pub widths: Vec<BitWidth>,
    /// Share of the best exact match that the chosen thresholds are to reach, 0 to 1.
    pub share: f64,
    /// Most points of the curve.
    pub points: usize,
}

impl Default for DynamicStudy {
    /// 2, 3, 4 and 8 bits; 0.99 of the best; 24 points.
    fn default() -> Self {
        let widths = vec![BitWidth::B2, BitWidth::B3, BitWidth::B4, BitWidth::B8];
        Self { widths, share: 0.99, points: 24 }
    }
}

impl DynamicStudy {
    /// # Errors
    ///
    /// When a width is not of the nested weights, there is none, or another option is out of its range.
    pub(super) fn check(&self) -> Result<()> {
        let nested = BitWidth::B2..=BitWidth::B8;
        if self.widths.is_empty() || !self.widths.iter().all(|bits| nested.contains(bits)) {
            let got = self.widths.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            return Err(Error::option("dynamic.widths", got, "widths from 2 to 8 bits"));
        }
        if !(0.0..=1.0).contains(&self.share) {
            return Err(Error::option("share", self.share, "a share from 0 to 1"));
        }
        if self.points < 2 {
            return Err(Error::option("points", self.points, "at least 2"));
        }
        Ok(())
    }
}

/// What choosing at run time gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DynamicResults {
    /// Bytes of the nested copy, and of one copy for each width.
    pub resident: ResidentBytes,
    /// The cascade and the plans alone.
    pub cascade: MeasuredCascade,
}

/// Thresholds from every other paragraph of the questions, results from the rest. Nothing is timed, so
/// that a study that was interrupted ends like one that was not.
pub(super) fn run_dynamic<B: QuantBackend>(
    model: &Gpt2ForQuestionAnswering<B>,
    questions: &ReadingTask,
    (study, adapted, seed): (&DynamicStudy, &dyn Fn(BitWidth) -> SitePrecision, u64),
    evaluate: &EvaluateOptions,
    stages: &Stages,
    device: &B::Device,
) -> Result<DynamicResults> {
    stages.run("dynamic", &json!({ "dynamic": study, "seed": seed }), || {
        let nested = model.clone().pack(PackedForm::Nested, &PackOptions::default())?;
        let mut widths = study.widths.clone();
        widths.sort_unstable();
        widths.dedup();
        let plans: Vec<_> = widths.iter().map(|&bits| nested.transformer.uniform_plan(adapted(bits))).collect();
        let [calibration, evaluation] = questions.halves()?;
        let calibrated = CalibratedCascade::new(&nested, &calibration, &plans, study.share, (evaluate, None), device)?;
        let cascade = calibrated.measure(&nested, &evaluation, (study.points, seed), evaluate)?;
        Ok(DynamicResults { resident: ResidentBytes::measure(&nested, &widths)?, cascade })
    })
}
