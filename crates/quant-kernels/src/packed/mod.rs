//! Weights that stay packed at 2 to 8 bits, in memory and on disk, and their products.
//!
//! ```text
//! w = (u − z) · s          u: code of b bits,  s: scale,  z: zero point
//! y = x · W                computed from the codes: no copy of W in floats is ever resident
//! ```
//!
//! | concept | file |
//! |---|---|
//! | the weights and what they are | `packed_tensor` |
//! | where each bit stands | `layout` |
//! | numbers of the scales | `scales` |
//! | 8-bit weights that serve every lower width | `nested` |
//! | files | `file` |
//! | products | `product` |
//! | copies on GPUs | `device_copies` |
#![expect(clippy::inline_always, reason = "plain Rust is compiled anew for each instruction set of its callers")]

mod dequantize;
#[cfg(feature = "cube")]
mod device_copies;
mod file;
mod grid;
mod layout;
mod nested;
mod packed_tensor;
mod product;
mod scales;
mod storage;
mod view;
mod widen;

pub use file::{PackedFile, PackedFileWriter, PlainData, PlainFormat, PlainTensor};
pub use nested::{NestedTensor, NestedView};
pub use packed_tensor::{PackedSpec, PackedTensor};
pub use product::{ActivationBits, Epilogue, LowRankTerm, OutputFunction, Product};
pub use scales::ScaleFormat;
