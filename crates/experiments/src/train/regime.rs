//! Regimes: which plans a training step runs.

use gpt2_model::SitePlan;

use crate::{Error, Result};

/// Decides the plans of each step; the step's loss is the mean over them.
pub trait Regime: Sync {
    /// Name in artefacts.
    fn name(&self) -> &'static str;

    /// The plans of a step, counted from 0.
    fn plans(&self, step: usize) -> Vec<&SitePlan>;
}

/// One plan in every step.
#[derive(Debug, Clone)]
pub struct Single(pub SitePlan);

impl Regime for Single {
    fn name(&self) -> &'static str {
        "single"
    }

    fn plans(&self, _step: usize) -> Vec<&SitePlan> {
        vec![&self.0]
    }
}

/// Plans in turn, one per step: with uniform plans the widths 4, 8, 16, 32, 4, 8, …
#[derive(Debug, Clone)]
pub struct Static(Vec<SitePlan>);

impl Static {
    /// # Errors
    ///
    /// When there is no plan.
    pub fn new(plans: Vec<SitePlan>) -> Result<Self> {
        if plans.is_empty() {
            return Err(Error::option("bits", "empty", "at least one width"));
        }
        Ok(Self(plans))
    }
}

impl Regime for Static {
    fn name(&self) -> &'static str {
        "static"
    }

    fn plans(&self, step: usize) -> Vec<&SitePlan> {
        vec![&self.0[step % self.0.len()]]
    }
}
