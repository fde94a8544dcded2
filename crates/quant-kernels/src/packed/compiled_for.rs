//! One source, compiled once for each set of instructions.

/// Calls a function of plain Rust, which must be `#[inline(always)]`, through a copy of it that is
/// compiled for an instruction set.
macro_rules! compiled_for {
    ($set:expr, $function:ident($($argument:ident: $type:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512($($argument: $type),*) {
            $function($($argument),*);
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn avx2($($argument: $type),*) {
            $function($($argument),*);
        }
        #[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "a function compiled for vector instructions"))]
        match $set {
            #[cfg(target_arch = "x86_64")]
            $crate::InstructionSet::Avx512 | $crate::InstructionSet::Avx512Vnni => {
                // SAFETY: kernels are only asked for sets that the processor has.
                unsafe { avx512($($argument),*) }
            }
            #[cfg(target_arch = "x86_64")]
            $crate::InstructionSet::Avx2 => {
                // SAFETY: as above.
                unsafe { avx2($($argument),*) }
            }
            _ => $function($($argument),*),
        }
    }};
}

pub(crate) use compiled_for;
