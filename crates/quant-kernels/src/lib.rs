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
//! | how values are grouped, mapped and clipped | [`QuantSpec`]: [`Granularity`], [`Format`], [`RangeEstimator`] |
//! | scales and zero points of a tensor | [`choose_params`] → [`QuantParams`] |
//! | integer levels, and back | [`quantize`], [`dequantize`] |
//! | values as the quantised tensor would have them, with a gradient | [`fake_quantize`], [`GradientRule`] |
//! | a scale that is trained (LSQ) | [`LearnedStep`] |
//! | how a weight becomes codes, and the codes | [`Rounding`], [`Coded`] |
//! | what stands between quantised products | [`gelu_tanh`], [`causal_attention`], [`cached_attention`] |
//! | what quantisation cost | [`Distortion`] |
//! | kernels of a backend, and what they must equal | [`QuantBackend`], [`TransformerBackend`], [`mod@reference`] |
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

pub mod backends;
pub mod cpu;
#[cfg(feature = "cube")]
mod cube;
pub mod error;
pub mod packed;
pub mod spec;
pub mod tensor;

pub use backends::{
    head_split::HeadSplit,
    linear_terms::LinearTerms,
    primitive_params::PrimitiveParams,
    quant_backend::{QuantAutodiffBackend, QuantBackend},
    transformer_backend::TransformerBackend,
};
pub use cpu::instruction_set::InstructionSet;
pub use error::{Error, Result};
pub use packed::{
    coded::Coded,
    file::{
        plain::{PlainData, PlainFormat, PlainTensor},
        reader::PackedFile,
        writer::PackedFileWriter,
    },
    nested::NestedTensor,
    packed_spec::PackedSpec,
    packed_tensor::PackedTensor,
    packed_view::{PackedView, PackedView as PackedOperand},
    product::{
        activations::ActivationBits,
        epilogue::{Epilogue, LowRankTerm, OutputFunction},
        options::Product,
    },
    scales::ScaleFormat,
};
pub use spec::{
    bit_width::BitWidth,
    formats::{
        code_book::{CodeBook, LevelRange},
        format::{Format, Format as Mapping},
    },
    gradient_rule::GradientRule,
    granularity::{Granularity, GroupSize},
    quant_spec::QuantSpec,
    quantizer::Quantizer,
    range_estimator::{Percentile, RangeEstimator},
    step_quantizer::StepQuantizer,
};
pub use tensor::{
    attention::{cached_attention, causal_attention},
    distortion::Distortion,
    fake_quantize::fake_quantize,
    gelu::gelu_tanh,
    learned_step::{LearnedStep, LearnedStepRecord},
    packed_linear::packed_linear,
    params::{QuantParams, choose_params},
    quantize::{dequantize, quantize},
    reference,
    rounding::Rounding,
};

#[cfg(all(test, feature = "cube"))]
#[path = "../tests/cube/devices.rs"]
mod devices;

/// The README's example, compiled and run as a doc test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
