#![doc = include_str!("../README.md")]

pub mod adapter_pair;
pub mod adapter_record;
pub mod adapter_step;
pub mod base_weights;
pub mod cache_statistics;
pub mod error;
pub mod head_choice;
pub mod linear_settings;
pub mod lora_bank;
pub mod lora_config;
mod low_rank;
pub mod packed_weights;
pub mod peft;
pub mod placement;
pub mod precision_plan;
pub mod quantisation_settings;
pub mod quantized_cache;
pub mod site_precision;
pub mod switchable_embedding;
pub mod switchable_linear;
mod weight_rounding;

pub use adapter_pair::LoraAdapterPair;
pub use error::{Error, Result};
pub use linear_settings::{BasePolicy, Execution, LinearSettings};
pub use lora_bank::LoraBank;
pub use lora_config::{LoraConfig, LoraInit, WeightScales};
pub use packed_weights::PackedWeights;
pub use peft::{load::load_peft, save::save_peft, trained_for::TrainedFor};
pub use placement::Placement;
pub use precision_plan::PrecisionPlan;
pub use quant_kernels::spec::bit_width::BitWidth;
pub use quantisation_settings::QuantisationSettings;
pub use quantized_cache::QuantizedCache;
pub use site_precision::{SitePrecision, SiteRounding};
pub use switchable_embedding::SwitchableEmbedding;
pub use switchable_linear::SwitchableLinear;
