//! GPT-2 on [burn](https://burn.dev), every linear sub-module at a precision chosen per call.
//!
//! The model loads any GPT-2 folder in Hugging Face form, runs its four matrices per block at the
//! bit-widths that a [`SitePlan`] gives them, each with the adapter of its width, and exports
//! back to the same form. In 32 bits it gives the logits of `transformers`.
//!
//! | file | what |
//! |---|---|
//! | `config`, `names`, `initial` | [`Gpt2Config`]: the shape, from and to `config.json`; names; random weights |
//! | `model`, `block`, `attention`, `mlp`, `activation` | the forward pass, top to bottom |
//!
//! What is the same for every transformer (plans, folders, adapters, packed weights, generation, the
//! span head) is in `switchable-model`; [`prelude`] has its names too.
//!
//! # Should I use this crate?
//!
//! Use it to run or train a GPT-2 at mixed precision. For searching plans and training adapter
//! banks use `experiments`; for linear layers of another model use `switchable-lora`.

mod activation;
mod attention;
mod block;
mod config;
mod initial;
mod mlp;
mod model;
pub mod names;
pub mod prelude;
#[cfg(test)]
#[path = "../../quant-kernels/tests/support/test_device.rs"]
mod support;

pub use activation::Activation;
pub use attention::CausalSelfAttention;
pub use block::Block;
pub use config::Gpt2Config;
pub use mlp::Mlp;
pub use model::Gpt2;

/// A GPT-2 with a span head.
pub type Gpt2ForQuestionAnswering<B> = ForQuestionAnswering<B, Gpt2<B>>;

pub use quant_kernels::{BitWidth, QuantAutodiffBackend, QuantBackend};
pub use switchable_lora::{LinearSettings, PrecisionPlan, QuantizedCache, SitePrecision};
pub use switchable_model::adapters::AdapterFolders;
pub use switchable_model::config::ModelConfig;
pub use switchable_model::error::{Error, Result};
pub use switchable_model::generate::{Generate, GenerateOptions, Sampling};
pub use switchable_model::initial::InitialWeights;
pub use switchable_model::kv_cache::KvCache;
pub use switchable_model::loss::{next_token_loss, span_loss};
pub use switchable_model::model::{SwitchableModel, TrainableModel};
pub use switchable_model::model_weights::ModelWeights;
pub use switchable_model::options::ModelOptions;
pub use switchable_model::packed::PackModel;
pub use switchable_model::packed::form::{PackOptions, PackedForm};
pub use switchable_model::parameters::ParameterRef;
pub use switchable_model::site_plan::SitePlan;
pub use switchable_model::sites::{Site, Sites, sub_module::SubModule};
pub use switchable_model::span_head::{ForQuestionAnswering, MissingHead, SpanLogits};
pub use switchable_model::weights::source::WeightSource;

/// The example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
