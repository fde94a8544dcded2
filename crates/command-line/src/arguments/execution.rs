//! How quantised weights are held and multiplied.

use clap::ValueEnum;

use switchable_quant::device::Device;
use switchable_quant::lora::Execution;

/// How quantised weights are held and multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExecutionArg {
    /// As codes of 2 to 8 bits, multiplied as they are
    Packed,
    /// As floats that were rounded to the levels of their width
    Simulated,
}

impl From<ExecutionArg> for Execution {
    fn from(execution: ExecutionArg) -> Self {
        match execution {
            ExecutionArg::Packed => Self::Packed,
            ExecutionArg::Simulated => Self::FakeQuantized,
        }
    }
}

/// What a device does unless it is told otherwise: packed on the CPU, simulated on a GPU.
pub fn default_execution(device: &Device) -> Execution {
    if device.is_cpu() { Execution::Packed } else { Execution::FakeQuantized }
}
