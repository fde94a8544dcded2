//! The CubeCL kernels against the plain-tensor reference on the CPU.
//!
//! Without a GPU the same kernels run on a software driver such as lavapipe:
//!
//! ```text
//! VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json \
//!     cargo test -p quant-kernels --features wgpu --test cube
//! ```

mod cases;
mod devices;
mod division;
mod gradients;
mod layouts;
mod params;
mod precisions;
mod round_trips;
mod rounding;

use burn_cubecl::CubeBackend;

/// The backend of a runtime, as burn's `Cuda` and `Wgpu` are without fusion.
type Gpu<R> = CubeBackend<R, f32, i32, u32>;
