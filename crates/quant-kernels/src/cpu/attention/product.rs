//! Products of matrices whose rows lie apart.

/// A matrix with the distance between its rows and between its columns.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) values: &'a [f32],
    pub(super) row: usize,
    pub(super) column: usize,
}

impl<'a> Matrix<'a> {
    pub(super) fn rows(values: &'a [f32], columns: usize) -> Self {
        Self { values, row: columns, column: 1 }
    }

    /// The same without its first rows.
    pub(super) fn below(self, rows: usize) -> Self {
        Self { values: &self.values[rows * self.row..], ..self }
    }

    pub(super) fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    fn holds(self, rows: usize, columns: usize) -> bool {
        (rows - 1) * self.row + (columns - 1) * self.column < self.values.len()
    }
}

/// Where the rows of a result go.
#[derive(Clone, Copy)]
pub(super) struct Pointer {
    pub(super) start: *mut f32,
    pub(super) stride: usize,
}

impl Pointer {
    /// The same without its first rows.
    pub(super) fn below(self, rows: usize) -> Self {
        Self { start: self.start.wrapping_add(rows * self.stride), ..self }
    }
}

/// `y = a·b`, or `y += a·b`; sizes are rows of `a`, columns of `a`, columns of `b`.
///
/// # Safety
///
/// `y` must be valid for the rows and columns of the result, and nobody else may use them.
#[expect(unsafe_code, reason = "results go to columns that other threads' results stand between")]
pub(super) unsafe fn product([m, k, n]: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, y: Pointer, add: bool) {
    assert!(a.holds(m, k) && b.holds(k, n), "a matrix is smaller than its product");
    // SAFETY: `a` and `b` hold their rows and columns; the rest is the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.start,
            1,
            y.stride as isize,
            add,
            a.values.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.values.as_ptr(),
            b.column as isize,
            b.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
