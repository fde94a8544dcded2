//! How quantised weights are held and products are computed.

use clap::{Args, ValueEnum};

use switchable_quant::device::Device;
use switchable_quant::kernels::QuantBackend;
use switchable_quant::lora::{Compute, Execution, LinearSettings};

use crate::ending::usage;

/// How quantised weights are held and products are computed.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ExecutionArgs {
    /// How quantised weights are held and multiplied: as codes, or as floats that were rounded; by default packed
    /// on a CPU, simulated on a GPU
    #[arg(long, value_enum, value_name = "packed|simulated")]
    pub execution: Option<ExecutionArg>,
    /// Numbers that products of floats, and of codes and floats, are computed in: bf16 is faster where the processor
    /// has products of it, and rounds activations to 8 bits of mantissa; f32 by default
    #[arg(long, value_enum, value_name = "f32|bf16")]
    pub compute: Option<ComputeArg>,
}

/// How quantised weights are held and multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExecutionArg {
    /// As codes of 2 to 8 bits, multiplied as they are
    Packed,
    /// As floats that were rounded to the levels of their width
    Simulated,
}

/// Numbers that products are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ComputeArg {
    /// 32 bits
    F32,
    /// Factors in bf16, sums in f32
    Bf16,
}

impl ExecutionArgs {
    /// As floats that were rounded to the levels of their width, multiplied in f32.
    pub const SIMULATED: Self = Self { execution: Some(ExecutionArg::Simulated), compute: None };

    /// Refuses products of bf16 for a reason.
    ///
    /// # Errors
    ///
    /// When they are asked for.
    pub fn refuse_bf16(self, why: &str) -> anyhow::Result<()> {
        match self.compute {
            Some(ComputeArg::Bf16) => Err(usage(format!("`--compute bf16` is of no use here: {why}"))),
            Some(ComputeArg::F32) | None => Ok(()),
        }
    }

    /// The settings of layers on a device: packed on the CPU and simulated on a GPU where nothing else is said. Says on
    /// standard error where products of bf16 are asked for that the device does not have.
    pub fn settings<B: QuantBackend>(self, linear: LinearSettings, machine: &Device) -> LinearSettings {
        let execution = match self.execution {
            Some(ExecutionArg::Packed) => Execution::Packed,
            None if machine.is_cpu() => Execution::Packed,
            Some(ExecutionArg::Simulated) | None => Execution::FakeQuantized,
        };
        let compute = match self.compute {
            Some(ComputeArg::Bf16) if B::multiplies_bf16() => Compute::Bf16,
            Some(ComputeArg::Bf16) => {
                eprintln!("compute    f32 all the same: {machine} has no products of bf16 here");
                Compute::F32
            }
            Some(ComputeArg::F32) | None => Compute::F32,
        };
        LinearSettings { execution, compute, ..linear }
    }
}
