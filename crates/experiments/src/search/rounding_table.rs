//! Roundings, ranges, scaling and rotations beside each other, on every granularity, without any training.

use std::fmt;

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantBackend;
use quant_kernels::spec::{
    bit_width::BitWidth,
    formats::format::Format,
    granularity::{Granularity, GroupSize},
    quant_spec::QuantSpec,
    range_estimator::RangeEstimator,
    rotation::Rotation,
    rounding_method::RoundingMethod,
    scaling_method::{ScalingMethod, SmoothingStrength},
};
use span_reader::cost::plan_bytes;
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::statistics::PairedComparison;
use squad_data::QuestionScore;
use switchable_lora::linear_settings::LinearSettings;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::config::ModelConfig as _;
use switchable_model::model::SwitchableModel;
use switchable_model::scaling::{ChooseScaling as _, ScalingChoice};
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::{Error, Result};
use crate::running::memory::Parts;
use crate::running::progress::{EvaluationProgress, ShowProgress};

/// Factors, a rotation, a range and a rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// How factors that fold into the model are chosen, for the width and the grid of the row.
    pub scaling: ScalingMethod,
    /// How inputs are rotated.
    #[serde(default)]
    pub rotation: Rotation,
    /// How ranges are found.
    pub range: RangeEstimator,
    /// How codes are found.
    pub rounding: RoundingMethod,
}

impl Recipe {
    /// From the plainest to the one that knows most of the inputs.
    pub const ALL: [Self; 7] = [
        Self::new(RangeEstimator::MinMax, RoundingMethod::Nearest),
        Self::new(RangeEstimator::Mse, RoundingMethod::Nearest),
        Self::new(RangeEstimator::Importance, RoundingMethod::Nearest),
        Self::new(RangeEstimator::MinMax, RoundingMethod::Hqq),
        Self::new(RangeEstimator::MinMax, RoundingMethod::Gptq),
        Self::new(RangeEstimator::Importance, RoundingMethod::Gptq),
        Self { scaling: ScalingMethod::Awq, ..Self::new(RangeEstimator::Importance, RoundingMethod::Gptq) },
    ];

    /// What is tried where activations have few bits: weights as they round best, inputs as they are, with factors,
    /// rotated.
    pub const OF_ACTIVATIONS: [Self; 3] = [
        Self::new(RangeEstimator::Importance, RoundingMethod::Gptq),
        Self {
            scaling: ScalingMethod::Smooth(SmoothingStrength::HALF),
            ..Self::new(RangeEstimator::Importance, RoundingMethod::Gptq)
        },
        Self { rotation: Rotation::Hadamard(0), ..Self::new(RangeEstimator::Importance, RoundingMethod::Gptq) },
    ];

    /// A range and a rounding, inputs as they are.
    pub const fn new(range: RangeEstimator, rounding: RoundingMethod) -> Self {
        Self { scaling: ScalingMethod::None, rotation: Rotation::None, range, rounding }
    }
}

/// `gptq, importance`, with factors `awq, gptq, importance`, rotated `hadamard, gptq, importance`
impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scaling != ScalingMethod::None {
            write!(f, "{}, ", self.scaling)?;
        }
        if self.rotation != Rotation::None {
            write!(f, "{}, ", self.rotation)?;
        }
        write!(f, "{}, {}", self.rounding, self.range)
    }
}

/// A cell of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundingRow {
    /// How ranges and codes are found.
    pub recipe: Recipe,
    /// Granularity, mapping and range.
    pub quantizer: QuantSpec,
    /// Bits of the weights of every site.
    pub bits: BitWidth,
    /// Bits of what enters it.
    pub activations: BitWidth,
    /// Bits per weight of the sites, scales and zero points counted.
    pub stored_bits: f64,
    /// Accuracy on the evaluator's questions.
    pub accuracy: Accuracy,
    /// Against full precision, question by question.
    pub comparison: PairedComparison,
}

/// What a table compares.
#[derive(Debug, Clone)]
pub struct RoundingTableOptions {
    /// Widths.
    pub widths: Vec<BitWidth>,
    /// Granularities with their mappings.
    pub grids: Vec<(Granularity, Format)>,
    /// Widths of the activations that are tried with weights of 4 bits, one scale per channel.
    pub activations: Vec<BitWidth>,
    /// Seed of the bootstraps.
    pub seed: u64,
    /// Whether progress is shown.
    pub show: ShowProgress,
    /// Cells known from before, one by one.
    pub known: Parts,
}

impl Default for RoundingTableOptions {
    fn default() -> Self {
        let group = |rows| Granularity::PerGroup(GroupSize::new(rows).expect("more than none"));
        Self {
            widths: vec![BitWidth::B4, BitWidth::B3, BitWidth::B2],
            grids: vec![
                (Granularity::PerTensor, Format::Symmetric),
                (Granularity::PerChannel, Format::Symmetric),
                (group(128), Format::Asymmetric),
                (group(64), Format::Asymmetric),
                (group(32), Format::Asymmetric),
            ],
            activations: vec![BitWidth::B8, BitWidth::B4, BitWidth::B3],
            seed: 0,
            show: ShowProgress::default(),
            known: Parts::default(),
        }
    }
}

/// What full precision gives, and every cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundingTable {
    /// All sites at 32 bits, without adapters.
    pub reference: Accuracy,
    /// Grid by grid, in each width by width, in each recipe by recipe.
    pub rows: Vec<RoundingRow>,
    /// Activations of few bits, width by width, in each recipe by recipe.
    pub of_activations: Vec<RoundingRow>,
}

/// A cell as it is known again: the scores of its questions, which a saved [`Accuracy`] has not, beside it.
#[derive(Serialize, Deserialize)]
struct Known {
    accuracy: Accuracy,
    scores: Vec<QuestionScore>,
}

/// Evaluates every recipe at every width on every grid, all sites alike and without adapters.
///
/// # Errors
///
/// When the model knows nothing of its inputs where a recipe goes by them, a width is none of a grid's format, or the
/// work is stopped.
pub fn rounding_table<B: QuantBackend, M: SwitchableModel<B>>(
    evaluator: &Evaluator<'_, B, M>,
    options: &RoundingTableOptions,
) -> Result<RoundingTable> {
    let body = &evaluator.model().transformer;
    let weights = body.config().site_parameters() as f64;
    let cells = cells(options);
    let progress = EvaluationProgress::start("roundings", evaluator, cells.len() + 1, options.show);
    let evaluated = |precision: SitePrecision, scaling: ScalingMethod| -> Result<Known> {
        let (mut accuracy, _) = if scaling == ScalingMethod::None {
            progress.predict(evaluator, &body.uniform_plan(precision))?
        } else {
            let model = scaled(evaluator.model(), precision, scaling)?;
            let (options, device) = (evaluator.options().clone(), body.device());
            let scaled = Evaluator::new(&model, evaluator.task(), options, &device)?;
            progress.predict(&scaled, &model.transformer.uniform_plan(precision))?
        };
        let scores = std::mem::take(&mut accuracy.scores);
        Ok(Known { accuracy, scores })
    };
    let known = options.known.each(&cell_names(options), |index| match index.checked_sub(1) {
        None => evaluated(SitePrecision::FULL, ScalingMethod::None),
        Some(cell) => evaluated(cells[cell].precision(), cells[cell].recipe.scaling),
    })?;
    let mut measured = known.into_iter().map(|Known { accuracy, scores }| Accuracy { scores, ..accuracy });
    let reference = measured.next().ok_or_else(|| Error::option("widths", "empty", "at least one"))?;
    let mut rows = Vec::with_capacity(cells.len());
    let of_weights = cells.len() - options.activations.len() * Recipe::OF_ACTIVATIONS.len();
    for (cell, accuracy) in cells.into_iter().zip(measured) {
        let precision = cell.precision();
        let Cell { recipe, quantizer, bits, activations } = cell;
        let stored_bits = 8.0 * plan_bytes(body, &body.uniform_plan(precision)) as f64 / weights;
        let comparison = reference.compare(&accuracy, options.seed);
        rows.push(RoundingRow { recipe, quantizer, bits, activations, stored_bits, accuracy, comparison });
    }
    progress.finish();
    let of_activations = rows.split_off(of_weights);
    Ok(RoundingTable { reference, rows, of_activations })
}

/// The model with the factors that its quantiser at a precision asks for.
fn scaled<B: QuantBackend, M: SwitchableModel<B>>(
    model: &ForQuestionAnswering<B, M>,
    precision: SitePrecision,
    scaling: ScalingMethod,
) -> Result<ForQuestionAnswering<B, M>> {
    let settings = model.transformer.settings();
    let weight = precision.quantizer.unwrap_or(settings.weight);
    let mut model = model.clone().with_linear_settings(LinearSettings { weight, ..settings });
    let choice = ScalingChoice { method: scaling, bits: precision.weights };
    model.transformer = model.transformer.scaled_by(choice, &mut |_| Ok(()))?.0;
    Ok(model)
}

/// What every site is quantised to.
struct Cell {
    recipe: Recipe,
    quantizer: QuantSpec,
    bits: BitWidth,
    activations: BitWidth,
}

impl Cell {
    fn precision(&self) -> SitePrecision {
        SitePrecision::FULL
            .with_weights(self.bits)
            .with_activations(self.activations)
            .with_quantizer(self.quantizer)
            .with_rounding(self.recipe.rounding.into())
            .with_rotation(self.recipe.rotation)
    }
}

/// What the cells are known by: full precision, then every cell.
pub fn cell_names(options: &RoundingTableOptions) -> Vec<String> {
    let cells = (1..=cells(options).len()).map(|cell| format!("cell-{cell:03}"));
    std::iter::once("full".to_owned()).chain(cells).collect()
}

/// Those of the weights alone, then those of activations.
fn cells(options: &RoundingTableOptions) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &(granularity, format) in &options.grids {
        for &bits in &options.widths {
            for recipe in Recipe::ALL {
                let quantizer = QuantSpec { granularity, format, range: recipe.range };
                cells.push(Cell { recipe, quantizer, bits, activations: BitWidth::FULL });
            }
        }
    }
    for &activations in &options.activations {
        for recipe in Recipe::OF_ACTIVATIONS {
            let (granularity, format) = (Granularity::PerChannel, Format::Symmetric);
            let quantizer = QuantSpec { granularity, format, range: recipe.range };
            cells.push(Cell { recipe, quantizer, bits: BitWidth::B4, activations });
        }
    }
    cells
}
