//! Regimes against one another: the same base, data and seeds, equal steps or equal BitOps.
//!
//! ```text
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
use switchable_lora::linear_settings::LinearSettings;
use switchable_model::model::TrainableModel;
use switchable_model::span_head::ForQuestionAnswering;

use crate::banks::bank::{BankConfig, BankOverrides, RegimeOfBank, train_bank_with};
use crate::banks::training_cost::PassCost;
use crate::error::{Error, Result};
use crate::train::config::TrainConfig;
use crate::train::ladder::Ladder;
use crate::train::regimes::config::RegimeConfig;
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
    /// BitOps per token over the run, forward passes only: of the sites, and of the adapters that they use.
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
    let regime_of = |_: &_, ladder: &Ladder| build(ladder);
    let of = RegimeOfBank::new(&bank, &regime_of);
    let training = Training { config: &config, ..training };
    let (model, outcome) = train_bank_with(model_of(bench, contestant), bench.data.train, &of, training)?;
    let bit_ops = PassCost::of(&model.transformer).training(&*build(&ladder)?, contestant.steps);
    // Also those of before an interruption, as if there had been none.
    let losses = [outcome.earlier_losses, outcome.losses].concat();
    let tail = &losses[losses.len() - losses.len().div_ceil(10)..];
    let final_loss = span_reader::statistics::mean(tail);

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

/// The model of a study as a contestant rounds its weights.
fn model_of<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    bench: &Workbench<'_, B, M>,
    contestant: &Contestant,
) -> ForQuestionAnswering<B, M> {
    let model = bench.model.clone();
    let settings = model.transformer.settings();
    match contestant.bank.rounding {
        Some(rounding) => model.with_linear_settings(LinearSettings { rounding, ..settings }),
        None => model,
    }
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
    use super::*;

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
