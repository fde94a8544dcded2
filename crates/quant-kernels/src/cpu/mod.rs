//! Kernels for the CPU, on slices of numbers and free of burn.
#![allow(clippy::inline_always, reason = "plain Rust is compiled anew for each instruction set of its callers")]

#[cfg(feature = "flex")]
mod attention;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod blocks;
pub(crate) mod elementary;
mod instruction_set;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod learned_step;
pub(crate) mod multiversion;
#[cfg(feature = "flex")]
mod parallel;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod round_trip;

#[cfg(feature = "flex")]
pub(crate) use attention::{AttentionShape, HeadStrides, Heads};
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) use blocks::{BlockParams, SliceQuantizer};
pub use instruction_set::InstructionSet;
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) use learned_step::StepKernel;
#[cfg(feature = "flex")]
pub(crate) use parallel::in_parallel;
