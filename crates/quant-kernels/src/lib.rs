//! Quantisation of tensors at 1 to 16 bits, on any burn backend.
//!
//! ```text
//! q = clamp(round(x / s) + z, low, high)        quantize      (round half to even)
//! y = (q − z) · s                               dequantize
//! ```
//!
//! `s` is a scale and `z` a zero point (0 when the mapping is symmetric), one pair per tensor,
//! per output channel, per group of rows or per token. [`choose_params`] finds them,
//! [`quantize`] and [`dequantize`] apply them, and [`fake_quantize`] is their composition with a
//! straight-through gradient, which is what training and accuracy studies use.
//!
//! # Map
//!
//! | want | use |
//! |---|---|
//! | a checked number of bits | [`BitWidth`] |
//! | how values are grouped, mapped and clipped | [`QuantSpec`]: [`Granularity`], [`Mapping`], [`RangeEstimator`] |
//! | scales and zero points of a tensor | [`choose_params`] → [`QuantParams`] |
//! | integer levels, and back | [`quantize`], [`dequantize`] |
//! | values as the quantised tensor would have them, with a gradient | [`fake_quantize`], [`GradientRule`] |
//! | a scale that is trained (LSQ) | [`LearnedStep`] |
//! | what stands between quantised products | [`gelu_tanh`], [`causal_attention`], [`cached_attention`] |
//! | what quantisation cost | [`Distortion`] |
//! | kernels of a backend, and what they must equal | [`QuantBackend`], [`mod@reference`] |
//! | weights that stay packed at 2 to 8 bits | [`PackedTensor`]; at every width from one copy: [`NestedTensor`] |
//! | products with packed weights | [`PackedTensor::matmul`] on slices, [`packed_linear`] on tensors |
//! | files of packed weights | [`PackedFileWriter`], [`PackedFile`] |
//!
//! # Should I use this crate?
//!
//! Yes, to study, train or run quantised networks on burn. Everything that is computed on tensors
//! has a form in plain tensor operations, which runs on every backend and gives the same bits on all
//! of those whose division and rounding follow IEEE 754; burn's CPU and GPU backends have kernels
//! behind the cargo features of their names. Packed weights and their products need no tensor at
//! all. No, if all you need is burn's own quantised storage for inference at 8 or 4 bits:
//! `burn::tensor::quantization` has that.
//!
//! # Weights and activations
//!
//! Weights are `[d_in, d_out]`, as in GPT-2's `Conv1D`: an output channel is a *column*, and
//! groups run down a column. Activations are `[.., tokens, features]`: a token is a row.
//!
//! # Example
//!
//! ```
//! use burn::{backend::Flex, tensor::Tensor};
//! use quant_kernels::{BitWidth, Distortion, GradientRule, Granularity, QuantSpec, fake_quantize};
//!
//! let device = Default::default();
//! let weight = Tensor::<Flex, 2>::from_floats([[0.9, -0.02], [-0.4, 0.07], [0.1, 0.05]], &device);
//!
//! let per_tensor = QuantSpec::default();
//! let per_channel = per_tensor.with_granularity(Granularity::PerChannel);
//! let coarse = fake_quantize(weight.clone(), BitWidth::B4, &per_tensor, GradientRule::Identity)?;
//! let fine = fake_quantize(weight.clone(), BitWidth::B4, &per_channel, GradientRule::Identity)?;
//!
//! let coarse = Distortion::between(&weight, &coarse);
//! let fine = Distortion::between(&weight, &fine);
//! assert!(fine.sqnr_db > coarse.sqnr_db);
//! # Ok::<(), quant_kernels::Error>(())
//! ```

mod attention;
mod backends;
mod bit_width;
#[cfg(any(feature = "cube", feature = "flex", feature = "ndarray"))]
mod block_shape;
mod blocks;
mod cpu;
#[cfg(feature = "cube")]
mod cube;
mod distortion;
mod error;
mod fake_quantize;
mod gelu;
mod granularity;
mod learned_step;
mod mapping;
mod packed;
mod packed_linear;
mod params;
mod quant_backend;
mod quantize;
mod quantizer;
mod range;
pub mod reference;
mod spec;
mod text_form;

pub use attention::{HeadSplit, cached_attention, causal_attention};
pub use bit_width::BitWidth;
pub use cpu::InstructionSet;
pub use distortion::Distortion;
pub use error::{Error, Result};
pub use fake_quantize::{GradientRule, fake_quantize};
pub use gelu::gelu_tanh;
pub use granularity::{Granularity, GroupSize};
pub use learned_step::{LearnedStep, LearnedStepRecord, StepQuantizer};
pub use mapping::{LevelRange, Mapping};
pub use packed::{
    ActivationBits, Epilogue, LowRankTerm, NestedTensor, NestedView, OutputFunction, PackedFile, PackedFileWriter,
    PackedSpec, PackedTensor, PlainData, PlainFormat, PlainTensor, Product, ScaleFormat,
};
pub use packed_linear::{LinearTerms, PackedOperand, packed_linear};
pub use params::{QuantParams, choose_params};
pub use quant_backend::{PrimitiveParams, QuantAutodiffBackend, QuantBackend};
pub use quantize::{dequantize, quantize};
pub use quantizer::Quantizer;
pub use range::{Percentile, RangeEstimator};
pub use spec::QuantSpec;

#[cfg(all(test, feature = "cube"))]
#[path = "../tests/cube/devices.rs"]
mod devices;

/// The README's example, compiled and run as a doc test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
