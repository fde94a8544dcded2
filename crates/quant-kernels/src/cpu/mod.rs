//! Kernels for the CPU, on slices of numbers and free of burn.
#![allow(clippy::inline_always, reason = "plain Rust is compiled anew for each instruction set of its callers")]

#[cfg(feature = "flex")]
pub(crate) mod attention;
pub(crate) mod bf16;
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) mod blocks;
pub(crate) mod elementary;
pub mod instruction_set;
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) mod learned_step;
pub(crate) mod multiversion;
#[cfg(feature = "flex")]
pub(crate) mod parallel;
pub(crate) mod range_search;
pub(crate) mod rotary;
pub(crate) mod rotation;
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) mod round_trip;
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) mod table_round_trip;
