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

use std::fmt;

use gpt2_model::{Gpt2, ModelOptions};
use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use span_reader::embedded_folder::{EmbeddedAdapter, EmbeddedFolder};
use span_reader::model_folder::ModelFolder;
use squad_data::{Dataset, GeneratorConfig, Split, generate};

use crate::error::Result;

#[cfg(feature = "experiments")]
mod recipe;

#[cfg(feature = "experiments")]
pub use recipe::{Recipe, recipe};

/// Widths that the bank has adapters for, in the order in which the `static` regime trains them.
pub const BANK_WIDTHS: [BitWidth; 6] =
    [BitWidth::FULL, BitWidth::B16, BitWidth::B8, BitWidth::B4, BitWidth::B3, BitWidth::B2];

const CONFIG: &str = include_str!("../../default/config.json");
const WEIGHTS: &[u8] = include_bytes!("../../default/model.safetensors");
const TOKENIZER: &[u8] = include_bytes!("../../default/tokenizer.json");

macro_rules! adapter {
    ($width:expr, $folder:literal) => {
        EmbeddedAdapter {
            name: concat!("<built-in>/adapters/", $folder),
            width: $width,
            config: include_bytes!(concat!("../../default/adapters/", $folder, "/adapter_config.json")),
            weights: include_bytes!(concat!("../../default/adapters/", $folder, "/adapter_model.safetensors")),
            trained_for: include_bytes!(concat!("../../default/adapters/", $folder, "/switchable_quant.json")),
        }
    };
}

const ADAPTERS: &[EmbeddedAdapter] = &[
    adapter!(BitWidth::FULL, "bits-32"),
    adapter!(BitWidth::B16, "bits-16"),
    adapter!(BitWidth::B8, "bits-8"),
    adapter!(BitWidth::B4, "bits-4"),
    adapter!(BitWidth::B3, "bits-3"),
    adapter!(BitWidth::B2, "bits-2"),
];

/// The files of the built-in model.
pub const FILES: EmbeddedFolder =
    EmbeddedFolder { name: "<built-in>", config: CONFIG, weights: WEIGHTS, tokenizer: TOKENIZER, adapters: ADAPTERS };

/// The built-in model with its tokenizer and adapters.
pub type DefaultModel<B> = ModelFolder<B, Gpt2<B>>;

/// Loads the built-in model.
///
/// # Errors
///
/// When the quantiser of `options` cannot be applied to a matrix, or is another one than the adapters were
/// trained for.
pub fn load<B: QuantBackend>(options: &ModelOptions, device: &B::Device) -> Result<DefaultModel<B>> {
    Ok(ModelFolder::embedded(&FILES, options, device)?)
}

/// Loads the built-in model without its adapters, which are for one quantiser.
///
/// # Errors
///
/// When the quantiser of `options` cannot be applied to a matrix.
pub fn load_without_adapters<B: QuantBackend>(options: &ModelOptions, device: &B::Device) -> Result<DefaultModel<B>> {
    Ok(ModelFolder::embedded(&EmbeddedFolder { adapters: &[], ..FILES }, options, device)?)
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
