//! The burn backends, each behind the cargo feature of its name.
//!
//! This file and the kernels of `quant-kernels` are the only ones of the workspace's libraries that
//! name a backend. All else is generic over `QuantBackend`, so another backend of burn needs nothing
//! from here.
//!
//! | feature | type | runs on |
//! |---|---|---|
//! | `flex` (default) | `Flex` | CPU, with the widest vector instructions that the machine has |
//! | `ndarray` | `NdArray` | CPU |
//! | `cuda` | `Cuda` | NVIDIA GPUs |
//! | `wgpu` | `Wgpu` | GPUs by Vulkan, Metal or DirectX 12 |
//!
//! `Autodiff` around any of them records gradients; training needs it, and the feature `experiments`
//! brings it.

#[cfg(feature = "experiments")]
pub use burn::backend::Autodiff;

#[cfg(feature = "flex")]
pub use burn::backend::{Flex, flex::FlexDevice};

#[cfg(feature = "ndarray")]
pub use burn::backend::{NdArray, ndarray::NdArrayDevice};

#[cfg(feature = "cuda")]
pub use burn::backend::{Cuda, cuda::CudaDevice};

#[cfg(feature = "wgpu")]
pub use burn::backend::{Wgpu, wgpu::WgpuDevice};

/// The CPU backend of this build: `Flex`, or `NdArray` where only that is built in.
#[cfg(feature = "flex")]
pub type Cpu = Flex;

/// The device of [`Cpu`].
#[cfg(feature = "flex")]
pub type CpuDevice = FlexDevice;

/// The CPU backend of this build: `Flex`, or `NdArray` where only that is built in.
#[cfg(all(feature = "ndarray", not(feature = "flex")))]
pub type Cpu = NdArray;

/// The device of [`Cpu`].
#[cfg(all(feature = "ndarray", not(feature = "flex")))]
pub type CpuDevice = NdArrayDevice;

/// The folder of the CUDA toolkit whose headers burn hands to its kernel compiler.
#[cfg(feature = "cuda")]
pub(crate) fn cuda_toolkit() -> Option<std::path::PathBuf> {
    burn::cubecl::cuda::install::cuda_path()
}

/// The number of adapters that wgpu finds behind the graphics interface that burn uses.
#[cfg(feature = "wgpu")]
pub(crate) fn wgpu_adapters() -> usize {
    use burn::backend::wgpu::{
        WgpuRuntime,
        graphics::{AutoGraphicsApi, GraphicsApi},
    };
    use burn::cubecl::Runtime;

    WgpuRuntime::enumerate_all_devices(&AutoGraphicsApi::backend()).len()
}
