//! Results that threads write piece by piece.

use std::{mem::MaybeUninit, ops::Range};

use rayon::prelude::*;

/// Values that one thread writes at a time.
const RUN: usize = 1 << 15;

/// `len` values, of which `write` gives each range. It must write all of the slice that it is handed.
pub(crate) fn in_parallel(len: usize, write: impl Fn(Range<usize>, &mut [MaybeUninit<f32>]) + Sync) -> Vec<f32> {
    let mut out = Vec::with_capacity(len);
    out.spare_capacity_mut()[..len].par_chunks_mut(RUN).enumerate().for_each(|(run, out)| {
        write(run * RUN..run * RUN + out.len(), out);
    });
    // SAFETY: the runs cover the first `len` elements, and `write` has written all of each.
    #[expect(unsafe_code, reason = "a large result is not filled with zeros first")]
    unsafe {
        out.set_len(len);
    }
    out
}
