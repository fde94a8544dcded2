//! The machine that times and resident bytes are of.

use quant_kernels::cpu::instruction_set::InstructionSet;
use serde::{Deserialize, Serialize};

/// A machine, as far as it decides times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The name of the processor, where the system says it.
    pub processor: Option<String>,
    /// Architecture and system, such as `x86_64-linux`.
    pub target: String,
    /// The set of instructions that kernels run on.
    pub instructions: String,
    /// Threads that the system offers.
    pub threads: usize,
    /// The backend.
    pub backend: String,
}

impl Machine {
    /// The machine at hand.
    pub fn at_hand(backend: impl Into<String>) -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            processor: field(&info, "model name").map(str::to_owned),
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            instructions: InstructionSet::best().to_string(),
            threads: std::thread::available_parallelism().map_or(1, Into::into),
            backend: backend.into(),
        }
    }
}

/// Bytes of memory that a process holds, as the system counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resident {
    /// Once the model is loaded.
    pub loaded: u64,
    /// The most that there were at any time.
    pub peak: u64,
}

/// Memory that this process holds; `None` where the system does not say it.
pub fn resident_bytes() -> Option<Resident> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |name| Some(1024 * field(&status, name)?.strip_suffix(" kB")?.trim().parse::<u64>().ok()?);
    Some(Resident { loaded: bytes("VmRSS")?, peak: bytes("VmHWM")? })
}

/// The value of the first line `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_the_system_writes_them() {
        let text = "processor\t: 0\nmodel name\t: A Processor @ 2 GHz\nVmHWM:\t   12 kB\n";
        assert_eq!(field(text, "model name"), Some("A Processor @ 2 GHz"));
        assert_eq!(field(text, "VmHWM"), Some("12 kB"));
        assert_eq!(field(text, "VmRSS"), None);
        assert!(Machine::at_hand("cpu").threads > 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn bytes_that_are_touched_are_counted() {
        let before = resident_bytes().unwrap();
        let touched = vec![1u8; 64 << 20];
        let after = resident_bytes().unwrap();
        assert!(after.peak >= before.loaded + (60 << 20), "{before:?} {after:?}");
        assert_eq!(touched[touched.len() - 1], 1);
    }
}
