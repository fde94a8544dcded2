//! Cascade distillation: every width in every step, each one taught by all higher ones.
//!
//! ```text
//! L = 1/n · Σ_b (L_task(b) + β · Σ_{t: bits(t) > bits(b)} D(stop_grad(z_t), z_b))
//! ```
//!
//! `D` is the mean over starts and ends, as the loss of a span is.
//!
//! Source: Fu et al., *InstantNet: Automated Generation and Deployment of Instantaneously
//! Switchable-Precision Networks*, arXiv:2104.10853.

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::train::branch::{Distance, Protection, Teacher};
use crate::train::ladder::Ladder;
use crate::train::regimes::{Branch, Regime};

/// Every width in every step, taught by all higher ones.
#[derive(Debug, Clone)]
pub struct Cascade {
    ladder: Ladder,
    beta: f64,
    distance: Distance,
    protection: Protection,
}

impl Cascade {
    /// # Errors
    ///
    /// When β is negative or not finite.
    pub fn new(ladder: Ladder, beta: f64, distance: Distance, protection: Protection) -> Result<Self> {
        if !(beta >= 0.0 && beta.is_finite()) {
            return Err(Error::option("beta", beta, "a finite weight, at least 0"));
        }
        Ok(Self { ladder, beta, distance, protection })
    }
}

impl Regime for Cascade {
    fn name(&self) -> &'static str {
        "cascade"
    }

    fn parameters(&self) -> Value {
        json!({
            "ladder": self.ladder.describe(), "beta": self.beta, "distance": self.distance,
            "protection": self.protection, "distance_of_several_scores": "mean",
        })
    }

    fn branches(&self, _step: usize) -> Vec<Branch> {
        let weight = 1.0 / self.ladder.len() as f64;
        let teacher = |branch| Teacher { branch, weight: self.beta, distance: self.distance };
        let mut branches: Vec<Branch> = (self.ladder.rungs().iter().rev().enumerate())
            .map(|(place, rung)| Branch {
                teachers: (0..place).map(teacher).collect(),
                ..Branch::new(rung.plan.clone(), weight)
            })
            .collect();
        branches[0].protection = self.protection;
        branches
    }
}
