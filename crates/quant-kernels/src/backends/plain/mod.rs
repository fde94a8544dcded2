//! The operations in plain tensor operations: the defaults of every backend.
//!
//! | what | file |
//! |---|---|
//! | scales, zero points, values and clipped gradients | `quantisation` |
//! | the range that scales follow from | `ranges` |
//! | quantisation by learned steps | `learned_step` |
//! | packed weights | `packed` |
//! | rotations | `rotation` |
//! | GELU | `gelu` |
//! | attention | `attention` |
//! | rotary positions | `rotary` |
//! | tensors seen as matrices, as blocks, and their levels | `matrices`, `blocks`, `levels` |
//! | tensors of 16 bits in f32 | `precision` |

pub(crate) mod attention;
pub(crate) mod blocks;
pub(crate) mod gelu;
pub(crate) mod learned_step;
pub(crate) mod levels;
pub(crate) mod matrices;
pub(crate) mod packed;
pub(crate) mod precision;
pub(crate) mod quantisation;
pub(crate) mod ranges;
pub(crate) mod rotary;
pub(crate) mod rotation;
