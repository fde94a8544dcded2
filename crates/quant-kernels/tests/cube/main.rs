//! The `CubeCL` kernels against the plain-tensor reference on the CPU.
//!
//! Without a GPU the same kernels run on a software driver such as lavapipe:
//!
//! ```text
//! VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json \
//!     cargo test -p quant-kernels --features autodiff,flex,wgpu --test cube
//! ```
//!
//! Results are equal to the bit, which rests on a device that divides and rounds as IEEE 754 says.
//! `division.rs` asks the device: where it fails, so may the others, by one level at ties.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cases;
mod devices;
mod division;
mod gradients;
mod layouts;
mod packed;
mod params;
mod precisions;
mod round_trips;
mod rounding;

use burn_cubecl::CubeBackend;

/// The backend of a runtime, as burn's `Cuda` and `Wgpu` are without fusion.
type Gpu<R> = CubeBackend<R, f32, i32, u32>;
