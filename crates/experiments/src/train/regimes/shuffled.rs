//! The widths of a cyclic run in random order: its control.
//!
//! ```text
//! B_t = the cosine's B_π(t)          π a permutation of the n steps of the run, drawn once
//! ```
//!
//! What a cyclic regime gains over another may come of its order or of how often it runs each width. This one runs each width
//! exactly as often as the cyclic run of as many steps and cycles, and has no cycles.

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::error::Result;
use crate::train::ladder::Ladder;
use crate::train::regimes::cyclic::{Cycle, Cyclic};
use crate::train::regimes::{Branch, Regime};

/// One width per step, those of a cyclic run in another order.
#[derive(Debug, Clone)]
pub struct Shuffled {
    cyclic: Cyclic,
    order: Vec<usize>,
    seed: u64,
}

impl Shuffled {
    /// The widths of a run of so many steps in so many cosine cycles.
    ///
    /// # Errors
    ///
    /// When the run is too short for its cycles.
    pub fn new(ladder: Ladder, steps: usize, cycles: usize, seed: u64) -> Result<Self> {
        let cyclic = Cyclic::new(ladder, Cycle::Cosine, Cyclic::steps_of(steps, cycles)?)?;
        let mut order: Vec<usize> = (0..steps).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        Ok(Self { cyclic, order, seed })
    }
}

impl Regime for Shuffled {
    fn name(&self) -> &'static str {
        "shuffled"
    }

    fn parameters(&self) -> Value {
        json!({ "cyclic": self.cyclic.parameters(), "steps": self.order.len(), "seed": self.seed })
    }

    /// Past the end of the run the order is the cyclic one.
    fn branches(&self, step: usize) -> Vec<Branch> {
        self.cyclic.branches(self.order.get(step).copied().unwrap_or(step))
    }
}
