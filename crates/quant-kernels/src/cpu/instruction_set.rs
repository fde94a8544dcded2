//! The vector instructions of the processor that the program runs on.

use std::{fmt, str::FromStr, sync::OnceLock};

use crate::error::{Error, Result};

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
/// | `Avx512Bf16` | the same with the dot products of bf16 | x86-64 |
///
/// The environment variable `SWITCHABLE_QUANT_INSTRUCTIONS` (`portable`, `avx2`, `avx512`,
/// `avx512-vnni`, `avx512-bf16`) holds [`best`](Self::best) down to that set, to measure or to rule out a
/// kernel; a set that the processor lacks is an error. `SWITCHABLE_QUANT_REQUIRE_INSTRUCTION_SETS`
/// (a list of them, separated by commas) makes a test of this crate fail where the processor lacks one.
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
    /// AVX-512 with VNNI and the dot products of bf16.
    Avx512Bf16,
}

/// The environment variable that holds the best set down.
const LIMIT: &str = "SWITCHABLE_QUANT_INSTRUCTIONS";

impl InstructionSet {
    const ALL: [(Self, &str); 5] = [
        (Self::Portable, "portable"),
        (Self::Avx2, "avx2"),
        (Self::Avx512, "avx512"),
        (Self::Avx512Vnni, "avx512-vnni"),
        (Self::Avx512Bf16, "avx512-bf16"),
    ];

    /// The sets that this processor has, the plainest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().map(|(set, _)| set).filter(|set| set.is_available())
    }

    /// The best set that this processor has, or the one that `SWITCHABLE_QUANT_INSTRUCTIONS` names.
    ///
    /// # Panics
    ///
    /// Where [`chosen`](Self::chosen) is an error.
    pub fn best() -> Self {
        Self::chosen().unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`best`](Self::best) for programs that check what they were told before they start. The environment is read
    /// once.
    ///
    /// # Errors
    ///
    /// [`Error::Instructions`] if `SWITCHABLE_QUANT_INSTRUCTIONS` is none of the names, which would be no limit, or
    /// names a set that the processor lacks, which would be another.
    pub fn chosen() -> Result<Self> {
        static CHOSEN: OnceLock<Result<InstructionSet>> = OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| {
            let limit = std::env::var_os(LIMIT).map(|text| text.to_string_lossy().into_owned());
            Self::under(limit.as_deref())
        });
        chosen.clone()
    }

    /// The set that a limit names, else the best that the processor has.
    fn under(limit: Option<&str>) -> Result<Self> {
        let best = Self::available().last().unwrap_or(Self::Portable);
        let Some(text) = limit else { return Ok(best) };
        text.parse().ok().filter(|set: &Self| set.is_available()).ok_or_else(|| {
            let available: Vec<_> = Self::available().map(|set| format!("`{set}`")).collect();
            Error::Instructions { variable: LIMIT, got: text.to_owned(), available: available.join(", ") }
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
            Self::Avx512Bf16 => Self::Avx512Vnni.is_available() && is_x86_feature_detected!("avx512bf16"),
        }
    }

    /// Whether this processor has the set.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_available(self) -> bool {
        self == Self::Portable
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.into_iter().find(|(set, _)| set == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for InstructionSet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|(_, name)| *name == text);
        found.map(|(set, _)| set).ok_or_else(|| Error::Text {
            what: "instruction set",
            got: text.to_owned(),
            expected: "`portable`, `avx2`, `avx512`, `avx512-vnni` or `avx512-bf16`",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets that a variable lists.
    fn listed(variable: &str) -> Vec<InstructionSet> {
        let text = std::env::var(variable).unwrap_or_default();
        text.split(',').filter(|name| !name.is_empty()).map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn the_sets_that_the_environment_requires_are_there() {
        let available: Vec<_> = InstructionSet::available().collect();
        let names: Vec<_> = available.iter().map(ToString::to_string).collect();
        println!("instruction sets: {}", names.join(", "));
        for set in listed("SWITCHABLE_QUANT_REQUIRE_INSTRUCTION_SETS") {
            assert!(set.is_available(), "this processor lacks {set}, which is required; it has {}", names.join(", "));
        }
    }

    #[test]
    fn the_best_set_is_the_highest_that_the_limit_allows() {
        let limit = listed(LIMIT).first().copied();
        let best = InstructionSet::available().filter(|set| limit.is_none_or(|limit| *set <= limit)).max();
        assert_eq!(Some(InstructionSet::best()), best);
        println!("chosen: {}", InstructionSet::best());
    }

    #[test]
    fn a_limit_that_is_misspelt_or_that_the_processor_lacks_is_an_error() {
        let lacking = InstructionSet::ALL.into_iter().filter(|(set, _)| !set.is_available()).map(|(_, name)| name);
        for text in ["", "avx-512", "AVX2"].into_iter().chain(lacking) {
            let error = InstructionSet::under(Some(text)).unwrap_err().to_string();
            let start =
                format!("SWITCHABLE_QUANT_INSTRUCTIONS is `{text}`, expected one that this processor has: `portable`");
            assert!(error.starts_with(&start), "{error}");
        }
        for set in InstructionSet::available() {
            assert_eq!(InstructionSet::under(Some(&set.to_string())), Ok(set));
        }
        assert_eq!(InstructionSet::under(None).ok(), InstructionSet::available().last());
    }

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for (set, name) in InstructionSet::ALL {
            assert_eq!((set.to_string().as_str(), name.parse()), (name, Ok(set)));
        }
        let error = "avx-512".parse::<InstructionSet>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "instruction set `avx-512` is unknown, expected `portable`, `avx2`, `avx512`, `avx512-vnni` or `avx512-bf16`"
        );
    }
}
