//! Rows times signs and a Hadamard matrix.
//!
//! ```text
//! y = last ∘ ((first ∘ x)·(1 ⊗ M_n ⊗ H_p)),    M_n with 1/√(n·p) in it
//! ```
//!
//! `M_n` is applied as it stands, a multiple of one run of `p` values added to another at a time; `H_p` by one product
//! for each 16 values, which is what vector registers do well, and butterflies above that. The order of the additions is
//! fixed, so that all processors give the same bits.

use rayon::prelude::*;

use crate::cpu::instruction_set::InstructionSet;
use crate::cpu::multiversion::multiversion;

/// Values that one thread rotates at a time.
const RUN: usize = 1 << 15;

/// Values of one product.
const TILE: usize = 16;

/// How rows are rotated. A row has as many values as there are signs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowRotation<'a> {
    /// What values are multiplied by before.
    pub(crate) first: Option<&'a [f32]>,
    /// `M_n`, row-major.
    pub(crate) mixing: &'a [f32],
    /// What values are multiplied by after.
    pub(crate) last: Option<&'a [f32]>,
    /// `n`.
    pub(crate) order: usize,
    /// `p`.
    pub(crate) power: usize,
}

impl RowRotation<'_> {
    /// Each row of `x`, rotated.
    pub(crate) fn of(self, x: &[f32]) -> Vec<f32> {
        let width = self.first.or(self.last).map_or(0, <[f32]>::len);
        assert!(x.is_empty() || (width > 0 && x.len().is_multiple_of(width)), "{} values, rows of {width}", x.len());
        let mut y = vec![0.0; x.len()];
        let (set, run) = (InstructionSet::best(), RUN.div_ceil(width.max(1)) * width.max(1));
        x.par_chunks(run).zip(y.par_chunks_mut(run)).for_each(|(x, y)| {
            let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width));
            rows.for_each(|(x, y)| rotate_row(set, self, x, y));
        });
        y
    }
}

multiversion! {
    /// One row.
    fn rotate_row(rotation: RowRotation<'_>, x: &[f32], y: &mut [f32]) {
        let RowRotation { first, mixing, last, order, power } = rotation;
        let block = order * power;
        for (start, y) in (0..).step_by(block).zip(y.chunks_exact_mut(block)) {
            for (to, y) in y.chunks_exact_mut(power).enumerate() {
                for from in 0..order {
                    let factor = mixing[from * order + to];
                    let run = start + from * power;
                    let x = &x[run..run + power];
                    match first {
                        Some(signs) => {
                            let signs = &signs[run..run + power];
                            for ((y, x), sign) in y.iter_mut().zip(x).zip(signs) {
                                *y += factor * (x * sign);
                            }
                        }
                        None => {
                            for (y, x) in y.iter_mut().zip(x) {
                                *y += factor * x;
                            }
                        }
                    }
                }
                sylvester(y);
            }
        }
        if let Some(signs) = last {
            for (y, sign) in y.iter_mut().zip(signs) {
                *y *= sign;
            }
        }
    }
}

/// `y·H_p` of `p` values in place.
#[inline(always)]
fn sylvester(y: &mut [f32]) {
    let mut half = if y.len() >= TILE {
        for tile in y.chunks_exact_mut(TILE) {
            let mut sums = [0.0; TILE];
            for (value, row) in tile.iter().zip(&SYLVESTER) {
                for (sum, entry) in sums.iter_mut().zip(row) {
                    *sum += value * entry;
                }
            }
            tile.copy_from_slice(&sums);
        }
        TILE
    } else {
        1
    };
    while half < y.len() {
        for pair in y.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (low, high) in low.iter_mut().zip(high) {
                (*low, *high) = (*low + *high, *low - *high);
            }
        }
        half *= 2;
    }
}

/// `H_16`.
const SYLVESTER: [[f32; TILE]; TILE] = {
    let mut matrix = [[1.0; TILE]; TILE];
    let mut row = 0;
    while row < TILE {
        let mut column = 0;
        while column < TILE {
            if (row & column).count_ones() % 2 == 1 {
                matrix[row][column] = -1.0;
            }
            column += 1;
        }
        row += 1;
    }
    matrix
};
