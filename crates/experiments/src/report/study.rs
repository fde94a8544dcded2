//! The study on one model: all analyses, one after another, each saved as it is done.

use burn::module::AutodiffModule as _;
use gpt2_model::{BitWidth, Gpt2ForQuestionAnswering, SitePrecision};
use quant_kernels::QuantAutodiffBackend;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Stages;
use crate::accuracy::Accuracy;
use crate::allocation::{
    Allocation, DamageOptions, DamageTable, EqualBytes, RefineOptions, Refinement, Verified, measure_damage,
};
use crate::bank::BankConfig;
use crate::cost::Cost;
use crate::evaluate::{EvaluateOptions, Evaluator};
use crate::greedy::{GreedyOptions, GreedyResult, StopAt, greedy_search};
use crate::precision_range::{PrecisionRange, precision_range_test};
use crate::progress::ShowProgress;
use crate::reading::ReadingTask;
use crate::regime_comparison::{Contestant, RegimeRun, run_contestant, steps_within, training_bit_ops};
use crate::sensitivity::{Part, Sensitivity, SensitivityOptions, sensitivity};
use crate::statistics::PairedComparison;
use crate::train::{RegimeConfig, RegimeKind, Specialisation, TrainConfig, TrainRun};
use crate::uniform::{UniformRow, sweep_precisions, uniform_sweep};
use crate::{Error, Result};

/// The questions of a study.
#[derive(Debug, Clone, Copy)]
pub struct StudyData<'a> {
    /// Adapters are trained on these.
    pub train: &'a ReadingTask,
    /// Sensitivities are measured and plans chosen on these.
    pub search: &'a ReadingTask,
    /// Results are reported on these.
    pub report: &'a ReadingTask,
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
            seed: 0,
        }
    }
}

/// Which regimes are compared, and how they are trained.
#[derive(Debug, Clone, PartialEq)]
pub struct RegimeStudy {
    /// Widths and adapters.
    pub bank: BankConfig,
    /// Training of the static regime; the others get as many BitOps.
    pub train: TrainConfig,
    /// Seeds, at least one.
    pub seeds: Vec<u64>,
    /// Steps per width of the precision range test.
    pub range_steps: usize,
    /// Progress that counts in that test, nats.
    pub range_threshold: f64,
}

impl Serialize for RegimeStudy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        json!({
            "adapters": self.bank.adapters, "activations": self.bank.activations, "train": self.train,
            "seeds": self.seeds, "range_steps": self.range_steps, "range_threshold": self.range_threshold,
        })
        .serialize(serializer)
    }
}

/// A greedy search, checked on questions that it did not see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GreedyStudy {
    /// The width that sites are flipped to.
    pub low: SitePrecision,
    /// Each site alone.
    pub sites: Sensitivity,
    /// The search.
    pub search: GreedyResult,
    /// The exact allocation at the bytes of each flip.
    pub equal_bytes: Vec<EqualBytes>,
    /// What the plan found costs.
    pub cost: Cost,
    /// The plan with every site high, on the report questions.
    pub high: Accuracy,
    /// The plan found, on the report questions.
    pub found: Accuracy,
    /// Found against high.
    pub comparison: PairedComparison,
}

/// Exact allocations: evaluated where they were chosen and on other questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AllocationStudy {
    /// The whole front: bytes, predicted damage, average bits and plan.
    pub front: Vec<Allocation>,
    /// The plans at the budgets, on the search questions.
    pub verified: Vec<Verified>,
    /// The same after swaps, on the search questions.
    pub refined: Vec<Refinement>,
    /// The refined plans on the report questions: bytes, average bits, accuracy.
    pub reported: Vec<ReportedPlan>,
}

/// A plan on the report questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportedPlan {
    /// Bytes of the sites, scales included.
    pub bytes: usize,
    /// Mean width in bits, weighted by parameters.
    pub average_bits: f64,
    /// Its accuracy.
    pub accuracy: Accuracy,
}

/// Regimes trained and compared.
#[derive(Debug, Clone, PartialEq)]
pub struct RegimeResults {
    /// The lowest width that still learns.
    pub range: PrecisionRange,
    /// Every contestant with every seed.
    pub runs: Vec<RegimeRun>,
    /// Sensitivity of every site with the bank of the first seed: label and result.
    pub sites: Vec<(String, Sensitivity)>,
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

    let full = body.uniform_plan(SitePrecision::FULL);
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
    let how = |part| SensitivityOptions { part, change_to: low, seed, show: run.show };
    let low_options = json!({ "low": low, "seed": seed });
    let layers = stages.run("layers", &low_options, || Ok(sensitivity(&search, &full, &how(Part::Block))?.0))?;
    let damage: DamageTable = stages.run("damage", &json!({ "choices": config.choices, "seed": seed }), || {
        let mut choices = config.choices.clone();
        choices.sort_unstable();
        let choices = choices.into_iter().map(|bits| if bits.is_full() { SitePrecision::FULL } else { adapted(bits) });
        measure_damage(&search, &full, &DamageOptions { seed, show: run.show, ..DamageOptions::new(choices.collect()) })
    })?;

    let greedy_options = json!({ "low": low, "seed": seed, "tolerance": config.tolerance, "choices": config.choices });
    let greedy = stages.run("greedy", &greedy_options, || {
        let (sites, kept) = sensitivity(&search, &full, &how(Part::Site))?;
        let options =
            GreedyOptions { stop_at: StopAt::Tolerance(config.tolerance), show: run.show, ..GreedyOptions::new(low) };
        let (result, plan) = greedy_search(&search, &full, &sites, kept, &options)?;
        let equal_bytes = damage.compare_at_equal_bytes(&search, &full, &result.path)?;
        let (high, found) = (report.evaluate(&full)?, report.evaluate(&plan)?);
        let comparison = high.compare(&found, seed);
        let cost = Cost::of(body, &plan);
        Ok(GreedyStudy { low, sites, search: result, equal_bytes, cost, high, found, comparison })
    })?;

    let allocation_options = json!({
        "choices": config.choices, "budgets": config.budgets, "swaps": config.swaps, "seed": seed,
    });
    let allocation = stages.run("allocation", &allocation_options, || {
        let budgets = config.budgets.iter().map(|bits| (body.config().site_parameters() as f64 * bits / 8.0) as usize);
        let budgets: Vec<usize> = budgets.collect();
        let chosen = budgets.iter().map(|budget| damage.best_under(*budget)).collect::<Result<Vec<_>>>()?;
        let verified = damage.verify(&search, &full, &chosen)?;
        let (mut refined, mut reported) = (Vec::new(), Vec::new());
        for (row, &budget) in verified.iter().zip(&budgets) {
            let how = RefineOptions { evaluations: config.swaps, show: run.show, ..RefineOptions::new(budget) };
            let (refinement, plan) = damage.refine_by_swaps(&search, &full, &row.allocation, &how)?;
            let average_bits = plan.average_weight_bits(body.config());
            reported.push(ReportedPlan { bytes: refinement.bytes, average_bits, accuracy: report.evaluate(&plan)? });
            refined.push(refinement);
        }
        Ok(AllocationStudy { front: damage.pareto_front(), verified, refined, reported })
    })?;

    let regimes = match &config.regimes {
        Some(regimes) => Some(run_regimes(model, data, (regimes, low, &greedy.sites, seed), run, stages, device)?),
        None => None,
    };
    Ok(Study { uniform, plain_uniform, layers, damage, greedy, allocation, regimes })
}

/// # Errors
///
/// When an option is out of its range.
fn check(config: &StudyConfig) -> Result<()> {
    crate::greedy::check_tolerance(config.tolerance)?;
    if config.choices.is_empty() {
        return Err(Error::option("choices", "empty", "at least one width"));
    }
    if let Some(budget) = config.budgets.iter().find(|budget| !(**budget > 0.0 && budget.is_finite())) {
        return Err(Error::option("budgets", budget, "finite numbers of bits above 0"));
    }
    match &config.regimes {
        Some(regimes) if regimes.seeds.is_empty() => Err(Error::option("seeds", "empty", "at least one seed")),
        Some(regimes) => regimes.train.check(),
        None => Ok(()),
    }
}

/// Trains and evaluates all contestants.
fn run_regimes<B: QuantAutodiffBackend>(
    model: &Gpt2ForQuestionAnswering<B>,
    data: StudyData<'_>,
    (study, low, sites, seed): (&RegimeStudy, SitePrecision, &Sensitivity, u64),
    run: &StudyRun,
    stages: &Stages,
    device: &B::Device,
) -> Result<RegimeResults> {
    let quiet_run = TrainRun { dir: None, ..run.train.clone() };
    let range_config = TrainConfig { steps: study.range_steps, ..study.train.clone() };
    let range_options = json!({ "regimes": study, "seed": seed });
    let range = stages.run("precision-range", &range_options, || {
        let threshold = study.range_threshold;
        precision_range_test(model, data.train, &study.bank, threshold, (&range_config, &quiet_run), device)
    })?;

    let (mut runs, mut maps) = (Vec::new(), Vec::new());
    for contestant in contestants(model, study, sites)? {
        for &seed in &study.seeds {
            let name = format!("regime-{}-seed-{seed}", contestant.label.replace(", ", "-").replace(' ', "-"));
            let options = json!({ "regimes": study, "contestant": contestant, "low": low });
            let checkpoints = stages.dir().join("training").join(&name);
            let (result, map): (RegimeRun, Option<Sensitivity>) = stages.run(&name, &options, || {
                let training = TrainRun {
                    dir: Some(checkpoints.clone()),
                    identity: json!({ "part": name, "run": run.train.identity }),
                    ..run.train.clone()
                };
                let train = (data.train, &study.train, &training);
                let evaluation = (data.report, &run.evaluate);
                let (result, trained) =
                    run_contestant(model.clone(), &contestant, seed, &study.bank, train, evaluation, device)?;
                let map = if seed == study.seeds[0] && is_mapped(&contestant) {
                    let trained = trained.valid();
                    let search =
                        Evaluator::<B::InnerBackend>::new(&trained, data.search, run.evaluate.clone(), device)?;
                    let full = trained.transformer.uniform_plan(SitePrecision::FULL);
                    let change_to = lowest_trained(study, low);
                    let how = SensitivityOptions { part: Part::Site, change_to, seed, show: run.show };
                    Some(sensitivity(&search, &full, &how)?.0)
                } else {
                    None
                };
                Ok((result, map))
            })?;
            // The result is saved; its checkpoints have served.
            if checkpoints.exists() {
                std::fs::remove_dir_all(&checkpoints).map_err(|e| Error::io(&checkpoints, e))?;
            }
            maps.extend(map.map(|map| (contestant.label.clone(), map)));
            runs.push(result);
        }
    }
    Ok(RegimeResults { range, runs, sites: maps })
}

/// The low precision where the bank has it, else its lowest.
fn lowest_trained(study: &RegimeStudy, low: SitePrecision) -> SitePrecision {
    let lowest = study.bank.widths().min().unwrap_or(low.weights);
    let bits = if study.bank.widths().any(|width| width == low.weights) { low.weights } else { lowest };
    study.bank.precision(bits)
}

/// Whether a contestant's bank gets a heat map: the two that the study asks for.
fn is_mapped(contestant: &Contestant) -> bool {
    [STATIC, CYCLIC].contains(&contestant.label.as_str())
}

/// Label of the static regime, the baseline.
pub(super) const STATIC: &str = "static";
/// Label of the cyclic regime with as many steps.
pub(super) const CYCLIC: &str = "cyclic, equal steps";

/// The static regime, the cyclic one at equal steps and at equal BitOps, and the others at equal
/// BitOps.
fn contestants<B: QuantAutodiffBackend>(
    model: &Gpt2ForQuestionAnswering<B>,
    study: &RegimeStudy,
    sites: &Sensitivity,
) -> Result<Vec<Contestant>> {
    let ladder = study.bank.ladder(model)?;
    let steps = study.train.steps;
    // Cycles of at least four steps, eight of them where they fit.
    let cycles = (steps / 4).clamp(1, 8);
    let of = |kind| RegimeConfig { cycles, ..RegimeConfig::of(kind) };
    let budget = training_bit_ops(model.config(), &*of(RegimeKind::Static).build(&ladder, steps)?, steps);
    let equal_bit_ops = |label: &str, regime: RegimeConfig| {
        let steps = steps_within(model.config(), &regime, &ladder, budget)?;
        Ok::<_, Error>(Contestant { label: label.into(), regime, steps })
    };
    let most_harmful: Vec<_> =
        sites.by_harm(crate::HarmOrder::Divergence).into_iter().rev().filter_map(crate::Effect::site).collect();
    let share_of_sites = |share: usize| (most_harmful.len() / share).max(1);
    let specialisation = Specialisation {
        sites: most_harmful[..share_of_sites(6)].to_vec(),
        low: study.bank.precision(ladder.rungs()[0].bits),
        share: 0.2,
    };
    Ok(vec![
        Contestant { label: STATIC.into(), regime: of(RegimeKind::Static), steps },
        Contestant { label: CYCLIC.into(), regime: of(RegimeKind::Cyclic), steps },
        equal_bit_ops("cyclic, equal BitOps", of(RegimeKind::Cyclic))?,
        equal_bit_ops("joint", of(RegimeKind::Joint))?,
        equal_bit_ops("cascade", of(RegimeKind::Cascade))?,
        equal_bit_ops("specialised", RegimeConfig { specialisation: Some(specialisation), ..of(RegimeKind::Static) })?,
        equal_bit_ops("layer dropout", RegimeConfig { layer_dropout: share_of_sites(12), ..of(RegimeKind::Static) })?,
    ])
}

/// Labels of the contestants in their order, each once.
pub(super) fn labels(runs: &[RegimeRun]) -> Vec<&str> {
    let mut labels: Vec<&str> = Vec::new();
    for run in runs {
        if !labels.contains(&run.contestant.label.as_str()) {
            labels.push(&run.contestant.label);
        }
    }
    labels
}
