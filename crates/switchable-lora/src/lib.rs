//! Linear layers whose bit-width and LoRA adapter are chosen per call, on any burn backend.
//!
//! ```text
//! residual   y = Qa(x) · Qw(W) + b + s · (x · A) · B
//! merged     y = Qa(x) · Qw(W + s · A · B) + b             s = alpha / rank
//! ```
//!
//! `Qw` and `Qa` quantise weights and activations to the widths that a [`SitePrecision`] names, and
//! `A`, `B` are the adapter that it names: one of a bank indexed by bit-width. The base weight `W`
//! is shared by all of them. Switching costs a look-up: the quantised forms of a frozen base are
//! computed once and kept in a [`QuantizedCache`]. An adapter may come with a [`LearnedStep`] by which
//! the weight is quantised at its width.
//!
//! # Map
//!
//! | want | use |
//! |---|---|
//! | a layer | [`SwitchableLinear`], with [`LinearSettings`], [`Placement`] and [`BasePolicy`] |
//! | what one layer computes with in one call | [`SitePrecision`] |
//! | what every layer of a model computes with | [`PrecisionPlan`] |
//! | adapters | [`LoraConfig`], [`LoraInit`], [`LoraAdapterPair`], [`LoraBank`] |
//! | memory for quantised weights, under a cap | [`QuantizedCache`] |
//! | weights that are only there packed | [`PackedWeights`], [`pack_weight`], [`Execution`] |
//! | adapters on disk, in PEFT's layout | [`save_peft`], [`load_peft`] |
//! | weights quantised by a step that is trained with the adapter (LSQ) | [`SwitchableLinear::init_adapter_with_step`], [`LoraAdapterPair::step`] |
//!
//! # Should I use this crate?
//!
//! Yes, to train, search or serve a network whose layers run at bit-widths that change from call
//! to call. The crate knows nothing of any model: a *site* is a linear layer with a dotted name
//! such as `h.3.attn.c_attn`. No, if all layers have one fixed precision: quantise the weights
//! once and use `burn::nn::Linear`.
//!
//! # Example
//!
//! ```
//! use burn::{backend::Flex, tensor::{Distribution, Tensor}};
//! use switchable_lora::{
//!     BitWidth, LinearSettings, LoraConfig, LoraInit, QuantizedCache, SitePrecision, SwitchableLinear,
//! };
//!
//! let device = Default::default();
//! let weight = Tensor::<Flex, 2>::random([16, 8], Distribution::Default, &device);
//! let cache = QuantizedCache::new(1 << 20);
//! let mut layer = SwitchableLinear::new(weight, None, LinearSettings::default(), &cache);
//!
//! let config = LoraConfig::new(4, 8.0)?.with_init(LoraInit::LoftQ { iterations: 4 });
//! layer.init_adapter(BitWidth::B4, &config, 0)?;
//!
//! let x = Tensor::<Flex, 3>::random([2, 5, 16], Distribution::Default, &device);
//! let full = layer.forward(x.clone(), &SitePrecision::FULL);
//! let four = layer.forward(x.clone(), &SitePrecision::uniform(BitWidth::B4));
//! let bare = layer.forward(x, &SitePrecision::uniform(BitWidth::B4).without_adapter());
//!
//! let error = |y: Tensor<Flex, 3>| (y - full.clone()).square().mean().into_scalar();
//! assert!(error(four) < error(bare)); // the adapter repairs part of the damage
//! # Ok::<(), switchable_lora::Error>(())
//! ```

mod adapter_pair;
mod adapter_step;
mod base_weights;
mod error;
mod linear_settings;
mod lora_bank;
mod lora_config;
mod low_rank;
mod packed_weights;
mod peft;
mod precision_plan;
mod quantized_cache;
mod site_precision;
mod switchable_linear;

pub use adapter_pair::{LoraAdapterPair, LoraAdapterPairRecord};
pub use adapter_step::learned_step_ids;
pub use base_weights::BaseWeights;
pub use error::{Error, Result};
pub use linear_settings::{BasePolicy, Execution, LinearSettings, Placement};
pub use lora_bank::{LoraBank, LoraBankRecord};
pub use lora_config::{LoraConfig, LoraInit};
pub use packed_weights::{PackedWeights, pack_weight, pack_weight_by_step};
pub use peft::{
    BaseLayer, LEARNED_STEPS_FILE, PeftOptions, list_widths, load_peft, parse_learned_steps, parse_peft, save_peft,
    width_folder,
};
pub use precision_plan::PrecisionPlan;
pub use quant_kernels::{
    BitWidth, GradientRule, Granularity, LearnedStep, Mapping, OutputFunction, PackedTensor, Percentile, QuantBackend,
    QuantSpec, RangeEstimator, ScaleFormat,
};
pub use quantized_cache::QuantizedCache;
pub use site_precision::SitePrecision;
pub use switchable_linear::{SwitchableLinear, SwitchableLinearRecord};

/// The README's example, compiled and run as a doc test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
