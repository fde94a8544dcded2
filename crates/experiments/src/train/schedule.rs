//! Learning rate over the steps.
//!
//! ```text
//! η(t) = η_max · (t + 1)/w                                 t < w
//! η(t) = η_max · (1 − (1 − f)·(t − w)/(n − w))             t ≥ w
//! ```
//!
//! `n` steps, `w` of them warm-up, `f` the final share.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Linear warm-up, then linear decay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Highest learning rate.
    pub peak: f64,
    /// Share of the steps that warm up, in [0, 1].
    pub warm_up: f64,
    /// Learning rate at the end as a share of the highest, in [0, 1].
    pub final_share: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { peak: 1e-3, warm_up: 0.05, final_share: 0.0 }
    }
}

impl Schedule {
    /// Learning rate of a step, counted from 0, in a run of so many steps.
    ///
    /// ```
    /// use experiments::train::schedule::Schedule;
    ///
    /// let schedule = Schedule { peak: 1.0, warm_up: 0.2, final_share: 0.1 };
    /// assert!((schedule.rate(0, 10) - 0.5).abs() < 1e-12);
    /// assert!((schedule.rate(2, 10) - 1.0).abs() < 1e-12);
    /// assert!((schedule.rate(6, 10) - 0.55).abs() < 1e-12);
    /// ```
    pub fn rate(&self, step: usize, steps: usize) -> f64 {
        let warm_up = (self.warm_up * steps as f64).round() as usize;
        if step < warm_up {
            return self.peak * (step + 1) as f64 / warm_up as f64;
        }
        let progress = (step - warm_up) as f64 / (steps - warm_up).max(1) as f64;
        self.peak * (1.0 - (1.0 - self.final_share) * progress.min(1.0))
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !(self.peak > 0.0 && self.peak.is_finite()) {
            return Err(Error::option("peak", self.peak, "a finite learning rate above 0"));
        }
        for (field, share) in [("warm_up", self.warm_up), ("final_share", self.final_share)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::option(field, share, "a share from 0 to 1"));
            }
        }
        Ok(())
    }
}
