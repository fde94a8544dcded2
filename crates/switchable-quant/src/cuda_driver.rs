//! The CUDA driver, asked whether it is there.
//!
//! burn loads the driver when a tensor is first made and panics if that fails. This file loads
//! `libcuda.so.1` (`nvcuda.dll`) itself, and asks for the devices, so that the answer is an error
//! that a program can print.

#![expect(unsafe_code, reason = "the driver is a C library, loaded at run time")]

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::fmt;
use std::sync::OnceLock;

use libloading::{Library, Symbol};

use crate::error::{Error, Result};

#[cfg(windows)]
const DRIVER: &[&str] = &["nvcuda.dll"];
#[cfg(not(windows))]
const DRIVER: &[&str] = &["libcuda.so.1", "libcuda.so"];

/// The run-time compiler by which burn builds its kernels, by the names under which burn looks.
#[cfg(windows)]
const COMPILER: &[&str] = &["nvrtc.dll", "nvrtc64_130_0.dll", "nvrtc64_120_0.dll"];
#[cfg(not(windows))]
const COMPILER: &[&str] = &["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11", "libnvrtc.so.1"];

type Status = c_int;
type Handle = c_int;

const SUCCESS: Status = 0;

/// A device as the driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CudaInfo {
    name: String,
    memory_bytes: usize,
}

impl fmt::Display for CudaInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = self.memory_bytes as f64 / f64::from(1 << 30);
        write!(f, "{}, {gib:.1} GiB", self.name)
    }
}

/// The CUDA devices of this machine, at least one, in the driver's order.
///
/// # Errors
///
/// [`Error::CudaDriver`] if there is no driver, or it reports a failure or no device.
pub(crate) fn devices() -> Result<&'static [CudaInfo]> {
    static DEVICES: OnceLock<Result<Vec<CudaInfo>, String>> = OnceLock::new();
    match DEVICES.get_or_init(|| ask(DRIVER)) {
        Ok(devices) => Ok(devices),
        Err(reason) => Err(Error::CudaDriver { reason: reason.clone() }),
    }
}

/// Looks for the run-time compiler, without which burn can build no kernel.
///
/// # Errors
///
/// [`Error::CudaToolkit`] if it cannot be loaded.
pub(crate) fn check_kernel_compiler() -> Result<()> {
    let library = load(COMPILER).map_err(|_| Error::CudaToolkit { missing: "its run-time compiler (libnvrtc)" })?;
    std::mem::forget(library);
    Ok(())
}

fn load(names: &[&str]) -> Result<Library, String> {
    let mut reason = String::new();
    for name in names {
        // SAFETY: the names are those of NVIDIA's own libraries, whose initialisers do nothing
        // that the process has to prepare for.
        match unsafe { Library::new(*name) } {
            Ok(library) => return Ok(library),
            Err(error) if reason.is_empty() => reason = format!("{name}: {error}"),
            Err(_) => {}
        }
    }
    Err(reason)
}

fn ask(names: &[&str]) -> Result<Vec<CudaInfo>, String> {
    let library = load(names)?;
    let devices = Driver { library: &library }.devices();
    // The driver starts threads and exit handlers that must not outlive its code.
    std::mem::forget(library);
    devices
}

struct Driver<'a> {
    library: &'a Library,
}

impl Driver<'_> {
    fn devices(&self) -> Result<Vec<CudaInfo>, String> {
        // SAFETY: these are the signatures that the driver documents for these names.
        let (init, count_devices) = unsafe {
            (
                self.function::<unsafe extern "C" fn(c_uint) -> Status>("cuInit")?,
                self.function::<unsafe extern "C" fn(*mut c_int) -> Status>("cuDeviceGetCount")?,
            )
        };
        // SAFETY: 0 is the only flag that `cuInit` knows, and it may be called at any time.
        self.check("cuInit", unsafe { init(0) })?;
        let mut count = 0;
        // SAFETY: `count` is a valid place for one integer.
        self.check("cuDeviceGetCount", unsafe { count_devices(&raw mut count) })?;
        if count < 1 {
            return Err("the driver reports no device".to_owned());
        }
        (0..count).map(|ordinal| self.device(ordinal)).collect()
    }

    fn device(&self, ordinal: c_int) -> Result<CudaInfo, String> {
        // SAFETY: these are the signatures that the driver documents for these names.
        let (get, name_of, memory_of) = unsafe {
            (
                self.function::<unsafe extern "C" fn(*mut Handle, c_int) -> Status>("cuDeviceGet")?,
                self.function::<unsafe extern "C" fn(*mut c_char, c_int, Handle) -> Status>("cuDeviceGetName")?,
                self.function::<unsafe extern "C" fn(*mut usize, Handle) -> Status>("cuDeviceTotalMem_v2")?,
            )
        };
        let mut handle = 0;
        // SAFETY: `handle` is a valid place for one handle.
        self.check("cuDeviceGet", unsafe { get(&raw mut handle, ordinal) })?;
        let mut name = [0_u8; 256];
        // SAFETY: `name` has the length given, and the driver ends the text with a zero in it.
        let status = unsafe { name_of(name.as_mut_ptr().cast(), name.len() as c_int, handle) };
        self.check("cuDeviceGetName", status)?;
        let mut memory_bytes = 0;
        // SAFETY: `memory_bytes` is a valid place for one size.
        self.check("cuDeviceTotalMem_v2", unsafe { memory_of(&raw mut memory_bytes, handle) })?;
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
        Ok(CudaInfo { name: name.to_string_lossy().into_owned(), memory_bytes })
    }

    /// # Safety
    ///
    /// `F` must be the type of the function of this name.
    unsafe fn function<F>(&self, name: &str) -> Result<Symbol<'_, F>, String> {
        // SAFETY: promised by the caller.
        unsafe { self.library.get(name.as_bytes()) }
            .map_err(|error| format!("the driver has no function {name}: {error}"))
    }

    fn check(&self, function: &str, status: Status) -> Result<(), String> {
        if status == SUCCESS {
            return Ok(());
        }
        let meaning = self.meaning(status).unwrap_or_else(|| "unknown error".to_owned());
        Err(format!("{function} answers error {status}: {meaning}"))
    }

    /// The driver's own text for a status.
    fn meaning(&self, status: Status) -> Option<String> {
        // SAFETY: this is the signature that the driver documents for this name.
        let text_of =
            unsafe { self.function::<unsafe extern "C" fn(Status, *mut *const c_char) -> Status>("cuGetErrorString") }
                .ok()?;
        let mut text = std::ptr::null();
        // SAFETY: `text` is a valid place for one pointer.
        let known = unsafe { text_of(status, &raw mut text) } == SUCCESS;
        if !known || text.is_null() {
            return None;
        }
        // SAFETY: on success the driver points to a text of its own that ends with a zero.
        Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_driver_is_an_error_that_names_its_file() {
        let reason = ask(&["libcuda-that-is-not-there.so.1"]).unwrap_err();
        assert!(reason.contains("libcuda-that-is-not-there.so.1"), "{reason}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_library_that_is_no_driver_is_an_error_that_names_the_function() {
        let reason = ask(&["libc.so.6"]).unwrap_err();
        assert!(reason.contains("cuInit"), "{reason}");
    }

    #[test]
    fn asking_twice_gives_the_same_answer_and_never_panics() {
        let texts = [devices(), devices()].map(|answer| match answer {
            Ok(devices) => {
                assert!(!devices.is_empty());
                devices.iter().map(CudaInfo::to_string).collect::<Vec<_>>().join("; ")
            }
            Err(error) => error.to_string(),
        });
        assert_eq!(texts[0], texts[1]);
        let compiler = check_kernel_compiler();
        assert_eq!(compiler.is_ok(), load(COMPILER).is_ok());
    }

    #[test]
    fn memory_is_shown_in_gib() {
        let info = CudaInfo { name: "Example".to_owned(), memory_bytes: 3 << 29 };
        assert_eq!(info.to_string(), "Example, 1.5 GiB");
    }
}
