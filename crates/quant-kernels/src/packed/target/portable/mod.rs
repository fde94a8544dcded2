//! Plain Rust: what the compiler makes of it for the target architecture, NEON on AArch64.

pub(crate) mod decode;
pub(crate) mod float;
pub(crate) mod integer;
pub(crate) mod widen;

use crate::packed::target::{KernelShape, Target};

/// No instructions but those that every processor has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

impl Target for Portable {
    const FLOATS: KernelShape = KernelShape { rows: 4, strips: 1, streamed: 0, stream_rows: 4 };
    const INTEGERS: KernelShape = KernelShape { rows: 4, strips: 1, streamed: 0, stream_rows: 4 };

    #[inline(always)]
    fn compiled<R>(self, work: impl FnOnce() -> R) -> R {
        work()
    }
}
