//! Every width in every step, mean of the losses.
//!
//! ```text
//! L = 1/n · Σ_b L_task(b)
//! ```
//!
//! Source: Yu et al., *Slimmable Neural Networks*, arXiv:1812.08928, with widths in bits (Jin,
//! Yang and Liao, *AdaBits*, arXiv:1912.09666).

use serde_json::{Value, json};

use crate::train::branch::Protection;
use crate::train::ladder::Ladder;
use crate::train::regimes::{Branch, Regime};

/// Every width in every step, the highest one protected as asked.
#[derive(Debug, Clone)]
pub struct Joint {
    ladder: Ladder,
    protection: Protection,
}

impl Joint {
    /// All widths of a ladder, the others' gradients held off the highest one as `protection` says.
    pub fn new(ladder: Ladder, protection: Protection) -> Self {
        Self { ladder, protection }
    }
}

impl Regime for Joint {
    fn name(&self) -> &'static str {
        "joint"
    }

    fn parameters(&self) -> Value {
        json!({ "ladder": self.ladder.describe(), "protection": self.protection })
    }

    fn branches(&self, _step: usize) -> Vec<Branch> {
        let weight = 1.0 / self.ladder.len() as f64;
        let mut branches: Vec<Branch> =
            self.ladder.rungs().iter().rev().map(|rung| Branch::new(rung.plan.clone(), weight)).collect();
        branches[0].protection = self.protection;
        branches
    }
}
