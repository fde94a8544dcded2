//! One width per step, in turn.

use serde_json::{Value, json};

use switchable_model::site_plan::SitePlan;

use crate::error::{Error, Result};
use crate::train::regimes::{Branch, Regime};

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

    fn parameters(&self) -> Value {
        json!({ "plans": self.0.iter().map(SitePlan::to_precision_plan).collect::<Vec<_>>() })
    }

    fn branches(&self, step: usize) -> Vec<Branch> {
        vec![Branch::new(self.0[step % self.0.len()].clone(), 1.0)]
    }
}
