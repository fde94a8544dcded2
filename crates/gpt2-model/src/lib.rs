#![doc = include_str!("../README.md")]

mod activation;
mod attention;
mod block;
mod config;
mod config_json;
mod initial;
mod mlp;
mod model;
pub mod names;
pub mod prelude;

pub use activation::Activation;
pub use attention::CausalSelfAttention;
pub use block::Block;
pub use config::Gpt2Config;
pub use mlp::Mlp;
pub use model::Gpt2;

/// A GPT-2 with a span head.
pub type Gpt2ForQuestionAnswering<B> = ForQuestionAnswering<B, Gpt2<B>>;

pub use quant_kernels::{
    backends::quant_backend::{QuantAutodiffBackend, QuantBackend},
    spec::bit_width::BitWidth,
};
pub use switchable_lora::{
    linear_settings::LinearSettings, precision_plan::PrecisionPlan, quantized_cache::QuantizedCache,
    site_precision::SitePrecision,
};
pub use switchable_model::adapters::AdapterFolders;
pub use switchable_model::config::ModelConfig;
pub use switchable_model::error::{Error, Result};
pub use switchable_model::generate::{DrawOptions, Generate, GenerateOptions, NewToken, Sampling};
pub use switchable_model::initial::InitialWeights;
pub use switchable_model::kv_cache::{KvCache, KvStorage};
pub use switchable_model::loss::{next_token_loss, span_loss};
pub use switchable_model::model::{SwitchableModel, TrainableModel};
pub use switchable_model::model_weights::ModelWeights;
pub use switchable_model::named_plans::NamedPlans;
pub use switchable_model::options::ModelOptions;
pub use switchable_model::packed::PackModel;
pub use switchable_model::packed::form::{PackOptions, PackedForm, WidthScales};
pub use switchable_model::parameters::ParameterRef;
pub use switchable_model::site_plan::SitePlan;
pub use switchable_model::sites::{Site, Sites, sub_module::SubModule};
pub use switchable_model::span_head::{ForQuestionAnswering, MissingHead, SpanLogits};
pub use switchable_model::weights::source::WeightSource;
