//! The vector instructions of the processor that the program runs on.

use std::sync::OnceLock;

/// A set of vector instructions that a kernel is compiled for.
///
/// Kernels are compiled once for each set that the target architecture may have, and the best one
/// that the processor has is chosen at run time. All of them give the same numbers.
///
/// | variant | needs | where |
/// |---|---|---|
/// | `Portable` | nothing: what the compiler makes of plain Rust, which is NEON on AArch64 | everywhere |
/// | `Avx2` | AVX2, FMA | x86-64 |
/// | `Avx512` | AVX-512 F, BW, DQ, VL | x86-64 |
/// | `Avx512Vnni` | the same with VNNI | x86-64 |
///
/// The environment variable `SWITCHABLE_QUANT_INSTRUCTIONS` (`portable`, `avx2`, `avx512`,
/// `avx512-vnni`) holds [`best`](Self::best) down to a lower set, to measure or to rule out a
/// kernel; a set that the processor lacks is never chosen.
///
/// ```
/// use quant_kernels::cpu::instruction_set::InstructionSet;
///
/// assert!(InstructionSet::available().any(|set| set == InstructionSet::best()));
/// assert_eq!(InstructionSet::available().next(), Some(InstructionSet::Portable));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum InstructionSet {
    /// Plain Rust.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with VNNI, the dot products of bytes.
    Avx512Vnni,
}

impl InstructionSet {
    const ALL: [(Self, &str); 4] = [
        (Self::Portable, "portable"),
        (Self::Avx2, "avx2"),
        (Self::Avx512, "avx512"),
        (Self::Avx512Vnni, "avx512-vnni"),
    ];

    /// The sets that this processor has, the plainest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().map(|(set, _)| set).filter(|set| set.is_available())
    }

    /// The best set that this processor has and the environment allows.
    pub fn best() -> Self {
        static BEST: OnceLock<InstructionSet> = OnceLock::new();
        *BEST.get_or_init(|| {
            let cap = std::env::var("SWITCHABLE_QUANT_INSTRUCTIONS").ok();
            let cap = cap.and_then(|text| Self::ALL.into_iter().find(|(_, name)| *name == text));
            let allowed = |set: &Self| cap.is_none_or(|(cap, _)| *set <= cap);
            Self::available().filter(allowed).last().unwrap_or(Self::Portable)
        })
    }

    /// Whether this processor has the set.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        let avx512 = || {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
        };
        match self {
            Self::Portable => true,
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Self::Avx512 => Self::Avx2.is_available() && avx512(),
            Self::Avx512Vnni => Self::Avx512.is_available() && is_x86_feature_detected!("avx512vnni"),
        }
    }

    /// Whether this processor has the set.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_available(self) -> bool {
        self == Self::Portable
    }
}
