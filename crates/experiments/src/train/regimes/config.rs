//! A regime as plain data, built for a ladder.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use switchable_lora::site_precision::SitePrecision;
use switchable_model::sites::Site;

use crate::error::{Error, Result};
use crate::train::branch::{Distance, Protection};
use crate::train::ladder::Ladder;
use crate::train::regimes::Regime;
use crate::train::regimes::cascade::Cascade;
use crate::train::regimes::cyclic::{Cycle, Cyclic};
use crate::train::regimes::in_turn::Static;
use crate::train::regimes::joint::Joint;
use crate::train::regimes::layer_dropout::LayerDropout;
use crate::train::regimes::random::Random;
use crate::train::regimes::shuffled::Shuffled;
use crate::train::regimes::specialised::Specialised;

/// Which widths a step runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegimeKind {
    /// One width per step, in turn ([`Static`]).
    #[default]
    Static,
    /// One width per step, a cosine ramp and reset ([`Cyclic`]).
    Cyclic,
    /// One width per step, up and down ([`Cyclic`]).
    Triangular,
    /// One width per step, as often as `cyclic` runs it, in random order ([`Shuffled`]).
    Shuffled,
    /// One random width per step ([`Random`]).
    Random,
    /// Every width in every step ([`Joint`]).
    Joint,
    /// Every width in every step, taught by all higher ones ([`Cascade`]).
    Cascade,
    /// A regime of another crate, by the name that [`Regimes`](super::table::Regimes) knows it by.
    #[serde(untagged)]
    Other(String),
}

impl RegimeKind {
    /// All kinds of this crate.
    pub const ALL: [Self; 7] =
        [Self::Static, Self::Cyclic, Self::Triangular, Self::Shuffled, Self::Random, Self::Joint, Self::Cascade];

    /// Name on command lines and in artefacts.
    pub fn name(&self) -> &str {
        match self {
            Self::Static => "static",
            Self::Cyclic => "cyclic",
            Self::Triangular => "triangular",
            Self::Shuffled => "shuffled",
            Self::Random => "random",
            Self::Joint => "joint",
            Self::Cascade => "cascade",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for RegimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for RegimeKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let expected = || Self::ALL.each_ref().map(Self::name).join(", ");
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| Error::option("regime", text, expected()))
    }
}

/// Extra steps in which only chosen sites are low ([`Specialised`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Specialisation {
    /// The sites.
    pub sites: Vec<Site>,
    /// Their precision in those steps.
    pub low: SitePrecision,
    /// Share of the steps that are extra ones, in [0, 1].
    pub share: f64,
}

/// A regime and what may be wrapped around it.
///
/// | field | meaning | default |
/// |---|---|---|
/// | `kind` | which widths a step runs | static |
/// | `cycles` | cycles of `cyclic` in a run, and of the one that `shuffled` shuffles | 8 |
/// | `beta` | weight of a teacher in `cascade` | 1 |
/// | `distance` | how scores are compared in `cascade` | KL |
/// | `protection` | of the highest width in `joint` and `cascade` | none |
/// | `layer_dropout` | random sites left at the highest width | 0: off |
/// | `specialisation` | extra steps for chosen sites | off |
/// | `seed` | of what is random | 0 |
/// | `options` | of a regime of another crate | null |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegimeConfig {
    /// Which widths a step runs.
    pub kind: RegimeKind,
    /// Cycles of `cyclic` in a run, and of the one that `shuffled` shuffles.
    pub cycles: usize,
    /// Weight of a teacher in `cascade`.
    pub beta: f64,
    /// How scores are compared in `cascade`.
    pub distance: Distance,
    /// Protection of the highest width in `joint` and `cascade`.
    pub protection: Protection,
    /// Random sites left at the highest width; 0 turns it off.
    pub layer_dropout: usize,
    /// Extra steps for chosen sites.
    pub specialisation: Option<Specialisation>,
    /// Seed of what is random.
    pub seed: u64,
    /// Options of a regime of another crate.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub options: Value,
}

impl Default for RegimeConfig {
    fn default() -> Self {
        Self {
            kind: RegimeKind::default(),
            cycles: 8,
            beta: 1.0,
            distance: Distance::default(),
            protection: Protection::default(),
            layer_dropout: 0,
            specialisation: None,
            seed: 0,
            options: Value::Null,
        }
    }
}

impl RegimeConfig {
    /// A kind with every option at its default.
    pub fn of(kind: RegimeKind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// The regime of a run of so many steps. Regimes of other crates are built by
    /// [`Regimes`](super::table::Regimes).
    ///
    /// # Errors
    ///
    /// When an option does not fit the ladder or the number of steps, or the kind is of another crate.
    pub fn build(&self, ladder: &Ladder, steps: usize) -> Result<Box<dyn Regime>> {
        let regime: Box<dyn Regime> = match &self.kind {
            RegimeKind::Static => Box::new(Static::new(ladder.rungs().iter().map(|rung| rung.plan.clone()).collect())?),
            RegimeKind::Cyclic => {
                Box::new(Cyclic::new(ladder.clone(), Cycle::Cosine, Cyclic::steps_of(steps, self.cycles)?)?)
            }
            RegimeKind::Triangular => {
                let period = 2 * (ladder.len() - 1);
                Box::new(Cyclic::new(ladder.clone(), Cycle::Triangular, period.max(2))?)
            }
            RegimeKind::Shuffled => Box::new(Shuffled::new(ladder.clone(), steps, self.cycles, self.seed)?),
            RegimeKind::Random => Box::new(Random::new(ladder.clone(), self.seed)),
            RegimeKind::Joint => Box::new(Joint::new(ladder.clone(), self.protection)),
            RegimeKind::Cascade => Box::new(Cascade::new(ladder.clone(), self.beta, self.distance, self.protection)?),
            RegimeKind::Other(name) => {
                let known = RegimeKind::ALL.each_ref().map(RegimeKind::name).join(", ");
                return Err(Error::option("regime", name, known));
            }
        };
        self.wrapped(regime, ladder)
    }

    /// A regime with what is wrapped around it: extra steps for chosen sites, then layer dropout.
    ///
    /// # Errors
    ///
    /// When an option does not fit the ladder.
    pub fn wrapped(&self, regime: Box<dyn Regime>, ladder: &Ladder) -> Result<Box<dyn Regime>> {
        let (mut regime, high) = (regime, ladder.highest().plan.clone());
        if let Some(Specialisation { sites, low, share }) = &self.specialisation {
            regime = Box::new(Specialised::new(regime, &high, sites, *low, *share)?);
        }
        if self.layer_dropout > 0 {
            regime = Box::new(LayerDropout::new(regime, high, self.layer_dropout, self.seed)?);
        }
        Ok(regime)
    }

    /// The fewest steps of a run.
    pub fn least_steps(&self) -> usize {
        match self.kind {
            RegimeKind::Cyclic | RegimeKind::Shuffled => 2 * self.cycles.max(1),
            _ => 1,
        }
    }

    /// A regime whose runs cost the same, length by length, and whose lengths are compared faster.
    pub(crate) fn of_equal_cost(&self) -> Self {
        // What is wrapped around a step depends on when it comes.
        let plain = self.specialisation.is_none() && self.layer_dropout == 0;
        let kind = if plain && self.kind == RegimeKind::Shuffled { RegimeKind::Cyclic } else { self.kind.clone() };
        Self { kind, ..self.clone() }
    }

    /// Short name: the kind and what is wrapped around it.
    pub fn label(&self) -> String {
        let mut label = self.kind.name().to_string();
        if self.specialisation.is_some() {
            label.push_str("+specialised");
        }
        if self.layer_dropout > 0 {
            label.push_str("+layer-dropout");
        }
        label
    }
}
