//! How models are trained on attacks.

use clap::Args;

use switchable_quant::experiments::robustness::hardening::adversarial_training::AdversarialTraining;
use switchable_quant::experiments::train::config::TrainConfig;
use switchable_quant::experiments::train::schedule::Schedule;

/// How models are trained on attacks.
#[derive(Debug, Clone, Args)]
pub struct HardeningArgs {
    /// Rounds of training on attacks, plain and at random precision, 0 for none
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub adversarial_rounds: usize,
    /// Training questions attacked in a round
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub adversarial_items: usize,
    /// Optimiser steps of a round
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub adversarial_steps: usize,
    /// Highest learning rate of a round; all weights are trained
    #[arg(long, default_value_t = 3e-4)]
    pub adversarial_learning_rate: f64,
}

impl HardeningArgs {
    /// The training that the flags name; `None` for no rounds.
    pub fn training(&self, batch_size: usize, seed: u64) -> Option<AdversarialTraining> {
        let train = TrainConfig {
            steps: self.adversarial_steps,
            batch_size,
            schedule: Schedule { peak: self.adversarial_learning_rate, ..Schedule::default() },
            seed,
            ..TrainConfig::default()
        };
        let (rounds, items_per_round) = (self.adversarial_rounds, self.adversarial_items);
        (rounds > 0).then(|| AdversarialTraining { rounds, items_per_round, train, ..AdversarialTraining::default() })
    }
}
