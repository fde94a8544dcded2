#![doc = include_str!("../README.md")]

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
