//! The Cholesky factor of a symmetric positive definite matrix.
//!
//! ```text
//! A = L·Lᵀ          L lower triangular
//! ```
//!
//! Blocked and left-looking (Golub and Van Loan, *Matrix Computations*, 4th edition, section 4.2): a panel of
//! columns takes the products of the panels before it, then its own block is factored and the rows below it are
//! solved against that.

use rayon::prelude::*;

/// The columns of a panel.
pub(super) const PANEL: usize = 128;

/// The rows that one thread computes at a time.
const ROWS: usize = 64;

/// Some columns of a lower triangular matrix, from the row of their first diagonal entry on.
pub(super) struct Panel {
    pub(super) start: usize,
    pub(super) width: usize,
    /// `[n − start, width]`, row-major.
    pub(super) values: Vec<f64>,
}

impl Panel {
    /// The rows from `row` of the matrix on.
    pub(super) fn rows_from(&self, row: usize) -> &[f64] {
        &self.values[(row - self.start) * self.width..]
    }
}

/// The panels of `L`; `None` where the matrix is not positive definite to the precision of f64.
///
/// `entry(row, column)` gives `A`, which is asked for its lower triangle alone.
pub(super) fn cholesky(n: usize, entry: impl Fn(usize, usize) -> f64 + Sync) -> Option<Vec<Panel>> {
    let mut panels: Vec<Panel> = Vec::with_capacity(n.div_ceil(PANEL));
    for start in (0..n).step_by(PANEL) {
        let width = PANEL.min(n - start);
        let mut values = vec![0.0; (n - start) * width];
        values.par_chunks_mut(ROWS * width).enumerate().for_each(|(chunk, rows)| {
            for (index, value) in rows.iter_mut().enumerate() {
                let (row, column) = (start + chunk * ROWS + index / width, start + index % width);
                *value = if column <= row { entry(row, column) } else { 0.0 };
            }
            for before in &panels {
                let left = before.rows_from(start + chunk * ROWS);
                subtract_product(rows, width, left, before.rows_from(start), before.width);
            }
        });
        let (block, below) = values.split_at_mut(width * width);
        factor(block, width)?;
        below.par_chunks_mut(width).for_each(|row| solve(row, block));
        panels.push(Panel { start, width, values });
    }
    Some(panels)
}

/// `y −= a·bᵀ`; `y` has rows of `columns` values, `a` and `b` rows of `inner`.
fn subtract_product(y: &mut [f64], columns: usize, a: &[f64], b: &[f64], inner: usize) {
    let rows = y.len() / columns;
    product(y, [rows, columns, inner], (a, [inner, 1]), (b, [1, inner]), -1.0);
}

/// `y += factor·a·b`, with the distances between rows and columns of `a` and `b` beside them; `y` is row-major.
#[expect(unsafe_code, reason = "the product of a library that takes pointers")]
pub(super) fn product(
    y: &mut [f64],
    [m, n, k]: [usize; 3],
    (a, [a_row, a_column]): (&[f64], [usize; 2]),
    (b, [b_row, b_column]): (&[f64], [usize; 2]),
    factor: f64,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let holds = |len: usize, [rows, columns]: [usize; 2], [row, column]: [usize; 2]| {
        (rows - 1) * row + (columns - 1) * column < len
    };
    assert!(m * n <= y.len(), "a result of {m} by {n}");
    assert!(holds(a.len(), [m, k], [a_row, a_column]) && holds(b.len(), [k, n], [b_row, b_column]), "factors of {k}");
    // SAFETY: all three hold their rows and columns by the assertions, and `y` is borrowed exclusively.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            n as isize,
            true,
            a.as_ptr(),
            a_column as isize,
            a_row as isize,
            b.as_ptr(),
            b_column as isize,
            b_row as isize,
            1.0,
            factor,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The factor of a small matrix in its place, row-major.
fn factor(a: &mut [f64], n: usize) -> Option<()> {
    for column in 0..n {
        let pivot = a[column * n + column];
        if !(pivot > 0.0 && pivot.is_finite()) {
            return None;
        }
        let root = pivot.sqrt();
        for row in column..n {
            a[row * n + column] /= root;
        }
        for row in column + 1..n {
            let left = a[row * n + column];
            for other in column + 1..=row {
                a[row * n + other] -= left * a[other * n + column];
            }
        }
    }
    Some(())
}

/// `x` with `x·Lᵀ = row`, in the place of the row.
fn solve(row: &mut [f64], factor: &[f64]) {
    let n = row.len();
    for column in 0..n {
        let (known, rest) = row.split_at_mut(column);
        let line = &factor[column * n..];
        let sum: f64 = known.iter().zip(line).map(|(x, l)| x * l).sum();
        rest[0] = (rest[0] - sum) / line[column];
    }
}
