//! The choice of a target.

pub(crate) use crate::packed::target::portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use crate::packed::target::{avx2::Avx2, avx512::Avx512};

/// Evaluates an expression with the target of an [`InstructionSet`](crate::cpu::instruction_set::InstructionSet)
/// bound to a name. A target is a row here.
///
/// # Panics
///
/// If the processor lacks the instructions.
macro_rules! dispatch {
    ($set:expr, $target:ident => $work:expr) => {{
        use $crate::{cpu::instruction_set::InstructionSet as Set, packed::target::dispatch};

        let set: Set = $set;
        let missing = || -> ! { panic!("this processor lacks the instructions {set:?}") };
        match set {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Bf16 => {
                let $target = dispatch::Avx512::<true, true>::detect().unwrap_or_else(|| missing());
                $work
            }
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vnni => {
                let $target = dispatch::Avx512::<true, false>::detect().unwrap_or_else(|| missing());
                $work
            }
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => {
                let $target = dispatch::Avx512::<false, false>::detect().unwrap_or_else(|| missing());
                $work
            }
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => {
                let $target = dispatch::Avx2::detect().unwrap_or_else(|| missing());
                $work
            }
            Set::Portable => {
                let $target = dispatch::Portable;
                $work
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => missing(),
        }
    }};
}

pub(crate) use dispatch;
