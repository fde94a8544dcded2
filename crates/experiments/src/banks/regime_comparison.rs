//! Regimes against one another: the same base, data and seeds, equal steps or equal BitOps.
//!
//! ```text
//! training BitOps   = Σ_steps Σ_branches Σ_sites parameters · weight bits · activation bits    per token
//! mean accuracy     = 1/(s·n) · Σ_seeds Σ_questions score
//! ```
//!
//! Seeds and questions both vary, so intervals are those of [`Interval::over_seeds`]: Student's over the
//! seeds, of which there are few, and that of the questions, each with its mean over the seeds. With one seed
//! there is no interval. Two regimes are compared in pairs of the same seed and question.

use burn::module::AutodiffModule as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use quant_kernels::{backends::quant_backend::QuantAutodiffBackend, spec::bit_width::BitWidth};
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::statistics::{Interval, mean};
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::TrainableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::Site;
use switchable_model::span_head::ForQuestionAnswering;

use crate::banks::bank::{BankConfig, BankOverrides, RegimeOfBank, train_bank_with};
use crate::error::{Error, Result};
use crate::train::config::TrainConfig;
use crate::train::ladder::Ladder;
use crate::train::regimes::Regime;
use crate::train::regimes::config::RegimeConfig;
use crate::train::regimes::table::Regimes;
use crate::train::trainer::Training;
use crate::workbench::Workbench;

/// A regime in a comparison, and what it changes of the study's bank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "ContestantRecord", into = "ContestantRecord")]
pub struct Contestant {
    /// Its name in tables.
    pub label: String,
    /// The regime.
    pub regime: RegimeConfig,
    /// What it has otherwise than the bank of the study.
    pub bank: BankOverrides,
    /// Optimiser steps.
    pub steps: usize,
}

/// A contestant in a file, where the changes of the bank stand among the options of the regime.
#[derive(Serialize, Deserialize)]
struct ContestantRecord {
    label: String,
    regime: RegimeRecord,
    steps: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
struct RegimeRecord {
    #[serde(flatten)]
    config: RegimeConfig,
    #[serde(default, skip_serializing_if = "BankOverrides::is_empty")]
    bank: BankOverrides,
}

impl TryFrom<Map<String, Value>> for RegimeRecord {
    type Error = serde_json::Error;

    /// Apart, so that a field that neither has is refused.
    fn try_from(mut options: Map<String, Value>) -> Result<Self, Self::Error> {
        let bank = options.remove("bank").map(serde_json::from_value).transpose()?.unwrap_or_default();
        Ok(Self { config: serde_json::from_value(Value::Object(options))?, bank })
    }
}

impl From<ContestantRecord> for Contestant {
    fn from(ContestantRecord { label, regime, steps }: ContestantRecord) -> Self {
        Self { label, regime: regime.config, bank: regime.bank, steps }
    }
}

impl From<Contestant> for ContestantRecord {
    fn from(Contestant { label, regime, bank, steps }: Contestant) -> Self {
        Self { label, regime: RegimeRecord { config: regime, bank }, steps }
    }
}

/// One contestant of a comparison, to be trained with a seed.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The contestant.
    pub contestant: &'a Contestant,
    /// Seed of adapters, data order and the regime.
    pub seed: u64,
    /// The bank of the comparison.
    pub bank: &'a BankConfig,
    /// How it is trained; the steps are those of the contestant.
    pub training: Training<'a>,
}

/// Accuracy of a trained bank at one of its widths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WidthAccuracy {
    /// The width.
    pub bits: BitWidth,
    /// With every site at that width.
    pub accuracy: Accuracy,
    /// Which questions were answered exactly, `1` or `0` each, in file order.
    pub exact: String,
}

/// One contestant trained with one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegimeRun {
    /// The contestant.
    pub contestant: Contestant,
    /// Seed of adapters, data order and the regime.
    pub seed: u64,
    /// BitOps of the sites per token over the run, forward passes only.
    pub bit_ops: f64,
    /// Loss of the last tenth of the steps, mean, nats.
    pub final_loss: f64,
    /// Accuracy at every width, ascending.
    pub widths: Vec<WidthAccuracy>,
}

/// Trains a contestant with a seed and evaluates every width of its bank, which is that of the comparison
/// with the contestant's overrides.
///
/// Returns the run and the trained model.
///
/// # Errors
///
/// As [`train_bank_with`] and [`Evaluator::evaluate`].
pub fn run_contestant<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    bench: &Workbench<'_, B, M>,
    entry: Entry<'_>,
) -> Result<(RegimeRun, ForQuestionAnswering<B, M>)> {
    let Entry { contestant, seed, bank, training } = entry;
    let bank = BankConfig { seed, ..bank.overridden(&contestant.bank) };
    let config = TrainConfig { seed, steps: contestant.steps, ..training.config.clone() };
    let regime = RegimeConfig { seed, ..contestant.regime.clone() };
    let ladder = bank.ladder(bench.model)?;
    let build = |ladder: &Ladder| bench.regimes.build(&regime, ladder, contestant.steps);
    let bit_ops = training_bit_ops(&*build(&ladder)?, contestant.steps);
    let of = RegimeOfBank { bank: &bank, regime: &|_, ladder| build(ladder) };
    let training = Training { config: &config, ..training };
    let (model, outcome) = train_bank_with(bench.model.clone(), bench.data.train, &of, training)?;
    let tail = &outcome.losses[outcome.losses.len() - outcome.losses.len().div_ceil(10)..];
    let final_loss = mean(tail);

    let plain = model.valid();
    let evaluator = Evaluator::new(&plain, bench.data.report, bench.run.evaluate.clone(), &bench.device())?;
    let mut widths = Vec::new();
    for rung in ladder.rungs() {
        let accuracy = evaluator.evaluate(&rung.plan)?;
        let exact = accuracy.scores.iter().map(|score| if score.exact > 0.5 { '1' } else { '0' }).collect();
        widths.push(WidthAccuracy { bits: rung.bits, accuracy, exact });
    }
    Ok((RegimeRun { contestant: contestant.clone(), seed, bit_ops, final_loss, widths }, model))
}

/// BitOps of the sites per token of a plan.
fn plan_bit_ops(plan: &SitePlan) -> f64 {
    let site = |(site, precision): (Site, SitePrecision)| {
        let bits = f64::from(precision.weights.bits()) * f64::from(precision.activations.bits());
        plan.sites().parameters(site) as f64 * bits
    };
    plan.iter().map(site).sum()
}

/// BitOps of the sites per token of the passes of one step.
fn step_bit_ops(regime: &dyn Regime, step: usize) -> f64 {
    regime.branches(step).iter().map(|branch| plan_bit_ops(&branch.plan)).sum()
}

/// BitOps of the sites per token over a run of so many steps, forward passes only.
pub fn training_bit_ops(regime: &dyn Regime, steps: usize) -> f64 {
    (0..steps).map(|step| step_bit_ops(regime, step)).sum()
}

/// The most steps of a regime that cost no more BitOps than a budget.
///
/// A longer run can cost less than a shorter one: the cycles of a cyclic regime get longer with its run,
/// and the widths nearest to a longer ramp can be lower ones. So every length is looked at, down from the
/// one that fits if every step costs what the cheapest of the first ones does.
///
/// # Errors
///
/// When not even the fewest steps fit, or the regime refuses its ladder.
pub fn steps_within(regimes: &Regimes, regime: &RegimeConfig, ladder: &Ladder, budget: f64) -> Result<usize> {
    const PROBE: usize = 64;
    let least = regimes.least_steps(regime)?;
    let build = |steps: usize| regimes.build(regime, ladder, steps);

    let probe = least.max(PROBE);
    let probed = build(probe)?;
    let cheapest = (0..probe).map(|step| step_bit_ops(&*probed, step)).fold(f64::INFINITY, f64::min);
    let mut longest = ((budget / cheapest) as usize).max(least);
    while longest >= least {
        // Runs of other lengths that have the same steps are looked at together.
        let run = build(longest)?;
        let parameters = run.parameters();
        let mut shortest = longest;
        while shortest > least && build(shortest - 1)?.parameters() == parameters {
            shortest -= 1;
        }
        let (mut fitting, mut spent) = (None, training_bit_ops(&*run, shortest));
        for steps in shortest..=longest {
            if spent > budget {
                break;
            }
            fitting = Some(steps);
            spent += step_bit_ops(&*run, steps);
        }
        if let Some(steps) = fitting {
            return Ok(steps);
        }
        longest = shortest - 1;
    }
    let got = format!("{budget:.3e} BitOps per token");
    let first = training_bit_ops(&*build(least)?, least);
    Err(Error::option("budget", got, format!("at least {first:.3e}, that of {least} steps")))
}

/// Mean over seeds and questions, percent, with its interval over both.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SeededMean {
    /// The mean.
    pub mean: f64,
    /// 95 % interval; `None` with one seed, which does not say how seeds differ.
    pub interval: Option<Interval>,
    /// Number of seeds.
    pub seeds: usize,
    /// Number of questions.
    pub n: usize,
}

impl SeededMean {
    /// Whether the interval holds zero, or there is none: for a difference, that nothing tells it from noise.
    pub fn is_noise(&self) -> bool {
        self.interval.is_none_or(|interval| interval.contains(0.0))
    }
}

/// Exact match of one contestant at one width over its seeds.
///
/// # Errors
///
/// When there is no run of that label, or one lacks the width.
pub fn mean_exact_match(runs: &[RegimeRun], label: &str, bits: BitWidth) -> Result<SeededMean> {
    let flags = exact_by_seed(runs, label, bits)?;
    Ok(over_seeds(&flags.into_iter().map(|(_, flags)| flags).collect::<Vec<_>>(), Values::Scores))
}

/// Exact match of `second` minus that of `first` at one width, pairs of the same seed and question,
/// percent points.
///
/// # Errors
///
/// When a contestant has no run, they have no seed in common, or one lacks the width.
pub fn exact_match_difference(
    runs: &[RegimeRun],
    [first, second]: [&str; 2],
    bits: BitWidth,
    seed: u64,
) -> Result<SeededMean> {
    let (first, second) = (exact_by_seed(runs, first, bits)?, exact_by_seed(runs, second, bits)?);
    let pairs: Vec<Vec<f64>> = first
        .iter()
        .filter_map(|(seed, a)| {
            let (_, b) = second.iter().find(|(other, _)| other == seed)?;
            Some(a.iter().zip(b).map(|(a, b)| b - a).collect())
        })
        .collect();
    if pairs.is_empty() {
        return Err(Error::option("seeds", "none in common", "at least one seed that both regimes ran with"));
    }
    Ok(over_seeds(&pairs, Values::Differences(seed)))
}

/// Seed and exact-match flags of every run of a label.
fn exact_by_seed(runs: &[RegimeRun], label: &str, bits: BitWidth) -> Result<Vec<(u64, Vec<f64>)>> {
    let mut found = Vec::new();
    for run in runs.iter().filter(|run| run.contestant.label == label) {
        let width = run.widths.iter().find(|width| width.bits == bits);
        let width = width.ok_or_else(|| Error::option("bits", bits, format!("a width of the run `{label}`")))?;
        found.push((run.seed, width.exact.bytes().map(|flag| f64::from(flag == b'1')).collect()));
    }
    if found.is_empty() {
        return Err(Error::option("regime", label, "one that was run"));
    }
    Ok(found)
}

/// What the values are that a mean is of.
#[derive(Clone, Copy)]
enum Values {
    /// Scores, in [0, 1].
    Scores,
    /// Differences of scores, with the seed of their bootstrap.
    Differences(u64),
}

/// Mean of seeds × questions and its interval, times 100.
fn over_seeds(values: &[Vec<f64>], kind: Values) -> SeededMean {
    let n = values[0].len();
    let of_seeds: Vec<f64> = values.iter().map(|of_seed| mean(of_seed)).collect();
    let of_question = |question| values.iter().map(|of_seed: &Vec<f64>| of_seed[question]).sum::<f64>();
    let of_questions: Vec<f64> = (0..n).map(|question| of_question(question) / values.len() as f64).collect();
    let (over_questions, least) = match kind {
        Values::Scores => (Interval::of_mean(&of_questions), 0.0),
        Values::Differences(seed) => (Interval::of_difference(&of_questions, seed), -1.0),
    };
    let within = |Interval { low, high }: Interval| Interval { low: low.max(least), high: high.min(1.0) };
    let interval = Interval::over_seeds(&of_seeds, over_questions).map(|interval| within(interval).scaled(100.0));
    SeededMean { mean: 100.0 * mean(&of_seeds), interval, seeds: values.len(), n }
}

#[cfg(test)]
mod tests {
    use gpt2_model::Gpt2Config;
    use switchable_lora::site_precision::SitePrecision;
    use switchable_model::config::ModelConfig as _;

    use super::*;
    use crate::train::regimes::config::RegimeKind;

    fn ladder(config: &Gpt2Config) -> Ladder {
        ladder_of(config, &[4, 8, 16, 32])
    }

    fn ladder_of(config: &Gpt2Config, widths: &[u8]) -> Ladder {
        let rungs = widths.iter().map(|&bits| {
            let bits = BitWidth::new(bits).unwrap();
            (bits, SitePlan::uniform(&config.sites(), SitePrecision::uniform(bits)))
        });
        Ladder::new(rungs).unwrap()
    }

    fn run(label: &str, seed: u64, exact: &str) -> RegimeRun {
        let accuracy = Accuracy::new(0.0, 0.0, Vec::new(), None);
        RegimeRun {
            contestant: Contestant {
                label: label.into(),
                regime: RegimeConfig::default(),
                bank: BankOverrides::default(),
                steps: 1,
            },
            seed,
            bit_ops: 0.0,
            final_loss: 0.0,
            widths: vec![WidthAccuracy { bits: BitWidth::B4, accuracy, exact: exact.into() }],
        }
    }

    #[test]
    fn a_contestant_is_read_as_it_was_written_and_unknown_fields_are_refused() {
        let bank = BankOverrides { learned_steps: Some(true), ..BankOverrides::default() };
        let contestant = Contestant { label: "a".into(), regime: RegimeConfig::default(), bank, steps: 3 };
        let json = serde_json::to_value(&contestant).unwrap();
        assert_eq!(serde_json::from_value::<Contestant>(json.clone()).unwrap(), contestant);
        for place in ["", "bank"] {
            let mut wrong = json.clone();
            let regime = &mut wrong["regime"];
            let options = if place.is_empty() { regime } else { &mut regime[place] };
            options["betta"] = serde_json::json!(1);
            let message = serde_json::from_value::<Contestant>(wrong).unwrap_err().to_string();
            assert!(message.contains("betta"), "{message}");
        }
    }

    #[test]
    fn bit_ops_are_those_of_the_plans_that_are_run() {
        let config = Gpt2Config::new(97, 64, 32, 3, 4);
        let parameters = config.site_parameters() as f64;
        let of = |kind, steps| {
            let regime = RegimeConfig::of(kind).build(&ladder(&config), steps).unwrap();
            training_bit_ops(&*regime, steps) / (parameters * 32.0)
        };
        // Widths of static: 4 + 8 + 16 + 32; of joint the same in every step; triangular 4, 8, 16, 32, 16, 8.
        assert!((of(RegimeKind::Static, 8) - 120.0).abs() < 1e-9);
        assert!((of(RegimeKind::Joint, 3) - 180.0).abs() < 1e-9);
        assert!((of(RegimeKind::Triangular, 12) - 168.0).abs() < 1e-9);
    }

    /// Every length up to `most` that fits a budget, each run built and summed for itself.
    fn most_by_trying_all(regime: &RegimeConfig, ladder: &Ladder, budget: f64, most: usize) -> Option<usize> {
        let fits = |&steps: &usize| training_bit_ops(&*regime.build(ladder, steps).unwrap(), steps) <= budget;
        (regime.least_steps()..=most).rev().find(fits)
    }

    #[test]
    fn steps_within_a_budget_are_the_most_that_fit() {
        let config = Gpt2Config::new(97, 64, 32, 3, 4);
        let regimes = Regimes::default();
        for widths in [vec![4, 8, 16, 32], vec![2, 3, 4, 32], vec![2, 32]] {
            let ladder = ladder_of(&config, &widths);
            for static_steps in [1, 17, 40] {
                let paid = RegimeConfig::default().build(&ladder, static_steps).unwrap();
                let budget = training_bit_ops(&*paid, static_steps);
                for kind in RegimeKind::ALL {
                    let regime = RegimeConfig { layer_dropout: static_steps % 2, ..RegimeConfig::of(kind.clone()) };
                    let steps = steps_within(&regimes, &regime, &ladder, budget);
                    let expected = most_by_trying_all(&regime, &ladder, budget, 20 * static_steps);
                    assert_eq!(steps.ok(), expected, "{kind}, {widths:?}, {static_steps} static steps");
                }
            }
        }
        assert!(steps_within(&regimes, &RegimeConfig::default(), &ladder(&config), 1.0).is_err());
    }

    #[test]
    fn a_longer_cyclic_run_can_fit_where_a_shorter_one_does_not() {
        let config = Gpt2Config::new(97, 64, 32, 3, 4);
        let ladder = ladder_of(&config, &[2, 3, 4, 32]);
        let budget = training_bit_ops(&*RegimeConfig::default().build(&ladder, 64).unwrap(), 64);
        let cyclic = RegimeConfig::of(RegimeKind::Cyclic);
        assert_eq!(steps_within(&Regimes::default(), &cyclic, &ladder, budget).unwrap(), 52);
    }

    #[test]
    fn differences_are_paired_by_seed_and_question() {
        let runs = [
            run("a", 1, "110100"),
            run("a", 2, "110000"),
            run("b", 2, "111111"),
            run("b", 1, "110111"),
            run("c", 9, "0"),
        ];
        let a = mean_exact_match(&runs, "a", BitWidth::B4).unwrap();
        assert!((a.mean - 100.0 * 5.0 / 12.0).abs() < 1e-9 && (a.seeds, a.n) == (2, 6));
        let difference = exact_match_difference(&runs, ["a", "b"], BitWidth::B4, 0).unwrap();
        assert!((difference.mean - 100.0 * 6.0 / 12.0).abs() < 1e-9);
        let interval = difference.interval.unwrap();
        assert!(interval.low < difference.mean && difference.mean < interval.high);
        let same = exact_match_difference(&runs, ["a", "a"], BitWidth::B4, 0).unwrap();
        assert!(same.is_noise());
        assert!(exact_match_difference(&runs, ["a", "c"], BitWidth::B4, 0).is_err(), "no seed in common");
        let interval = same.interval.unwrap();
        assert!(interval.low < 0.0 && interval.high > 0.0, "six questions do not make two regimes equal");
        let one_seed = mean_exact_match(&runs, "c", BitWidth::B4).unwrap();
        assert!(one_seed.interval.is_none() && one_seed.is_noise());
        assert!(mean_exact_match(&runs, "d", BitWidth::B4).is_err());
        assert!(mean_exact_match(&runs, "a", BitWidth::B8).unwrap_err().to_string().contains('8'));
    }
}
