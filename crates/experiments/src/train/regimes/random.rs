//! One random width per step.
//!
//! ```text
//! B_t uniform over the widths, drawn anew in every step
//! ```
//!
//! Source: Fu et al., *Double-Win Quant*, ICML 2021 (random precision training).

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::train::ladder::{Ladder, Rung};
use crate::train::regimes::{Branch, Regime};

/// One width per step, drawn from a ladder.
#[derive(Debug, Clone)]
pub struct Random {
    ladder: Ladder,
    seed: u64,
}

impl Random {
    /// Draws from all widths of a ladder alike.
    pub fn new(ladder: Ladder, seed: u64) -> Self {
        Self { ladder, seed }
    }

    /// The rung of a step.
    pub fn rung(&self, step: usize) -> &Rung {
        // One generator per step: what a step draws does not depend on where the run started.
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(step as u64);
        &self.ladder.rungs()[rng.random_range(0..self.ladder.len())]
    }
}

impl Regime for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn parameters(&self) -> Value {
        json!({ "ladder": self.ladder.describe(), "seed": self.seed })
    }

    fn branches(&self, step: usize) -> Vec<Branch> {
        vec![Branch::new(self.rung(step).plan.clone(), 1.0)]
    }
}
