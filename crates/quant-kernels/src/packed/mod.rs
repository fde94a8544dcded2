//! Weights that stay packed at 2 to 8 bits, in memory and on disk, and their products.
//!
//! ```text
//! w = (u − z) · s          u: code of b bits,  s: scale,  z: zero point
//! y = x · W                computed from the codes: no copy of W in floats is ever resident
//! ```
//!
//! | concept | file |
//! |---|---|
//! | the weights and what they are | `packed_tensor`, `packed_spec` |
//! | what a rounding makes of a weight | `coded` |
//! | where each bit stands, and the shapes that kernels share | `tiles` |
//! | kernels, for each set of instructions | `target` |
//! | numbers of the scales | `scales` |
//! | 8-bit weights that serve every lower width | `nested` |
//! | the scales of one of these widths | `own_scales` |
//! | files | `file` |
//! | bytes that are shared: owned, or of a file | `storage` |
//! | weights as numbers again | `dequantize` |
//! | a matrix that many threads write at once | `grid` |
//! | weights as products see them: whole, or cut | `packed_view` |
//! | products | `product` |
//! | weights in bf16 | `half_weight` |
//! | copies on GPUs | `device_copies` |
//! | rows that grow while a model runs, each with its scale | `packed_rows` |
#![expect(clippy::inline_always, reason = "plain Rust is compiled anew for each instruction set of its callers")]

pub mod coded;
pub(crate) mod dequantize;
#[cfg(feature = "cube")]
pub(crate) mod device_copies;
pub mod file;
pub(crate) mod grid;
pub mod half_weight;
pub mod nested;
pub(crate) mod own_scales;
pub mod packed_rows;
pub mod packed_spec;
pub mod packed_tensor;
pub mod packed_view;
pub mod product;
pub mod scales;
pub(crate) mod storage;
pub(crate) mod target;
pub(crate) mod tiles;
