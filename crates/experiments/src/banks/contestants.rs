//! The contestants of a regime comparison, as data.
//!
//! Those of this crate stand in `contestants.json`; [`Contestants::with`] adds others, which need no code
//! where their regime is known by name.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use quant_kernels::spec::rounding_method::RoundingMethod;
use switchable_model::sites::Site;

use crate::banks::bank::{BankConfig, BankOverrides, Trains};
use crate::banks::regime_comparison::Contestant;
use crate::banks::training_cost::PassCost;
use crate::error::{Error, Result};
use crate::train::ladder::Ladder;
use crate::train::regimes::config::{RegimeConfig, Specialisation};
use crate::train::regimes::table::Regimes;

/// The rows of this crate.
static BUILT_IN: LazyLock<Vec<ContestantRow>> =
    LazyLock::new(|| serde_json::from_str(include_str!("contestants.json")).expect("the table is valid"));

/// How many steps a contestant gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepBudget {
    /// As many as the baseline.
    EqualSteps,
    /// As many as cost no more BitOps than the baseline.
    EqualBitOps,
}

/// A share of the sites, those that harm most first; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecialisedSites {
    /// One site in so many.
    pub one_site_in: usize,
    /// Share of the steps that are extra ones, in [0, 1].
    pub share: f64,
}

/// A number of sites that are left at the highest width in each step; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DroppedSites {
    /// One site in so many.
    pub one_site_in: usize,
}

/// A contestant before it is fitted to a model and a number of steps.
///
/// ```
/// use experiments::banks::contestants::ContestantRow;
///
/// let row = r#"{ "label": "joint, base", "regime": { "kind": "joint" }, "bank": { "trains": "base" },
///     "steps": "equal-bit-ops" }"#;
/// let row: ContestantRow = serde_json::from_str(row)?;
/// assert_eq!(row.name(), "joint-base");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContestantRow {
    /// Its name in tables.
    pub label: String,
    /// The regime; its cycles are at most as many as have four steps each.
    pub regime: RegimeConfig,
    /// What it changes of the study's bank.
    #[serde(default)]
    pub bank: BankOverrides,
    /// How many steps it gets.
    pub steps: StepBudget,
    /// Extra steps for the sites that harm most, at the lowest width.
    #[serde(default)]
    pub specialised: Option<SpecialisedSites>,
    /// Sites left at the highest width.
    #[serde(default)]
    pub dropout: Option<DroppedSites>,
    /// Whether the others are compared with it; of the rows one is.
    #[serde(default)]
    pub baseline: bool,
    /// Whether the sites of its bank are measured one by one.
    #[serde(default)]
    pub heat_map: bool,
    /// Label of the row that this one is the control of; the two are compared where both take part.
    #[serde(default)]
    pub control_of: Option<String>,
}

/// Labels of a contestant and of its control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controlled {
    /// The contestant.
    pub contestant: String,
    /// What is like it but for one thing.
    pub control: String,
}

impl ContestantRow {
    /// The label as part of a file name or a flag: `cyclic, equal steps` is `cyclic-equal-steps`.
    pub fn name(&self) -> String {
        contestant_name(&self.label)
    }

    /// Whether the bank has learned steps or nested codes, which an asymmetric quantiser cannot have.
    pub fn needs_symmetric(&self) -> bool {
        self.bank.learned_steps == Some(true) || self.bank.rounding == Some(RoundingMethod::Nested)
    }
}

/// A label as part of a file name or a flag: `cyclic, equal steps` is `cyclic-equal-steps`.
pub fn contestant_name(label: &str) -> String {
    label.replace(", ", "-").replace(' ', "-")
}

/// The rows of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contestants(Vec<ContestantRow>);

impl Default for Contestants {
    /// Those of this crate.
    fn default() -> Self {
        Self(BUILT_IN.clone())
    }
}

impl FromIterator<ContestantRow> for Contestants {
    fn from_iter<I: IntoIterator<Item = ContestantRow>>(rows: I) -> Self {
        Self(rows.into_iter().collect())
    }
}

/// What contestants are fitted to.
#[derive(Clone, Copy)]
pub struct Fit<'a> {
    /// Regimes by name.
    pub regimes: &'a Regimes,
    /// The bank of the comparison.
    pub bank: &'a BankConfig,
    /// Its plans.
    pub ladder: &'a Ladder,
    /// What the passes of a bank cost, see [`PassCost::of_bank`].
    pub cost: &'a dyn Fn(&BankConfig) -> Result<PassCost<'a>>,
    /// Steps of the baseline.
    pub steps: usize,
    /// The sites, those that harm most first.
    pub most_harmful: &'a [Site],
}

impl fmt::Debug for Fit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fit").field("bank", self.bank).field("steps", &self.steps).finish_non_exhaustive()
    }
}

impl Contestants {
    /// These and another; one of the same label is replaced.
    #[must_use]
    pub fn with(mut self, row: ContestantRow) -> Self {
        self.0.retain(|known| known.label != row.label);
        self.0.push(row);
        self
    }

    /// The rows, in the order in which they are trained.
    pub fn rows(&self) -> &[ContestantRow] {
        &self.0
    }

    /// Every row here that is the control of another one here.
    pub fn controls(&self) -> Vec<Controlled> {
        let pair = |row: &ContestantRow| {
            let of = self.0.iter().find(|other| Some(&other.label) == row.control_of.as_ref())?;
            Some(Controlled { contestant: of.label.clone(), control: row.label.clone() })
        };
        self.0.iter().filter_map(pair).collect()
    }

    /// The row that the others are compared with.
    ///
    /// # Errors
    ///
    /// When no row is, or several are.
    pub fn baseline(&self) -> Result<&ContestantRow> {
        let mut rows = self.0.iter().filter(|row| row.baseline);
        match (rows.next(), rows.next()) {
            (Some(row), None) => Ok(row),
            (first, _) => {
                let got = if first.is_some() { "several" } else { "none" };
                Err(Error::option("baseline", got, "one contestant that the others are compared with"))
            }
        }
    }

    /// Contestants that fit a ladder and the baseline's number of steps.
    ///
    /// # Errors
    ///
    /// When there is no baseline, a regime refuses its options, or not one step fits its budget.
    pub fn fitted(&self, fit: Fit<'_>) -> Result<Vec<Contestant>> {
        let Fit { regimes, cost, steps, .. } = fit;
        let baseline = self.baseline()?;
        let cost_of = |row: &ContestantRow| cost(&fit.bank.overridden(&row.bank));
        let of_baseline = regimes.build(&regime_of(baseline, &fit), &ladder_of(baseline, &fit), steps)?;
        let budget = cost_of(baseline)?.training(&*of_baseline, steps);
        let fitted = |row: &ContestantRow| {
            let regime = regime_of(row, &fit);
            let steps = match row.steps {
                StepBudget::EqualSteps => steps,
                StepBudget::EqualBitOps => {
                    let within = cost_of(row)?.steps_within(regimes, &regime, &ladder_of(row, &fit), budget);
                    within.map_err(|error| Error::option("steps", steps, format!("more: `{}` {error}", row.name())))?
                }
            };
            Ok(Contestant { label: row.label.clone(), regime, bank: row.bank, steps })
        };
        self.0.iter().map(fitted).collect()
    }
}

/// The plans of a row's bank: without adapters where it has none, with others where it shares them.
fn ladder_of<'a>(row: &ContestantRow, fit: &Fit<'a>) -> Cow<'a, Ladder> {
    let bank = fit.bank.overridden(&row.bank);
    match (bank.trains, bank.sharing == fit.bank.sharing) {
        (Trains::Base, _) => Cow::Owned(fit.ladder.without_adapters()),
        (Trains::Bank | Trains::Both, true) => Cow::Borrowed(fit.ladder),
        (Trains::Bank | Trains::Both, false) => Cow::Owned(fit.ladder.with_adapters_of(|bits| bank.precision(bits))),
    }
}

/// The regime of a row for the sites of a model.
fn regime_of(row: &ContestantRow, fit: &Fit<'_>) -> RegimeConfig {
    let most = (fit.steps / 4).clamp(1, row.regime.cycles.max(1));
    let share = |one_site_in: usize| (fit.most_harmful.len() / one_site_in.max(1)).max(1);
    let mut regime = RegimeConfig { cycles: most, ..row.regime.clone() };
    if let Some(SpecialisedSites { one_site_in, share: of_steps }) = row.specialised {
        let sites = fit.most_harmful.iter().take(share(one_site_in)).copied().collect();
        let low = fit.bank.overridden(&row.bank).precision(fit.ladder.rungs()[0].bits);
        regime.specialisation = Some(Specialisation { sites, low, share: of_steps });
    }
    if let Some(DroppedSites { one_site_in }) = row.dropout {
        regime.layer_dropout = share(one_site_in);
    }
    regime
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::backend::flex::FlexDevice;
    use gpt2_model::{Gpt2, Gpt2Config};
    use quant_kernels::spec::bit_width::BitWidth;
    use switchable_lora::{lora_config::LoraConfig, site_precision::SitePrecision};
    use switchable_model::config::ModelConfig as _;
    use switchable_model::model_weights::ModelWeights as _;
    use switchable_model::options::ModelOptions;
    use switchable_model::site_plan::SitePlan;

    use super::*;

    #[test]
    fn equal_bit_ops_hold_the_adapters_of_those_that_have_some() {
        let config = Gpt2Config::new(97, 64, 32, 3, 4);
        let model = Gpt2::<Flex>::random(&config, &ModelOptions::default(), 1, &FlexDevice).unwrap();
        let widths = [BitWidth::FULL, BitWidth::B2];
        let bank = BankConfig::new(&widths, LoraConfig::new(8, 16.0).unwrap(), 1);
        let plan = |bits| (bits, SitePlan::uniform(&config.sites(), SitePrecision::uniform(bits)));
        let row = |json: &str| serde_json::from_str::<ContestantRow>(json).unwrap();
        let rows: Contestants = [
            row(r#"{ "label": "static", "regime": { "kind": "static" }, "steps": "equal-steps", "baseline": true }"#),
            row(r#"{ "label": "joint", "regime": { "kind": "joint" }, "steps": "equal-bit-ops" }"#),
            row(r#"{ "label": "joint, base", "regime": { "kind": "joint" }, "bank": { "trains": "base" },
                "steps": "equal-bit-ops" }"#),
        ]
        .into_iter()
        .collect();
        let fit = Fit {
            regimes: &Regimes::default(),
            bank: &bank,
            ladder: &Ladder::new(widths.map(plan)).unwrap(),
            cost: &|bank| PassCost::of_bank(bank, &model),
            steps: 40,
            most_harmful: &[],
        };
        // 36,864 weights and adapters of 8 · 1,536 numbers. A step of static: 17 · 32 · 36,864 + 1024 · 12,288, which
        // is 32,636,928; one of joint twice that; one of joint without adapters 34 · 32 · 36,864 = 40,108,032.
        let steps: Vec<usize> = rows.fitted(fit).unwrap().iter().map(|contestant| contestant.steps).collect();
        assert_eq!(steps, [40, 20, 32]);
    }

    #[test]
    fn the_table_has_one_baseline_and_each_label_once() {
        let table = Contestants::default();
        assert_eq!(table.baseline().unwrap().label, "static");
        let mut names: Vec<String> = table.rows().iter().map(ContestantRow::name).collect();
        assert_eq!(names.len(), 24);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 24);
    }

    #[test]
    fn each_control_is_one_of_a_row_of_the_table() {
        let table = Contestants::default();
        let controls = table.controls();
        assert_eq!(controls.len(), table.rows().iter().filter(|row| row.control_of.is_some()).count());
        assert!(controls.iter().any(|pair| pair.contestant == "cyclic, equal BitOps"), "{controls:?}");
        // Without the other there is nothing to compare.
        let alone = table.rows().iter().filter(|row| !row.label.starts_with("cyclic")).cloned();
        assert_eq!(alone.collect::<Contestants>().controls(), []);
    }

    #[test]
    fn a_row_replaces_one_of_its_label_and_a_second_baseline_is_refused() {
        let table = Contestants::default();
        let joint = table.rows().iter().find(|row| row.label == "joint").unwrap().clone();
        let same = table.clone().with(ContestantRow { steps: StepBudget::EqualSteps, ..joint.clone() });
        assert_eq!(same.rows().len(), table.rows().len());
        let message = table.with(ContestantRow { baseline: true, ..joint }).baseline().unwrap_err().to_string();
        assert!(message.contains("baseline") && message.contains("several"), "{message}");
    }
}
