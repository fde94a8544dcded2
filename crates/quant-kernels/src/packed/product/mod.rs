//! Products of activations and packed weights.
//!
//! ```text
//! y = f(x·W + bias + adapter + addend)         x [rows, d_in],  W [d_in, d_out],  y [rows, d_out]
//! ```
//!
//! | activations | what is multiplied | file |
//! |---|---|---|
//! | 2 to 8 bits | integers, exactly | `integer` |
//! | bf16 | bf16 and codes as bf16, exactly | `half` |
//! | full precision | floats and widened codes | `weight_only` |

pub mod activations;
pub mod epilogue;
pub(crate) mod half;
pub(crate) mod integer;
pub(crate) mod multiply;
pub mod options;
pub(crate) mod pieces;
pub(crate) mod schedule;
pub(crate) mod scratch;
pub(crate) mod weight_only;
