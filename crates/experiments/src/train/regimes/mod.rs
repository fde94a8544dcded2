//! Regimes: what each training step runs.
//!
//! | file | regime | a step runs |
//! |---|---|---|
//! | `single` | [`Single`](single::Single) | one plan |
//! | `in_turn` | [`Static`](in_turn::Static) | one width: 4, 8, 16, 32, 4, 8, … |
//! | `random` | [`Random`](random::Random) | one width, drawn anew |
//! | `cyclic` | [`Cyclic`](cyclic::Cyclic) | one width, which ramps up and resets (CPT) or goes up and down |
//! | `shuffled` | [`Shuffled`](shuffled::Shuffled) | one width, those of a cyclic run in random order |
//! | `joint` | [`Joint`](joint::Joint) | every width, mean of the losses |
//! | `cascade` | [`Cascade`](cascade::Cascade) | every width, each taught by all higher ones |
//! | `specialised` | [`Specialised`](specialised::Specialised) | another regime; in a share of the steps only chosen sites are low |
//! | `layer_dropout` | [`LayerDropout`](layer_dropout::LayerDropout) | another regime, a random few sites left at the highest width |
//!
//! [`RegimeConfig`](config::RegimeConfig) is any of them as plain data, [`Regimes`](table::Regimes)
//! holds them and those of other crates by name. The last two wrap any other, so they combine: layer dropout
//! inside a cascade is `LayerDropout { inner: cascade, .. }`.

pub mod cascade;
pub mod config;
pub mod cyclic;
pub mod in_turn;
pub mod joint;
pub mod layer_dropout;
pub mod random;
pub mod shuffled;
pub mod single;
pub mod specialised;
pub mod table;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::train::branch::Branch;

/// Decides, step by step, which plans are run and how their losses combine.
pub trait Regime: Sync {
    /// Name in artefacts.
    fn name(&self) -> &'static str;

    /// What else must be the same for a saved run to go on: the parameters of the regime.
    fn parameters(&self) -> Value;

    /// The passes of a step, counted from 0, teachers before their pupils.
    fn branches(&self, step: usize) -> Vec<Branch>;
}

impl Regime for Box<dyn Regime> {
    fn name(&self) -> &'static str {
        self.as_ref().name()
    }

    fn parameters(&self) -> Value {
        self.as_ref().parameters()
    }

    fn branches(&self, step: usize) -> Vec<Branch> {
        self.as_ref().branches(step)
    }
}

/// # Errors
///
/// When a share is outside [0, 1].
fn check_share(field: &'static str, share: f64) -> Result<f64> {
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(Error::option(field, share, "a share from 0 to 1")) }
}

#[cfg(test)]
mod tests;
