//! GPT-2 on [burn](https://burn.dev), every linear sub-module at a precision chosen per call.
//!
//! The model loads any GPT-2 folder in Hugging Face form, runs its four matrices per block at the
//! bit-widths that a [`SitePlan`] gives them, each with the adapter of its width, and exports
//! back to the same form. In 32 bits it gives the logits of `transformers`.
//!
//! | file | what |
//! |---|---|
//! | `config` | [`Gpt2Config`]: the shape, from and to `config.json` |
//! | `model`, `block`, `attention`, `mlp`, `activation` | the forward pass, top to bottom |
//! | `sites` | [`Site`], [`SitePlan`]: which matrix runs at which precision |
//! | `span_head`, `loss` | extractive question answering and training losses |
//! | `kv_cache`, `generate` | one-token steps and generation; keys and values at few bits |
//! | `adapters`, `weights` | reading and writing folders |
//! | `packed` | [`PackedForm`]: folders of packed weights, run from their codes |
//!
//! # Should I use this crate?
//!
//! Use it to run or train a GPT-2 at mixed precision. For searching plans and training adapter
//! banks use `experiments`; for linear layers of another model use `switchable-lora`.

mod activation;
mod adapters;
mod attention;
mod block;
mod config;
mod error;
mod generate;
mod initial;
mod kv_cache;
mod loss;
mod mlp;
mod model;
mod packed;
mod parameters;
mod sites;
mod span_head;
#[cfg(test)]
#[path = "../../quant-kernels/tests/support/test_device.rs"]
mod support;
mod weights;

pub use activation::Activation;
pub use attention::CausalSelfAttention;
pub use block::Block;
pub use config::Gpt2Config;
pub use error::{Error, Result};
pub use generate::{GenerateOptions, Sampling};
pub use initial::InitialWeights;
pub use kv_cache::KvCache;
pub use loss::{next_token_loss, span_loss};
pub use mlp::Mlp;
pub use model::{Gpt2, ModelOptions};
pub use packed::{PackOptions, PackedForm};
pub use parameters::ParameterRef;
pub use sites::{SITES_PER_BLOCK, Site, SitePlan, SubModule};
pub use span_head::{Gpt2ForQuestionAnswering, MissingHead, SpanLogits};
pub use weights::WeightSource;

pub use quant_kernels::{BitWidth, QuantAutodiffBackend, QuantBackend};
pub use switchable_lora::{LinearSettings, PrecisionPlan, QuantizedCache, SitePrecision};

/// The example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
