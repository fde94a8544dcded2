#![doc = include_str!("../README.md")]

pub mod adapter_pair;
pub mod adapter_step;
pub mod base_weights;
pub mod error;
pub mod linear_settings;
pub mod lora_bank;
pub mod lora_config;
mod low_rank;
pub mod pack_weight;
pub mod packed_weights;
pub mod peft;
pub mod precision_plan;
pub mod quantized_cache;
pub mod site_precision;
pub mod switchable_linear;
mod weight_rounding;

pub use adapter_pair::{LoraAdapterPair, LoraAdapterPairRecord};
pub use adapter_step::learned_step_ids;
pub use base_weights::BaseWeights;
pub use error::{Error, Result};
pub use linear_settings::{BasePolicy, Execution, LinearSettings, Placement};
pub use lora_bank::{LoraBank, LoraBankRecord};
pub use lora_config::{LoraConfig, LoraInit, WeightScales};
pub use pack_weight::{pack_weight, pack_weight_by_step};
pub use packed_weights::PackedWeights;
pub use peft::{
    BaseLayer, PeftOptions,
    learned_steps::{LEARNED_STEPS_FILE, parse_learned_steps},
    list_widths,
    load::{load_peft, parse_peft},
    save::save_peft,
    width_folder,
};
pub use precision_plan::PrecisionPlan;
pub use quant_kernels::{
    BitWidth, Format, GradientRule, Granularity, LearnedStep, OutputFunction, PackedTensor, Percentile, QuantBackend,
    QuantSpec, RangeEstimator, ScaleFormat,
};
pub use quantized_cache::QuantizedCache;
pub use site_precision::SitePrecision;
pub use switchable_linear::{SwitchableLinear, SwitchableLinearRecord};
