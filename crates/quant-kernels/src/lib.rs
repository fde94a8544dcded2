#![doc = include_str!("../README.md")]

#[cfg(target_endian = "big")]
compile_error!(
    "quant-kernels needs a little-endian target: packed weights are multiplied as they lie in memory-mapped \
     little-endian files, and no big-endian machine has tested another order"
);

pub mod backends;
pub mod calibrated;
pub mod cpu;
#[cfg(feature = "cube")]
mod cube;
pub mod error;
pub mod packed;
pub mod rotation;
pub mod spec;
pub mod tensor;

pub use backends::quant_backend::{QuantAutodiffBackend, QuantBackend};
pub use calibrated::{codes::Calibrated, input_moments::InputMoments};
pub use error::{Error, Result};
pub use packed::{
    coded::Coded,
    file::{reader::PackedFile, writer::PackedFileWriter},
    nested::NestedTensor,
    packed_spec::PackedSpec,
    packed_tensor::PackedTensor,
    packed_view::PackedView,
    product::options::Product,
    scales::ScaleFormat,
};
pub use rotation::hadamard::HadamardTransform;
pub use spec::{
    bit_width::BitWidth, formats::format::Format, gradient_rule::GradientRule, granularity::Granularity,
    quant_spec::QuantSpec, range_estimator::RangeEstimator, rotation::Rotation, rounding_method::RoundingMethod,
    scaling_method::ScalingMethod,
};
pub use tensor::{
    distortion::Distortion,
    fake_quantize::fake_quantize,
    learned_step::LearnedStep,
    params::choose_params,
    quantize::{dequantize, quantize},
    rounding::Rounding,
};

#[cfg(all(test, feature = "cube"))]
#[path = "../tests/cube/devices.rs"]
mod devices;
