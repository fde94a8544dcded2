//! Cyclic precision: the width follows the step.
//!
//! ```text
//! cosine:      B_t = rint(B_min + ½·(B_max − B_min)·(1 − cos(π·(t mod T)/T)))
//! triangular:  i_t = rint((n − 1)·(1 − |1 − 2·(t mod T)/T|))          the i-th of n widths
//! ```
//!
//! `T` is the number of steps in a cycle. The cosine climbs from `B_min` towards `B_max` and falls back
//! at once; a step runs the width of the bank that is nearest to `B_t`. The triangle climbs and
//! descends the widths of the bank: with `T = 2·(n − 1)` it runs 4, 8, 16, 32, 16, 8, 4, …
//!
//! Source: Fu et al., *CPT: Efficient Deep Neural Network Training via Cyclic Precision*,
//! arXiv:2101.09868.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::train::ladder::Ladder;
use crate::train::regimes::{Branch, Regime};

/// How the width moves within a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cycle {
    /// A cosine ramp from the lowest width to the highest, then a reset.
    Cosine,
    /// Up the widths of the bank and down again.
    Triangular,
}

/// One width per step, which rises and falls over a cycle.
#[derive(Debug, Clone)]
pub struct Cyclic {
    ladder: Ladder,
    cycle: Cycle,
    steps_per_cycle: usize,
}

impl Cyclic {
    /// # Errors
    ///
    /// When a cycle has fewer than two steps.
    pub fn new(ladder: Ladder, cycle: Cycle, steps_per_cycle: usize) -> Result<Self> {
        if steps_per_cycle < 2 {
            return Err(Error::option("cycle_steps", steps_per_cycle, "at least 2 steps"));
        }
        Ok(Self { ladder, cycle, steps_per_cycle })
    }

    /// Steps of a cycle when so many of them are to fit into a run.
    ///
    /// # Errors
    ///
    /// When the run is too short for cycles of two steps.
    pub fn steps_of(steps: usize, cycles: usize) -> Result<usize> {
        match steps.checked_div(cycles) {
            Some(per_cycle) if per_cycle >= 2 => Ok(per_cycle),
            _ => Err(Error::option("cycles", cycles, format!("from 1 to half of the {steps} steps"))),
        }
    }

    /// The scheduled width of a step in bits, before the nearest width of the bank is taken.
    pub fn bits(&self, step: usize) -> f64 {
        let phase = (step % self.steps_per_cycle) as f64 / self.steps_per_cycle as f64;
        let rungs = self.ladder.rungs();
        match self.cycle {
            Cycle::Cosine => {
                let low = f64::from(rungs[0].bits.bits());
                let high = f64::from(self.ladder.highest().bits.bits());
                (low + 0.5 * (high - low) * (1.0 - (std::f64::consts::PI * phase).cos())).round_ties_even()
            }
            Cycle::Triangular => {
                let climbed = 1.0 - (1.0 - 2.0 * phase).abs();
                let rung = ((rungs.len() - 1) as f64 * climbed).round_ties_even() as usize;
                f64::from(rungs[rung].bits.bits())
            }
        }
    }
}

impl Regime for Cyclic {
    fn name(&self) -> &'static str {
        match self.cycle {
            Cycle::Cosine => "cyclic",
            Cycle::Triangular => "triangular",
        }
    }

    fn parameters(&self) -> Value {
        json!({ "ladder": self.ladder.describe(), "steps_per_cycle": self.steps_per_cycle })
    }

    fn branches(&self, step: usize) -> Vec<Branch> {
        vec![Branch::new(self.ladder.nearest(self.bits(step)).plan.clone(), 1.0)]
    }
}
