//! One function, compiled for every instruction set.

/// Defines a function that takes an [`InstructionSet`](crate::InstructionSet) before its own
/// arguments and runs the body as compiled for that set.
///
/// The body is plain Rust. On x86-64 it is compiled three times; elsewhere once, for what the
/// target always has.
macro_rules! multiversion {
    (
        $(#[$meta:meta])*
        $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block
    ) => {
        $(#[$meta])*
        #[expect(clippy::allow_attributes, reason = "which lints a body trips depends on the body")]
        #[allow(clippy::too_many_arguments, clippy::inline_always)]
        #[allow(unsafe_code, reason = "functions compiled for other instruction sets are called")]
        $visibility fn $name(set: InstructionSet, $($argument: $type),*) $(-> $output)? {
            #[inline(always)]
            fn portable($($argument: $type),*) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $type),*) $(-> $output)? {
                    portable($($argument),*)
                }

                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($argument: $type),*) $(-> $output)? {
                    portable($($argument),*)
                }

                debug_assert!(set.is_available(), "{set:?} is not available on this processor");
                match set {
                    InstructionSet::Portable => portable($($argument),*),
                    // SAFETY: a set is only named after the processor was asked for it; see
                    // `InstructionSet::available`.
                    InstructionSet::Avx2 => unsafe { avx2($($argument),*) },
                    // SAFETY: as above.
                    InstructionSet::Avx512 | InstructionSet::Avx512Vnni => unsafe { avx512($($argument),*) },
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            {
                let _ = set;
                portable($($argument),*)
            }
        }
    };
}

pub(crate) use multiversion;
