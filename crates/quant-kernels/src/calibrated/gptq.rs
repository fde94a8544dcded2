//! GPTQ: rounding that makes up for its own errors.
//!
//! ```text
//! minimise  tr((W − Ŵ)ᵀ H (W − Ŵ)),   H = XᵀX/n + λ·mean(diag XᵀX/n)·I,   λ = 0.01
//!
//! H = M·Mᵀ, M upper triangular          u_jk = M_jk / M_kk
//! ŵ_k = round(w_k + Σ_{j<k} (w_j − ŵ_j)·u_jk)            for inputs k in the order of falling diag(H)
//! ```
//!
//! `w_k [d_out]` is the row of input `k`. Frantar et al. (*GPTQ*, arXiv:2210.17323) write the same with the factor
//! of `H⁻¹`; that the two give the same codes is Theorem 6 of Chee et al. (*`QuIP`*, arXiv:2307.13304), whose form
//! needs no inverse. The order is that of `act_order`, the products of whole blocks are its lazy batches. Scales are
//! found beforehand, from the weights as they are, so that they do not depend on the order.

use rayon::prelude::*;

use crate::{
    calibrated::{
        cholesky::{Panel, cholesky, product},
        input_moments::InputMoments,
        level_grid::LevelGrid,
    },
    cpu::{instruction_set::InstructionSet, multiversion::multiversion},
    error::{Error, Result},
    spec::formats::code_book::CodeBook,
};

/// The mean of the diagonal that is added to it, and what it is multiplied by where that was too little.
const DAMPING: f64 = 0.01;
const DAMPING_GROWTH: f64 = 10.0;
const DAMPING_TRIALS: u32 = 3;

/// The outputs that one thread rounds at a time. They do not depend on each other.
const COLUMNS: usize = 64;

/// The factor of the second moments of a layer's inputs: all that GPTQ needs of them.
pub(super) struct Gptq {
    /// The inputs, the last to be rounded first: `M` read from its end is lower triangular.
    order: Vec<usize>,
    panels: Vec<Panel>,
}

/// A weight that was rounded.
pub(super) struct Rounded {
    /// `[d_in, d_out]` in row-major order.
    pub(super) codes: Vec<u8>,
    /// `(w − ŵ)ᵀ H (w − ŵ)` of each output.
    pub(super) errors: Vec<f64>,
}

impl Gptq {
    /// # Errors
    ///
    /// [`Error::Moments`] where no damping makes the second moments positive definite.
    pub(super) fn new(moments: &InputMoments) -> Result<Self> {
        let importance: Vec<f32> = moments.importance().collect();
        let mut order: Vec<usize> = (0..importance.len()).collect();
        order.sort_by(|&a, &b| importance[a].total_cmp(&importance[b]));
        let panels = factor(moments, &order)?;
        Ok(Self { order, panels })
    }

    /// Rounds a weight of `d_out` outputs, row-major.
    pub(super) fn round(&self, grid: &LevelGrid, weights: &[f32], d_out: usize) -> Rounded {
        let blocks: Vec<(Vec<u8>, Vec<f64>)> = (0..d_out.div_ceil(COLUMNS))
            .into_par_iter()
            .map(|block| {
                let first = block * COLUMNS;
                let columns = COLUMNS.min(d_out - first);
                codes_of(InstructionSet::best(), &Block { grid, of: self, first, columns }, weights, d_out)
            })
            .collect();
        let mut codes = vec![0; self.order.len() * d_out];
        for (row, codes) in codes.chunks_mut(d_out.max(1)).enumerate() {
            for (block, part) in codes.chunks_mut(COLUMNS).enumerate() {
                let columns = part.len();
                part.copy_from_slice(&blocks[block].0[row * columns..][..columns]);
            }
        }
        Rounded { codes, errors: blocks.into_iter().flat_map(|(_, errors)| errors).collect() }
    }
}

/// The factor of the damped second moments, in an order of the inputs.
fn factor(moments: &InputMoments, order: &[usize]) -> Result<Vec<Panel>> {
    let n = order.len();
    let mean = moments.importance().map(f64::from).sum::<f64>() / n.max(1) as f64;
    // Inputs that never were anything but 0 teach nothing: each weight is rounded alone.
    let unit = if mean > 0.0 { mean } else { 1.0 };
    let second = moments.second();
    let mut damping = DAMPING;
    for _ in 0..DAMPING_TRIALS {
        let entry = |row: usize, column: usize| {
            let (row_of, column_of) = (order[row], order[column]);
            // Half of each: sums in f32 need not be symmetric to the bit.
            let value =
                f64::midpoint(f64::from(second[row_of * n + column_of]), f64::from(second[column_of * n + row_of]));
            if row == column { value + damping * unit } else { value }
        };
        if let Some(panels) = cholesky(n, entry) {
            return Ok(panels);
        }
        damping *= DAMPING_GROWTH;
    }
    Err(Error::Moments {
        what: "diagonal added to the second moments",
        index: 0,
        got: (damping / DAMPING_GROWTH) as f32,
        expected: "one that makes them positive definite",
    })
}

/// Some outputs of a layer.
struct Block<'a> {
    grid: &'a LevelGrid,
    of: &'a Gptq,
    first: usize,
    columns: usize,
}

multiversion! {
    /// The codes of a block, `[d_in, columns]`, and the error of each output.
    fn codes_of(block: &Block<'_>, weights: &[f32], d_out: usize) -> (Vec<u8>, Vec<f64>) {
        let Gptq { order, panels } = block.of;
        let (n, columns) = (order.len(), block.columns);
        // `(w − ŵ)ᵀ H (w − ŵ) = Σ_k (M_kk (target_k − ŵ_k))²`.
        let mut outputs = vec![0.0; columns];
        let mut codes = vec![0; n * columns];
        // `w − ŵ` of the inputs that were rounded, in their order.
        let mut errors = vec![0.0; n * columns];
        let mut carried = Vec::new();
        let (mut scales, mut zeros) = (vec![0.0; columns], vec![0.0; columns]);
        let (book, offset) = block.grid.levels();
        for panel in panels.iter().rev() {
            let end = panel.start + panel.width;
            carried.clear();
            carried.resize(panel.width * columns, 0.0);
            let below = panel.rows_from(end);
            let sizes = [panel.width, columns, n - end];
            product(&mut carried, sizes, (below, [1, panel.width]), (&errors[end * columns..], [columns, 1]), 1.0);
            for row in (panel.start..end).rev() {
                let line = row - panel.start;
                let input = order[row];
                block.grid.row(input, block.first, &mut scales, &mut zeros);
                let (before, here) = carried.split_at_mut(line * columns);
                Line {
                    pivot: panel.values[line * panel.width + line],
                    offset,
                    weights: &weights[input * d_out + block.first..][..columns],
                    carried: &here[..columns],
                    scales: &scales,
                    zeros: &zeros,
                }
                .round(book, &mut codes[input * columns..][..columns], &mut errors[row * columns..][..columns], &mut outputs);
                let error = &errors[row * columns..][..columns];
                for (before, target) in before.chunks_exact_mut(columns).enumerate() {
                    let factor = panel.values[line * panel.width + before];
                    target.iter_mut().zip(error).for_each(|(target, error)| *target += factor * error);
                }
            }
        }
        (codes, outputs)
    }
}

/// One input of a block: a value for each output.
struct Line<'a> {
    pivot: f64,
    offset: f32,
    weights: &'a [f32],
    carried: &'a [f64],
    scales: &'a [f32],
    zeros: &'a [f32],
}

impl Line<'_> {
    /// Rounds it: codes, what is carried on, and what it adds to the error of each output. The same bits from every
    /// instruction set.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "plain Rust is compiled anew for each instruction set of its callers")]
    fn round(&self, book: CodeBook, codes: &mut [u8], errors: &mut [f64], outputs: &mut [f64]) {
        let columns = self.weights.len();
        let (carried, scales, zeros) = (&self.carried[..columns], &self.scales[..columns], &self.zeros[..columns]);
        let (codes, errors, outputs) = (&mut codes[..columns], &mut errors[..columns], &mut outputs[..columns]);
        for column in 0..columns {
            let weight = f64::from(self.weights[column]);
            let target = weight + carried[column] / self.pivot;
            let level = book.nearest(target as f32 / scales[column], zeros[column]);
            let value = f64::from(book.value(level, zeros[column]) * scales[column]);
            let missed = self.pivot * (target - value);
            outputs[column] += missed * missed;
            codes[column] = (level + self.offset) as u8;
            errors[column] = weight - value;
        }
    }
}
