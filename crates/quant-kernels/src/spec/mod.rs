//! How values are quantised, as plain data.

pub mod bit_width;
#[cfg(any(feature = "cube", feature = "flex", feature = "ndarray"))]
pub(crate) mod block_shape;
pub mod formats;
pub mod gradient_rule;
pub mod granularity;
pub mod quant_spec;
pub mod quantizer;
pub mod range_estimator;
pub mod rotation;
pub mod rounding_method;
pub mod scaling_method;
pub mod step_quantizer;
pub(crate) mod text_form;
