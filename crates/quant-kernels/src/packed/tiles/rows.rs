//! Rows of activations that a kernel takes at once.

/// Rows of floats.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FloatRows<'a> {
    /// The number of rows.
    pub(crate) count: usize,
    /// The values, row after row.
    pub(crate) values: &'a [f32],
    /// The distance of rows in `values`.
    pub(crate) stride: usize,
}

/// Rows of integers from −127 to 127.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IntegerRows<'a> {
    /// The number of rows.
    pub(crate) count: usize,
    /// Four neighbouring values in each number, first in the lowest byte. Where a target
    /// [wants them widened](crate::packed::target::Target::widened_activations), two numbers of 16 bits in each: of every
    /// 32 values first those at even places, then those at odd ones.
    pub(crate) quads: &'a [u32],
    /// The distance of rows in `quads`.
    pub(crate) stride: usize,
    /// The sums of each segment, row after row.
    pub(crate) sums: &'a [i32],
}

/// Rows of bf16.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no kernel in plain Rust multiplies bf16"))]
pub(crate) struct PairRows<'a> {
    /// The number of rows.
    pub(crate) count: usize,
    /// Two neighbouring values in each number, the first in the lower half.
    pub(crate) pairs: &'a [u32],
    /// The distance of rows in `pairs`.
    pub(crate) stride: usize,
}
