//! One plan in every step.

use serde_json::{Value, json};

use switchable_model::site_plan::SitePlan;

use crate::train::regimes::{Branch, Regime};

/// One plan in every step.
#[derive(Debug, Clone)]
pub struct Single(pub SitePlan);

impl Regime for Single {
    fn name(&self) -> &'static str {
        "single"
    }

    fn parameters(&self) -> Value {
        json!({ "plan": self.0.to_precision_plan() })
    }

    fn branches(&self, _step: usize) -> Vec<Branch> {
        vec![Branch::new(self.0.clone(), 1.0)]
    }
}
