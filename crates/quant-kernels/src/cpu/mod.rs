//! Kernels for the CPU, on slices of numbers and free of burn.

mod attention;
mod blocks;
pub(crate) mod elementary;
mod instruction_set;
mod multiversion;
mod round_trip;

pub(crate) use attention::{AttentionShape, HeadStrides, Heads};
pub(crate) use blocks::{BlockParams, SliceQuantizer};
pub use instruction_set::InstructionSet;
