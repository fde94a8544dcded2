//! Kernels for the GPU backends of burn, written in `CubeCL`, which compiles them for CUDA, Vulkan,
//! Metal and WebGPU when they are first run.
//!
//! They compute what [`reference`](crate::tensor::reference) does, operation for operation, in f32; tensors
//! of f16 and bf16 are computed in f32 and rounded once, at the end. Where a device divides as
//! IEEE 754 says, the results are the same to the bit. CUDA does; Vulkan and WebGPU allow an error
//! of 2.5 units in the last place, by which a value that lies between two levels may go to the
//! other one.

#![expect(
    clippy::float_cmp,
    clippy::used_underscore_binding,
    reason = "rounding compares exactly, and kernels are written as the `cube` macro wants them"
)]

mod block_view;
pub(crate) mod choose_params;
mod extent;
pub(crate) mod fake_quantize;
pub(crate) mod resident_weight;
mod rounding;
mod unpack;

use burn_cubecl::{CubeRuntime, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::AddressType;

/// Scales and zero points.
#[derive(Debug, Clone)]
pub(crate) struct DeviceParams<R: CubeRuntime> {
    pub(crate) scale: CubeTensor<R>,
    /// For the asymmetric mapping.
    pub(crate) zero_point: Option<CubeTensor<R>>,
}

impl<R: CubeRuntime> DeviceParams<R> {
    fn into_contiguous(self) -> Self {
        Self { scale: into_contiguous(self.scale), zero_point: self.zero_point.map(into_contiguous) }
    }
}

/// The integers by which a kernel can index all of these tensors.
fn address_type<'a, R: CubeRuntime>(tensors: impl IntoIterator<Item = &'a CubeTensor<R>>) -> AddressType {
    tensors.into_iter().map(CubeTensor::required_address_type).max().unwrap_or_default()
}
