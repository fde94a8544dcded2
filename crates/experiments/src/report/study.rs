//! The study on one model: all analyses, one after another, each saved as it is done.

use burn::module::AutodiffModule as _;
use gpt2_model::{AdapterFolders, BitWidth, Gpt2ForQuestionAnswering, SitePrecision, SwitchableModel};
use quant_kernels::QuantAutodiffBackend;
use serde::Serialize;
use serde_json::json;
use squad_data::TextTokenizer;

use super::Stages;
use super::dynamic::{DynamicResults, DynamicStudy, run_dynamic};
use super::regimes::{RegimeResults, RegimeStudy, run_regimes};
use super::robustness::{RobustnessResults, RobustnessStudy, run_robustness};
use super::searches::{AllocationStudy, GreedyStudy, Searches};
use crate::Evaluator;
use crate::running::progress::ShowProgress;
use crate::search::allocation::DamageTable;
use crate::search::sensitivity::Sensitivity;
use crate::search::uniform::{UniformRow, sweep_precisions, uniform_sweep};
use crate::train::TrainRun;
use crate::{Error, Result};
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::reading::ReadingTask;

/// The questions of a study.
#[derive(Debug, Clone, Copy)]
pub struct StudyData<'a> {
    /// Adapters are trained on these.
    pub train: &'a ReadingTask,
    /// Sensitivities are measured and plans chosen on these.
    pub search: &'a ReadingTask,
    /// Results are reported on these.
    pub report: &'a ReadingTask,
    /// The tokenizer of all of them.
    pub tokenizer: &'a TextTokenizer,
    /// Longest window in tokens; by default the model's positions, at most 384.
    pub window: Option<usize>,
}

/// What a study does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StudyConfig {
    /// Width of the sensitivities and of the greedy search; by default the highest of 4, 3 and 2 bits
    /// that costs more than the noise.
    pub low: Option<BitWidth>,
    /// Share of the exact match that the greedy search may lose, in (0, 1).
    pub tolerance: f64,
    /// Widths that the exact allocation chooses from.
    pub choices: Vec<BitWidth>,
    /// Budgets of the exact allocation as mean bits per weight, scales included.
    pub budgets: Vec<f64>,
    /// Swaps tried at each budget.
    pub swaps: usize,
    /// Comparison of training regimes; `None` leaves it out.
    pub regimes: Option<RegimeStudy>,
    /// Attacks; `None` leaves them out.
    pub robustness: Option<RobustnessStudy>,
    /// Plans chosen at run time; `None` leaves them out.
    pub dynamic: Option<DynamicStudy>,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for StudyConfig {
    fn default() -> Self {
        use BitWidth as Bits;
        Self {
            low: None,
            tolerance: 0.1,
            choices: vec![Bits::B2, Bits::B3, Bits::B4, Bits::B5, Bits::B6, Bits::B8, Bits::B16, Bits::FULL],
            budgets: vec![2.5, 3.0, 4.0, 6.0],
            swaps: 20,
            regimes: None,
            robustness: None,
            dynamic: None,
            seed: 0,
        }
    }
}

/// All results.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    /// Uniform plans on the report questions: with adapters where the model has them.
    pub uniform: Vec<UniformRow>,
    /// The precisions of the study without adapters, on the report questions.
    pub plain_uniform: Vec<UniformRow>,
    /// Each block alone at the low width, on the search questions.
    pub layers: Sensitivity,
    /// Damage of every site at every width.
    pub damage: DamageTable,
    /// Sub-module sensitivity and greedy search.
    pub greedy: GreedyStudy,
    /// Exact allocations.
    pub allocation: AllocationStudy,
    /// Training regimes.
    pub regimes: Option<RegimeResults>,
    /// Attacks.
    pub robustness: Option<RobustnessResults>,
    /// Plans chosen at run time.
    pub dynamic: Option<DynamicResults>,
    /// Seed of everything random.
    pub seed: u64,
}

/// What a study runs with.
#[derive(Debug, Clone)]
pub struct StudyRun {
    /// Evaluation.
    pub evaluate: EvaluateOptions,
    /// Training: folders of checkpoints are made in the folder of the study.
    pub train: TrainRun,
    /// Whether progress is shown.
    pub show: ShowProgress,
}

/// Runs the study, or what is left of it.
///
/// # Errors
///
/// When an option is out of its range, a folder holds another study, or the work is stopped.
pub fn run_study<B: QuantAutodiffBackend>(
    model: &Gpt2ForQuestionAnswering<B>,
    data: StudyData<'_>,
    config: &StudyConfig,
    run: &StudyRun,
    stages: &Stages,
    device: &B::Device,
) -> Result<Study> {
    check(config)?;
    let plain = model.valid();
    let body = &plain.transformer;
    let adapted = |bits: BitWidth| {
        let precision = SitePrecision::uniform(bits);
        if body.adapter_widths().contains(&bits) { precision } else { precision.without_adapter() }
    };
    let report = Evaluator::<B::InnerBackend>::new(&plain, data.report, run.evaluate.clone(), device)?;
    let search = Evaluator::<B::InnerBackend>::new(&plain, data.search, run.evaluate.clone(), device)?;
    let seed = config.seed;

    let plain_uniform: Vec<UniformRow> =
        stages.run("uniform", &json!({ "seed": seed }), || uniform_sweep(&report, &sweep_precisions(), seed))?;
    let mut widths = body.adapter_widths();
    widths.sort_unstable_by(|a, b| b.cmp(a));
    let uniform = if widths.is_empty() {
        Vec::new()
    } else {
        let precisions: Vec<_> = std::iter::once(SitePrecision::FULL)
            .chain(widths.iter().map(|width| SitePrecision::uniform(*width)))
            .collect();
        stages.run("uniform-adapters", &json!({ "widths": widths, "seed": seed }), || {
            uniform_sweep(&report, &precisions, seed)
        })?
    };

    let full = &body.uniform_plan(SitePrecision::FULL);
    let low = match config.low {
        Some(low) => adapted(low),
        None => stages.run("low", &json!({ "seed": seed }), || {
            let candidates = [BitWidth::B4, BitWidth::B3, BitWidth::B2].map(adapted);
            let precisions: Vec<_> = std::iter::once(SitePrecision::FULL).chain(candidates).collect();
            let rows = uniform_sweep(&search, &precisions, seed)?;
            let costly = rows[1..].iter().find(|row| row.is_costly());
            Ok(costly.map_or(candidates[2], |row| row.precision))
        })?,
    };
    let searches = Searches { search: &search, report: &report, full, low, config, show: run.show, stages };
    let layers = searches.layers()?;
    let damage = searches.damage(adapted)?;
    let greedy = searches.greedy(&damage)?;
    let allocation = searches.allocation(&damage)?;

    let dynamic = match &config.dynamic {
        Some(dynamic) => {
            Some(run_dynamic(&plain, data.report, (dynamic, &adapted, seed), &run.evaluate, stages, device)?)
        }
        None => None,
    };
    let regimes = match &config.regimes {
        Some(regimes) => Some(run_regimes(model, data, (regimes, low, &greedy.sites, seed), run, stages, device)?),
        None => None,
    };
    let robustness = match &config.robustness {
        Some(robustness) => Some(run_robustness(model, data, (robustness, &adapted, seed), run, stages, device)?),
        None => None,
    };
    Ok(Study { uniform, plain_uniform, layers, damage, greedy, allocation, regimes, robustness, dynamic, seed })
}

/// # Errors
///
/// When an option is out of its range.
fn check(config: &StudyConfig) -> Result<()> {
    crate::search::greedy::check_tolerance(config.tolerance)?;
    if config.choices.is_empty() {
        return Err(Error::option("choices", "empty", "at least one width"));
    }
    if let Some(budget) = config.budgets.iter().find(|budget| !(**budget > 0.0 && budget.is_finite())) {
        return Err(Error::option("budgets", budget, "finite numbers of bits above 0"));
    }
    if let Some(robustness) = &config.robustness {
        robustness.check()?;
    }
    if let Some(dynamic) = &config.dynamic {
        dynamic.check()?;
    }
    match &config.regimes {
        Some(regimes) => regimes.check(),
        None => Ok(()),
    }
}
