//! Steps and adapters learned for one grid of levels at one width, from where GPTQ leaves it.
//!
//! ```text
//! start      the scales that GPTQ's search finds, adapters that add nothing
//! training   steps and adapters of every site together, the base as it is
//! ```

use burn::module::AutodiffModule as _;
use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use quant_kernels::spec::{
    bit_width::BitWidth, formats::format::Format, granularity::Granularity, quant_spec::QuantSpec,
    range_estimator::RangeEstimator, rotation::Rotation, rounding_method::RoundingMethod,
};
use span_reader::cost::plan_bytes;
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::statistics::PairedComparison;
use switchable_lora::{linear_settings::LinearSettings, lora_config::LoraConfig};
use switchable_model::calibration::ModelMoments;
use switchable_model::config::ModelConfig as _;
use switchable_model::model::{SwitchableModel as _, TrainableModel};

use crate::banks::bank::{BankConfig, train_bank};
use crate::error::Result;
use crate::train::config::TrainConfig;
use crate::train::trainer::{TrainRun, Training};
use crate::workbench::Workbench;

/// How steps are learned.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepTraining {
    /// The adapters beside them.
    pub lora: LoraConfig,
    /// The training.
    pub train: TrainConfig,
}

/// A grid with steps that were learned for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LearnedGrid {
    /// Granularity, mapping, and the range that the steps started from.
    pub quantizer: QuantSpec,
    /// Bits of every site.
    pub bits: BitWidth,
    /// Bits per weight of the sites, scales and adapters counted.
    pub stored_bits: f64,
    /// Accuracy on the report questions.
    pub accuracy: Accuracy,
    /// Against full precision, question by question.
    pub comparison: PairedComparison,
}

/// Learns the steps of one grid on the training questions of a study, and reads its report questions.
///
/// # Errors
///
/// When the grid has no codes at the width, the rank does not fit, or the work is stopped.
pub fn learn_grid<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    bench: &Workbench<'_, B, M>,
    moments: &ModelMoments,
    (granularity, bits): (Granularity, BitWidth),
    (how, reference): (&StepTraining, &Accuracy),
) -> Result<LearnedGrid> {
    let quantizer = QuantSpec { granularity, format: Format::Symmetric, range: RangeEstimator::Importance };
    let mut model = bench.model.clone();
    model.drop_adapters();
    let settings = LinearSettings {
        weight: quantizer,
        rounding: RoundingMethod::Gptq,
        rotation: Rotation::None,
        ..model.transformer.settings()
    };
    let mut model = model.with_linear_settings(settings);
    model.transformer = moments.given_to(model.transformer)?;
    let bank = BankConfig { learned_steps: true, ..BankConfig::new(&[bits], how.lora, bench.run.seed) };
    let run = TrainRun { dir: None, ..bench.run.train.clone() };
    let training = Training { config: &how.train, run: &run };
    let (trained, _) = train_bank(model, bench.data.train, &bank, training)?;
    let plain = trained.valid();
    let evaluator = Evaluator::new(&plain, bench.data.report, bench.run.evaluate.clone(), &bench.device())?;
    let plan = plain.transformer.uniform_plan(bank.precision(bits));
    let accuracy = evaluator.evaluate(&plan)?;
    let weights = plain.transformer.config().site_parameters() as f64;
    let stored_bits = 8.0 * plan_bytes(&plain.transformer, &plan) as f64 / weights;
    let comparison = reference.compare(&accuracy, bench.run.seed);
    Ok(LearnedGrid { quantizer, bits, stored_bits, accuracy, comparison })
}
