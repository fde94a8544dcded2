//! The backend that tests run on.
//!
//! It is flex, on the CPU. The cargo feature `test-cuda` puts burn's CUDA backend in its place,
//! `test-wgpu` its wgpu backend; of both the former is taken.
//!
//! Each test starts with `skip_without_device!()`. A test without its device says so and passes,
//! unless the environment variable `SWITCHABLE_QUANT_REQUIRE_CUDA` or `SWITCHABLE_QUANT_REQUIRE_WGPU`
//! is `1`: then it fails.

use burn::{
    backend::Autodiff,
    tensor::{Device, backend::DeviceId},
};

/// The backend under test.
#[cfg(feature = "test-cuda")]
pub type Plain = burn::backend::Cuda;
/// The backend under test.
#[cfg(all(feature = "test-wgpu", not(feature = "test-cuda")))]
pub type Plain = burn::backend::Wgpu;
/// The backend under test.
#[cfg(not(any(feature = "test-cuda", feature = "test-wgpu")))]
pub type Plain = burn::backend::Flex;

/// The same, with gradients.
pub type Training = Autodiff<Plain>;

/// The device under test.
pub fn device() -> Device<Plain> {
    Device::<Plain>::default()
}

/// Devices of the same backend beside the one under test: the processor has but itself, asked for twice more; with CUDA the
/// next one where there is one, with wgpu the processor as an adapter of its own.
pub fn further_devices() -> Vec<DeviceId> {
    #[cfg(feature = "test-cuda")]
    {
        let next = u16::from(std::path::Path::new("/dev/nvidia1").exists());
        vec![DeviceId { type_id: 0, index_id: next }]
    }
    #[cfg(all(feature = "test-wgpu", not(feature = "test-cuda")))]
    {
        use burn::tensor::backend::DeviceOps as _;
        vec![burn::backend::wgpu::WgpuDevice::Cpu.id()]
    }
    #[cfg(not(any(feature = "test-cuda", feature = "test-wgpu")))]
    {
        vec![DeviceId { type_id: 0, index_id: 1 }, DeviceId { type_id: 0, index_id: 2 }]
    }
}

/// Ends a test, as passed, where the device that the tests were built for is not there.
#[macro_export]
macro_rules! skip_without_device {
    () => {
        if !$crate::test_device::device_is_there() {
            return;
        }
    };
}

/// Repeats generic tests as `#[test]` functions on the backend under test, on ndarray, and on the
/// former with autodiff.
///
/// The crate that uses it has burn with the feature `ndarray`.
#[macro_export]
macro_rules! on_every_backend {
    ($($test:ident),+ $(,)?) => {
        mod plain {
            $(#[test] fn $test() { $crate::test_device::run_on_device(super::$test::<$crate::test_device::Plain>); })+
        }
        mod ndarray {
            $(#[test] fn $test() { super::$test::<burn::backend::NdArray>(); })+
        }
        mod autodiff {
            $(#[test] fn $test() { $crate::test_device::run_on_device(super::$test::<$crate::test_device::Training>); })+
        }
    };
}

/// Runs a test, unless its device is not there.
pub fn run_on_device(test: fn()) {
    skip_without_device!();
    test();
}

/// Whether the device is there. The CPU is.
#[cfg(not(any(feature = "test-cuda", feature = "test-wgpu")))]
pub fn device_is_there() -> bool {
    true
}

/// Whether the device is there.
///
/// # Panics
///
/// If it is not, and the environment requires it.
#[cfg(feature = "test-cuda")]
pub fn device_is_there() -> bool {
    // The driver's device files, on Linux and on WSL. Asked first: burn panics where there is none.
    let found = ["/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg"].iter().any(|path| std::path::Path::new(path).exists());
    found_or_required(found, "CUDA device", "SWITCHABLE_QUANT_REQUIRE_CUDA")
}

/// Whether the device is there.
///
/// # Panics
///
/// If it is not, and the environment requires it.
#[cfg(all(feature = "test-wgpu", not(feature = "test-cuda")))]
pub fn device_is_there() -> bool {
    use std::sync::OnceLock;

    use burn::{
        backend::wgpu::{
            WgpuRuntime,
            graphics::{AutoGraphicsApi, GraphicsApi},
        },
        cubecl::Runtime,
    };

    // Asked once, as it takes a while, and before the first tensor: burn panics where there is none.
    static ADAPTERS: OnceLock<usize> = OnceLock::new();
    let adapters = ADAPTERS.get_or_init(|| WgpuRuntime::enumerate_all_devices(&AutoGraphicsApi::backend()).len());
    found_or_required(*adapters > 0, "wgpu adapter", "SWITCHABLE_QUANT_REQUIRE_WGPU")
}

#[cfg(any(feature = "test-cuda", feature = "test-wgpu"))]
fn found_or_required(found: bool, what: &str, required_by: &str) -> bool {
    if !found {
        assert!(std::env::var_os(required_by).is_none_or(|value| value != "1"), "no {what}, and {required_by} is 1");
        println!("not run: no {what}");
    }
    found
}
