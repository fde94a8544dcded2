//! One source of plain Rust, compiled for every instruction set.
//!
//! On x86-64 a function is compiled three times; elsewhere once, for what the target always has.

/// Calls a function of plain Rust, which must be `#[inline(always)]`, through a copy of it that is
/// compiled for an instruction set.
macro_rules! compiled_for {
    ($set:expr, $function:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512($($argument: $type),*) $(-> $output)? {
            $function($($argument),*)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn avx2($($argument: $type),*) $(-> $output)? {
            $function($($argument),*)
        }
        let set: $crate::cpu::instruction_set::InstructionSet = $set;
        debug_assert!(set.is_available(), "{set:?} is not available on this processor");
        #[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "a function compiled for vector instructions"))]
        let output = match set {
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::instruction_set::InstructionSet::Avx512
            | $crate::cpu::instruction_set::InstructionSet::Avx512Vnni
            | $crate::cpu::instruction_set::InstructionSet::Avx512Bf16 => {
                // SAFETY: kernels are only asked for sets that the processor has.
                unsafe { avx512($($argument),*) }
            }
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::instruction_set::InstructionSet::Avx2 => {
                // SAFETY: as above.
                unsafe { avx2($($argument),*) }
            }
            _ => $function($($argument),*),
        };
        output
    }};
}

/// Defines a function that takes an [`InstructionSet`](crate::cpu::instruction_set::InstructionSet) before its own
/// arguments and runs the body, plain Rust, as compiled for that set.
macro_rules! multiversion {
    (
        $(#[$meta:meta])*
        $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block
    ) => {
        $(#[$meta])*
        #[expect(clippy::allow_attributes, reason = "which lints a body trips depends on the body")]
        #[allow(clippy::too_many_arguments)]
        $visibility fn $name(set: $crate::cpu::instruction_set::InstructionSet, $($argument: $type),*) $(-> $output)? {
            #[inline(always)]
            fn portable($($argument: $type),*) $(-> $output)? $body

            $crate::cpu::multiversion::compiled_for!(set, portable($($argument: $type),*) $(-> $output)?)
        }
    };
}

pub(crate) use compiled_for;
pub(crate) use multiversion;
