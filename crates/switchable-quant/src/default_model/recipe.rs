//! How the built-in model is made from nothing.

use experiments::banks::bank::BankConfig;
use experiments::train::config::TrainConfig;
use experiments::train::objective::Objective;
use experiments::train::schedule::Schedule;
use gpt2_model::{Activation, Gpt2Config, InitialWeights};
use squad_data::BpeConfig;
use switchable_lora::lora_config::LoraConfig;

use crate::default_model::BANK_WIDTHS;
use crate::error::Result;

/// How the built-in model is made from nothing.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The tokenizer.
    pub tokenizer: BpeConfig,
    /// Shape of the model, once the tokenizer is there.
    pub shape: fn(usize) -> Gpt2Config,
    /// How the initial weights are drawn.
    pub initial: InitialWeights,
    /// Seed of the initial weights.
    pub seed: u64,
    /// Training of base and head in full precision.
    pub base: TrainConfig,
    /// Widths and adapters.
    pub bank: BankConfig,
    /// Training of the adapters.
    pub bank_train: TrainConfig,
}

/// The recipe of the built-in model.
///
/// # Errors
///
/// Never; the rank of the adapters is valid.
pub fn recipe() -> Result<Recipe> {
    let base = TrainConfig {
        steps: 1000,
        batch_size: 64,
        micro_batches: 2,
        schedule: Schedule { peak: 2e-3, warm_up: 0.05, final_share: 0.02 },
        objective: Objective { next_token: 0.5 },
        weight_decay: 0.02,
        checkpoint_every: 250,
        ..TrainConfig::default()
    };
    let bank_train = TrainConfig {
        steps: 900,
        schedule: Schedule { peak: 2e-3, warm_up: 0.05, final_share: 0.02 },
        objective: Objective { next_token: 0.0 },
        weight_decay: 0.0,
        seed: 1,
        ..base.clone()
    };
    let bank = BankConfig::new(&BANK_WIDTHS, LoraConfig::new(8, 16.0)?, 1);
    let shape = |vocabulary| {
        Gpt2Config::new(vocabulary, 128, 64, 12, 2).with_activation(Activation::Relu).with_initializer_range(0.05)
    };
    let tokenizer = BpeConfig { vocab_size: 1536, ..BpeConfig::default() };
    Ok(Recipe { tokenizer, shape, initial: InitialWeights::Matching, seed: 1, base, bank, bank_train })
}
