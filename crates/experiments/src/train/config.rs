//! What a training run does.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::train::objective::Objective;
use crate::train::schedule::Schedule;

/// Hyper-parameters of a run.
///
/// | field | meaning | default |
/// |---|---|---|
/// | `steps` | optimiser steps | 1,000 |
/// | `batch_size` | windows per step | 32 |
/// | `micro_batches` | parts a batch is cut into, computed at once or one after another | 1 |
/// | `schedule` | learning rate | 1e-3 peak, warm-up, linear decay |
/// | `weight_decay` | decoupled, on every trained parameter | 0.01 |
/// | `clip_norm` | largest global norm of the gradient | 1.0 |
/// | `objective` | weights of the losses | span only |
/// | `seed` | order of the data | 0 |
/// | `checkpoint_every` | steps between checkpoints | 200 |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Windows per step.
    pub batch_size: usize,
    /// Parts that a batch is cut into. The gradient is the mean over the parts, added in their
    /// order, so that the result does not depend on how many are computed at once.
    pub micro_batches: usize,
    /// Learning rate.
    pub schedule: Schedule,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Largest global norm of the gradient.
    pub clip_norm: f64,
    /// Weights of the losses.
    pub objective: Objective,
    /// Seed of the order of the data.
    pub seed: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 1000,
            batch_size: 32,
            micro_batches: 1,
            schedule: Schedule::default(),
            weight_decay: 0.01,
            clip_norm: 1.0,
            objective: Objective::default(),
            seed: 0,
            checkpoint_every: 200,
        }
    }
}

impl TrainConfig {
    /// # Errors
    ///
    /// When a field is out of its range; the error names it.
    pub fn check(&self) -> Result<()> {
        let positive = [
            ("steps", self.steps),
            ("batch_size", self.batch_size),
            ("micro_batches", self.micro_batches),
            ("checkpoint_every", self.checkpoint_every),
        ];
        if let Some((field, _)) = positive.into_iter().find(|(_, n)| *n == 0) {
            return Err(Error::option(field, 0, "at least 1"));
        }
        if !self.batch_size.is_multiple_of(self.micro_batches) {
            return Err(Error::option(
                "micro_batches",
                self.micro_batches,
                format!("a divisor of batch_size = {}", self.batch_size),
            ));
        }
        if !(self.clip_norm > 0.0 && self.clip_norm.is_finite()) {
            return Err(Error::option("clip_norm", self.clip_norm, "a finite number above 0"));
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return Err(Error::option("weight_decay", self.weight_decay, "a finite number, at least 0"));
        }
        self.schedule.check()?;
        self.objective.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_out_of_range_is_named() {
        let good = TrainConfig::default();
        good.check().unwrap();
        let cases: [(&str, TrainConfig); 6] = [
            ("steps", TrainConfig { steps: 0, ..good.clone() }),
            ("batch_size", TrainConfig { batch_size: 0, ..good.clone() }),
            ("micro_batches", TrainConfig { micro_batches: 3, ..good.clone() }),
            ("clip_norm", TrainConfig { clip_norm: f64::NAN, ..good.clone() }),
            ("weight_decay", TrainConfig { weight_decay: -1.0, ..good.clone() }),
            ("checkpoint_every", TrainConfig { checkpoint_every: 0, ..good }),
        ];
        for (field, config) in cases {
            let message = config.check().expect_err(field).to_string();
            assert!(message.contains(field), "{message}");
        }
    }
}
