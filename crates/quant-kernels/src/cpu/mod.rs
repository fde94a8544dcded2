//! Kernels for the CPU, on slices of numbers and free of burn.

mod instruction_set;

pub use instruction_set::InstructionSet;
