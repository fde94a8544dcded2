//! The model that is part of this crate: a small GPT-2 with its tokenizer and adapter bank.
//!
//! It has 12 blocks, so that the grid of 48 sites is that of GPT-2 small, and answers questions
//! about generated paragraphs. `cargo run --release --example train_default` makes it from nothing.
//!
//! | what | value |
//! |---|---|
//! | blocks, width, heads, positions | 12, 64, 2, 128 |
//! | activation | ReLU |
//! | tokenizer | byte-level BPE of the generated corpus |
//! | adapters | rank 8 at 32, 16, 8, 4, 3 and 2 bits |

use quant_kernels::QuantBackend;
use std::fmt;
use std::path::Path;

use burn::tensor::backend::Backend;
use experiments::{BankConfig, Objective, Schedule, TrainConfig};
use gpt2_model::{
    Activation, AdapterFolders, BitWidth, Gpt2Config, Gpt2ForQuestionAnswering, InitialWeights, ModelConfig,
    ModelOptions, WeightSource,
};
use squad_data::{BpeConfig, Dataset, GeneratorConfig, Split, TextTokenizer, generate};
use switchable_lora::LoraConfig;

use crate::{Error, Result};

/// Widths that the bank has adapters for, in the order in which the `static` regime trains them.
pub const BANK_WIDTHS: [BitWidth; 6] =
    [BitWidth::FULL, BitWidth::B16, BitWidth::B8, BitWidth::B4, BitWidth::B3, BitWidth::B2];

const CONFIG: &str = include_str!("../default/config.json");
const WEIGHTS: &[u8] = include_bytes!("../default/model.safetensors");
const TOKENIZER: &[u8] = include_bytes!("../default/tokenizer.json");

/// Name, width and the two files of an adapter folder.
struct EmbeddedAdapter {
    name: &'static str,
    width: BitWidth,
    config: &'static [u8],
    weights: &'static [u8],
}

macro_rules! adapter {
    ($width:expr, $folder:literal) => {
        EmbeddedAdapter {
            name: concat!("<built-in>/adapters/", $folder),
            width: $width,
            config: include_bytes!(concat!("../default/adapters/", $folder, "/adapter_config.json")),
            weights: include_bytes!(concat!("../default/adapters/", $folder, "/adapter_model.safetensors")),
        }
    };
}

const ADAPTERS: [EmbeddedAdapter; 6] = [
    adapter!(BitWidth::FULL, "bits-32"),
    adapter!(BitWidth::B16, "bits-16"),
    adapter!(BitWidth::B8, "bits-8"),
    adapter!(BitWidth::B4, "bits-4"),
    adapter!(BitWidth::B3, "bits-3"),
    adapter!(BitWidth::B2, "bits-2"),
];

/// The built-in model and its tokenizer.
#[derive(Debug)]
pub struct DefaultModel<B: Backend> {
    /// The model with its adapters.
    pub model: Gpt2ForQuestionAnswering<B>,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
}

/// Loads the built-in model.
///
/// # Errors
///
/// When the quantiser of `options` cannot be applied to a matrix.
pub fn load<B: QuantBackend>(options: &ModelOptions, device: &B::Device) -> Result<DefaultModel<B>> {
    let path = Path::new("<built-in>/config.json");
    let config: serde_json::Value =
        serde_json::from_str(CONFIG).map_err(|e| Error::BuiltIn { reason: e.to_string() })?;
    let config = Gpt2Config::from_json(&config, path)?;
    let weights = WeightSource::embedded("<built-in>/model.safetensors", WEIGHTS);
    let mut model = Gpt2ForQuestionAnswering::from_sources(&config, vec![weights], options, device)?;
    for adapter in &ADAPTERS {
        model.transformer.parse_adapter(adapter.name, adapter.config, adapter.weights, adapter.width)?;
    }
    Ok(DefaultModel { model, tokenizer: TextTokenizer::from_bytes(TOKENIZER, "<built-in>/tokenizer.json")? })
}

/// Sets of generated questions. No entity of the training set occurs in the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuestionSet {
    /// 90,000 questions that the model was trained on.
    Train,
    /// 240 held-out questions on which plans are searched.
    Search,
    /// 1,200 other held-out questions on which results are reported.
    HeldOut,
}

impl fmt::Display for QuestionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Search => "search",
            Self::HeldOut => "held-out",
        })
    }
}

/// Generates a set of questions; the same one in every call.
///
/// # Errors
///
/// Never for these sets; the generator checks its configuration.
pub fn questions(set: QuestionSet) -> Result<Dataset> {
    let config = match set {
        QuestionSet::Train => GeneratorConfig::new(Split::Train, 30_000, 1),
        QuestionSet::Search => GeneratorConfig::new(Split::Dev, 80, 2),
        QuestionSet::HeldOut => GeneratorConfig::new(Split::Dev, 400, 3),
    };
    Ok(generate(&config)?)
}

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
