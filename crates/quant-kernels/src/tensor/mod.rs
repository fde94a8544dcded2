//! Quantisation of tensors, and what stands between quantised products.

pub mod attention;
pub mod distortion;
pub mod fake_quantize;
pub mod gelu;
pub mod half_linear;
pub mod learned_step;
pub mod packed_linear;
pub mod params;
pub mod quantize;
pub mod reference;
pub mod rotary;
pub mod rotation;
pub mod rounding;
