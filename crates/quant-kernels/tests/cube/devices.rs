//! The GPU devices that this build and this machine have.
//!
//! A test without a device says so and passes, unless the environment variable
//! `SWITCHABLE_QUANT_REQUIRE_WGPU` or `SWITCHABLE_QUANT_REQUIRE_CUDA` is `1`.

#[cfg(feature = "cuda")]
pub(crate) use burn::backend::cuda::CudaDevice;
#[cfg(feature = "wgpu")]
pub(crate) use burn::backend::wgpu::WgpuDevice;

/// Calls a function that is generic over the runtime with each device: `check::<R>(&device)`.
macro_rules! on_every_gpu {
    ($check:ident) => {
        #[cfg(feature = "wgpu")]
        if let Some(device) = crate::devices::wgpu() {
            $check::<burn::backend::wgpu::WgpuRuntime>(&device);
        }
        #[cfg(feature = "cuda")]
        if let Some(device) = crate::devices::cuda() {
            $check::<cubecl::cuda::CudaRuntime>(&device);
        }
    };
}

pub(crate) use on_every_gpu;

/// The adapter that burn takes by default.
#[cfg(feature = "wgpu")]
pub(crate) fn wgpu() -> Option<WgpuDevice> {
    use burn::backend::wgpu::{
        WgpuRuntime,
        graphics::{AutoGraphicsApi, GraphicsApi},
    };
    use cubecl::Runtime;

    // Asked first: burn panics where there is none.
    let adapters = WgpuRuntime::enumerate_all_devices(&AutoGraphicsApi::backend()).len();
    found(adapters > 0, "wgpu adapter", "SWITCHABLE_QUANT_REQUIRE_WGPU").then(WgpuDevice::default)
}

/// The first CUDA device.
#[cfg(feature = "cuda")]
pub(crate) fn cuda() -> Option<CudaDevice> {
    use std::path::Path;

    // The driver's device files, on Linux and on WSL.
    let found_file = ["/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg"].iter().any(|path| Path::new(path).exists());
    found(found_file, "CUDA device", "SWITCHABLE_QUANT_REQUIRE_CUDA").then(CudaDevice::default)
}

fn found(found: bool, what: &str, required_by: &str) -> bool {
    if !found {
        assert!(std::env::var_os(required_by).is_none_or(|value| value != "1"), "no {what}, and {required_by} is 1");
        println!("not run: no {what}");
    }
    found
}
