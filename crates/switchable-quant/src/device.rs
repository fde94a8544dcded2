//! The device that a program runs on, chosen at run time.
//!
//! A backend is a type, a command-line flag is a text, and [`DeviceChoice`] leads from one to the
//! other: parse it, [`dispatch`](DeviceChoice::dispatch) a [`WithBackend`] task on it, and the
//! task's `run` is called with the right backend as its type parameter.
//!
//! | text | runs on | cargo feature |
//! |---|---|---|
//! | `auto` | the first CUDA device if there is one, else the CPU | |
//! | `cpu` | the CPU by burn's flex | `flex` |
//! | `ndarray` | the CPU by burn's ndarray | `ndarray` |
//! | `cuda`, `cuda:N` | CUDA device 0, or N | `cuda` |
//! | `wgpu` | the GPU that the graphics driver puts first | `wgpu` |
//!
//! burn panics where a driver is missing. Here the driver is asked first, and its absence is an
//! [`Error`].
//!
//! ```
//! use switchable_quant::burn::tensor::Tensor;
//! use switchable_quant::device::{DeviceChoice, WithBackend};
//! use switchable_quant::kernels::QuantBackend;
//!
//! struct Sum([f32; 3]);
//!
//! impl WithBackend for Sum {
//!     type Output = f32;
//!
//!     fn run<B: QuantBackend>(self, device: B::Device) -> f32 {
//!         let values = Tensor::<B, 1>::from_floats(self.0, &device);
//!         values.sum().into_scalar().elem()
//!     }
//! }
//! # use switchable_quant::burn::tensor::ElementConversion;
//!
//! let device: DeviceChoice = "auto".parse()?;
//! eprintln!("running on {}", device.describe()?);
//! assert_eq!(device.dispatch(Sum([1.0, 2.0, 3.0]))?, 6.0);
//! # Ok::<(), switchable_quant::Error>(())
//! ```

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

#[cfg(feature = "experiments")]
use burn::tensor::backend::DeviceId;
#[cfg(all(feature = "experiments", feature = "cuda"))]
use burn::tensor::backend::DeviceOps as _;
use serde::{Deserialize, Serialize};

#[cfg(feature = "experiments")]
use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use quant_kernels::backends::quant_backend::QuantBackend;
use quant_kernels::cpu::instruction_set::InstructionSet;

#[cfg(any(feature = "flex", feature = "ndarray", feature = "cuda", feature = "wgpu"))]
use crate::backend;
#[cfg(feature = "cuda")]
use crate::cuda_driver;
use crate::error::{Error, Result};

/// Work that is written once for every backend.
pub trait WithBackend {
    /// What the work gives back. It does not depend on the backend.
    type Output;

    /// Does the work on `device`.
    fn run<B: QuantBackend>(self, device: B::Device) -> Self::Output;
}

/// Work that is written once for every backend and needs gradients.
#[cfg(feature = "experiments")]
pub trait WithAutodiff {
    /// What the work gives back. It does not depend on the backend.
    type Output;

    /// Does the work on `device`. `B` records gradients; `B::InnerBackend` does not.
    fn run<B: QuantAutodiffBackend>(self, device: B::Device) -> Self::Output;
}

/// The device that a user asked for, by `--device`.
///
/// Every choice can be named in every build; [`resolve`](Self::resolve) says whether the build and
/// the machine have it.
///
/// ```
/// use switchable_quant::device::DeviceChoice;
///
/// assert_eq!("cuda:1".parse::<DeviceChoice>()?, DeviceChoice::Cuda(1));
/// assert_eq!(DeviceChoice::default().to_string(), "auto");
/// assert!("gpu".parse::<DeviceChoice>().is_err());
/// # Ok::<(), switchable_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first CUDA device if the build and the machine have one, else the CPU.
    #[default]
    Auto,
    /// The CPU, by burn's flex.
    Cpu,
    /// The CPU, by burn's ndarray.
    NdArray,
    /// The CUDA device of this number.
    Cuda(usize),
    /// The GPU that the graphics driver puts first.
    Wgpu,
}

impl DeviceChoice {
    /// Looks for the device.
    ///
    /// # Errors
    ///
    /// - [`Error::NotBuilt`]: this build lacks the backend; the message names the cargo feature
    /// - [`Error::NoBackend`]: `auto` in a build without any
    /// - [`Error::CudaDriver`], [`Error::CudaDevice`], [`Error::CudaToolkit`]: CUDA was asked for
    ///   and does not answer
    /// - [`Error::WgpuAdapter`]: wgpu was asked for and no adapter answers
    /// - [`Error::Kernels`]: `SWITCHABLE_QUANT_INSTRUCTIONS` names no set of instructions, or one that the
    ///   processor lacks
    pub fn resolve(self) -> Result<Device> {
        InstructionSet::chosen()?;
        match self {
            Self::Auto => automatic(),
            Self::Cpu => flex(),
            Self::NdArray => ndarray(),
            Self::Cuda(index) => cuda(index),
            Self::Wgpu => wgpu(),
        }
    }

    /// Runs `task` on the device.
    ///
    /// # Errors
    ///
    /// Those of [`resolve`](Self::resolve). `task`'s own failures are in its output.
    pub fn dispatch<T: WithBackend>(self, task: T) -> Result<T::Output> {
        Ok(self.resolve()?.dispatch(task))
    }

    /// Runs `task`, which needs gradients, on the device.
    ///
    /// # Errors
    ///
    /// Those of [`resolve`](Self::resolve). `task`'s own failures are in its output.
    #[cfg(feature = "experiments")]
    pub fn dispatch_autodiff<T: WithAutodiff>(self, task: T) -> Result<T::Output> {
        Ok(self.resolve()?.dispatch_autodiff(task))
    }

    /// What the device is, for logs, such as `cpu (flex, 8 threads)`.
    ///
    /// # Errors
    ///
    /// Those of [`resolve`](Self::resolve).
    pub fn describe(self) -> Result<String> {
        Ok(self.resolve()?.to_string())
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::NdArray => f.write_str("ndarray"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Wgpu => f.write_str("wgpu"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::UnknownDevice { got: text.to_owned() };
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "ndarray" => Ok(Self::NdArray),
            "cuda" => Ok(Self::Cuda(0)),
            "wgpu" => Ok(Self::Wgpu),
            _ => {
                let index = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                // `parse` alone would take a sign.
                if index.bytes().all(|byte| byte.is_ascii_digit()) {
                    index.parse().map(Self::Cuda).map_err(|_| unknown())
                } else {
                    Err(unknown())
                }
            }
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

/// A device that answered.
///
/// Its `Display` says what it is, for logs: `cpu (flex, 8 threads)`,
/// `cuda:0 (NVIDIA H200, 139.8 GiB)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    target: Target,
    description: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    #[cfg(feature = "flex")]
    Flex,
    #[cfg(feature = "ndarray")]
    NdArray,
    #[cfg(feature = "cuda")]
    Cuda(usize),
    #[cfg(feature = "wgpu")]
    Wgpu,
}

impl Device {
    /// Runs `task` on this device.
    #[cfg_attr(
        not(any(feature = "flex", feature = "ndarray", feature = "cuda", feature = "wgpu")),
        expect(unused_variables, clippy::needless_pass_by_value, reason = "a build without backends has no device")
    )]
    pub fn dispatch<T: WithBackend>(&self, task: T) -> T::Output {
        match self.target {
            #[cfg(feature = "flex")]
            Target::Flex => task.run::<backend::Flex>(backend::FlexDevice),
            #[cfg(feature = "ndarray")]
            Target::NdArray => task.run::<backend::NdArray>(backend::NdArrayDevice::Cpu),
            #[cfg(feature = "cuda")]
            Target::Cuda(index) => task.run::<backend::Cuda>(backend::CudaDevice::new(index)),
            #[cfg(feature = "wgpu")]
            Target::Wgpu => task.run::<backend::Wgpu>(backend::WgpuDevice::DefaultDevice),
        }
    }

    /// Runs `task`, which needs gradients, on this device.
    #[cfg(feature = "experiments")]
    #[cfg_attr(
        not(any(feature = "flex", feature = "ndarray", feature = "cuda", feature = "wgpu")),
        expect(unused_variables, clippy::needless_pass_by_value, reason = "a build without backends has no device")
    )]
    pub fn dispatch_autodiff<T: WithAutodiff>(&self, task: T) -> T::Output {
        match self.target {
            #[cfg(feature = "flex")]
            Target::Flex => task.run::<backend::Autodiff<backend::Flex>>(backend::FlexDevice),
            #[cfg(feature = "ndarray")]
            Target::NdArray => task.run::<backend::Autodiff<backend::NdArray>>(backend::NdArrayDevice::Cpu),
            #[cfg(feature = "cuda")]
            Target::Cuda(index) => task.run::<backend::Autodiff<backend::Cuda>>(backend::CudaDevice::new(index)),
            #[cfg(feature = "wgpu")]
            Target::Wgpu => task.run::<backend::Autodiff<backend::Wgpu>>(backend::WgpuDevice::DefaultDevice),
        }
    }

    /// How burn calls this device, for work that it shares with `first`; nothing where it is of another backend or is
    /// `first` itself.
    #[cfg(feature = "experiments")]
    pub fn id_beside(&self, first: &Self) -> Option<DeviceId> {
        match (self.target, first.target) {
            #[cfg(feature = "cuda")]
            (Target::Cuda(index), Target::Cuda(other)) if index != other => Some(backend::CudaDevice::new(index).id()),
            _ => None,
        }
    }

    /// Whether it computes on the processor.
    pub fn is_cpu(&self) -> bool {
        match self.target {
            #[cfg(feature = "flex")]
            Target::Flex => true,
            #[cfg(feature = "ndarray")]
            Target::NdArray => true,
            #[cfg(feature = "cuda")]
            Target::Cuda(_) => false,
            #[cfg(feature = "wgpu")]
            Target::Wgpu => false,
        }
    }

    /// How many threads of the program may work on this device at the same time with a profit.
    ///
    /// On the CPU as many as it runs at once, for evaluations that each keep one thread busy. On a
    /// GPU one: its work is queued in order.
    pub fn worker_threads(&self) -> NonZeroUsize {
        match self.target {
            #[cfg(feature = "flex")]
            Target::Flex => cpu_threads(),
            #[cfg(feature = "ndarray")]
            Target::NdArray => cpu_threads(),
            #[cfg(feature = "cuda")]
            Target::Cuda(_) => NonZeroUsize::MIN,
            #[cfg(feature = "wgpu")]
            Target::Wgpu => NonZeroUsize::MIN,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)
    }
}

fn automatic() -> Result<Device> {
    #[cfg(feature = "cuda")]
    if let Ok(device) = cuda(0) {
        return Ok(device);
    }
    if cfg!(feature = "flex") {
        flex()
    } else if cfg!(feature = "ndarray") {
        ndarray()
    } else if cfg!(feature = "cuda") {
        cuda(0)
    } else if cfg!(feature = "wgpu") {
        wgpu()
    } else {
        Err(Error::NoBackend)
    }
}

#[cfg(feature = "flex")]
#[expect(clippy::unnecessary_wraps, reason = "a build without flex returns an error here")]
fn flex() -> Result<Device> {
    Ok(Device { target: Target::Flex, description: format!("cpu (flex, {})", threads()) })
}

#[cfg(not(feature = "flex"))]
fn flex() -> Result<Device> {
    Err(Error::NotBuilt { device: DeviceChoice::Cpu, feature: "flex" })
}

#[cfg(feature = "ndarray")]
#[expect(clippy::unnecessary_wraps, reason = "a build without ndarray returns an error here")]
fn ndarray() -> Result<Device> {
    Ok(Device { target: Target::NdArray, description: format!("cpu (ndarray, {})", threads()) })
}

#[cfg(not(feature = "ndarray"))]
fn ndarray() -> Result<Device> {
    Err(Error::NotBuilt { device: DeviceChoice::NdArray, feature: "ndarray" })
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device> {
    let devices = cuda_driver::devices()?;
    let device = devices.get(index).ok_or(Error::CudaDevice { index, count: devices.len() })?;
    cuda_driver::check_kernel_compiler()?;
    if backend::cuda_toolkit().is_none() {
        return Err(Error::CudaToolkit { missing: "the toolkit's folder" });
    }
    Ok(Device { target: Target::Cuda(index), description: format!("cuda:{index} ({device})") })
}

#[cfg(not(feature = "cuda"))]
fn cuda(index: usize) -> Result<Device> {
    Err(Error::NotBuilt { device: DeviceChoice::Cuda(index), feature: "cuda" })
}

#[cfg(feature = "wgpu")]
fn wgpu() -> Result<Device> {
    if backend::wgpu_adapters() == 0 {
        return Err(Error::WgpuAdapter);
    }
    Ok(Device { target: Target::Wgpu, description: "wgpu (default adapter)".to_owned() })
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> Result<Device> {
    Err(Error::NotBuilt { device: DeviceChoice::Wgpu, feature: "wgpu" })
}

#[cfg(any(feature = "flex", feature = "ndarray"))]
fn cpu_threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

#[cfg(any(feature = "flex", feature = "ndarray"))]
fn threads() -> String {
    match cpu_threads().get() {
        1 => "1 thread".to_owned(),
        n => format!("{n} threads"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct BackendName;

    impl WithBackend for BackendName {
        type Output = String;

        fn run<B: QuantBackend>(self, device: B::Device) -> String {
            B::name(&device)
        }
    }

    #[cfg(feature = "experiments")]
    impl WithAutodiff for BackendName {
        type Output = String;

        fn run<B: QuantAutodiffBackend>(self, device: B::Device) -> String {
            B::name(&device)
        }
    }

    #[test]
    fn every_choice_survives_its_own_text() {
        for choice in [
            DeviceChoice::Auto,
            DeviceChoice::Cpu,
            DeviceChoice::NdArray,
            DeviceChoice::Cuda(0),
            DeviceChoice::Cuda(12),
            DeviceChoice::Wgpu,
        ] {
            assert_eq!(choice.to_string().parse::<DeviceChoice>().unwrap(), choice);
            let json = serde_json::to_string(&choice).unwrap();
            assert_eq!(json, format!("\"{choice}\""));
            assert_eq!(serde_json::from_str::<DeviceChoice>(&json).unwrap(), choice);
        }
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
    }

    #[test]
    fn a_text_that_names_no_device_is_an_error_with_the_choices() {
        for text in ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:+1", "cuda:one", "cuda:1.0"] {
            let message = text.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(message.contains(&format!("`{text}`")), "{message}");
            assert!(message.contains("auto, cpu, ndarray, cuda, cuda:N or wgpu"), "{message}");
        }
        // More digits than a number holds.
        assert!("cuda:99999999999999999999999".parse::<DeviceChoice>().is_err());
    }

    #[cfg(feature = "flex")]
    #[test]
    fn cpu_runs_flex_and_says_so() {
        let device = DeviceChoice::Cpu.resolve().unwrap();
        assert_eq!(device.worker_threads(), cpu_threads());
        assert!(device.to_string().starts_with("cpu (flex, "), "{device}");
        assert_eq!(device.dispatch(BackendName), "flex");
        #[cfg(feature = "experiments")]
        assert_eq!(device.dispatch_autodiff(BackendName), "autodiff<flex>");
    }

    #[cfg(feature = "ndarray")]
    #[test]
    fn ndarray_runs_ndarray_and_says_so() {
        let device = DeviceChoice::NdArray.resolve().unwrap();
        assert!(device.to_string().starts_with("cpu (ndarray, "), "{device}");
        assert_eq!(device.dispatch(BackendName), "ndarray");
        #[cfg(feature = "experiments")]
        assert_eq!(device.dispatch_autodiff(BackendName), "autodiff<ndarray>");
    }

    #[cfg(any(feature = "flex", feature = "ndarray"))]
    #[test]
    fn auto_always_finds_a_device_where_a_cpu_backend_is_built_in() {
        let device = DeviceChoice::Auto.resolve().unwrap();
        let cuda = DeviceChoice::Cuda(0).resolve();
        assert_eq!(device.to_string().starts_with("cuda:0"), cuda.is_ok(), "{device}");
        assert_eq!(DeviceChoice::Auto.describe().unwrap(), device.to_string());
    }

    #[test]
    fn a_backend_that_is_not_built_in_is_an_error_that_names_its_feature() {
        let built = [
            (DeviceChoice::Cpu, "flex", cfg!(feature = "flex")),
            (DeviceChoice::NdArray, "ndarray", cfg!(feature = "ndarray")),
            (DeviceChoice::Cuda(3), "cuda", cfg!(feature = "cuda")),
            (DeviceChoice::Wgpu, "wgpu", cfg!(feature = "wgpu")),
        ];
        for (choice, feature, built) in built {
            if built {
                continue;
            }
            let message = choice.dispatch(BackendName).unwrap_err().to_string();
            assert!(message.contains(&format!("`{choice}`")), "{message}");
            assert!(message.contains(&format!("--features {feature}")), "{message}");
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_cuda_number_past_the_last_is_an_error() {
        // With or without a driver: no machine has this many.
        let error = DeviceChoice::Cuda(100_000).resolve().unwrap_err();
        assert!(matches!(error, Error::CudaDevice { index: 100_000, .. } | Error::CudaDriver { .. }), "{error}");
    }

    #[cfg(feature = "wgpu")]
    #[test]
    fn wgpu_answers_or_says_that_no_adapter_does() {
        match DeviceChoice::Wgpu.resolve() {
            Ok(device) => assert_eq!(device.worker_threads(), NonZeroUsize::MIN),
            Err(error) => assert!(matches!(error, Error::WgpuAdapter), "{error}"),
        }
    }
}
