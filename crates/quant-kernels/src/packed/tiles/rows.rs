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
    /// Four neighbouring values in each number.
    pub(crate) quads: &'a [u32],
    /// The distance of rows in `quads`.
    pub(crate) stride: usize,
    /// The sums of each segment, row after row.
    pub(crate) sums: &'a [i32],
}
