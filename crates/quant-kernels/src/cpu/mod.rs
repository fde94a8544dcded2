//! Kernels for the CPU, on slices of numbers and free of burn.

mod blocks;
mod instruction_set;
mod multiversion;
mod round_trip;

pub(crate) use blocks::{BlockParams, SliceQuantizer};
pub use instruction_set::InstructionSet;
