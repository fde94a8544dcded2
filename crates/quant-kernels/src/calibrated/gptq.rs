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
    error::{Error, Result},
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
                Block { grid, of: self, first, columns }.codes(weights, d_out)
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

impl Block<'_> {
    /// The codes of the block, `[d_in, columns]`, and the error of each output.
    fn codes(&self, weights: &[f32], d_out: usize) -> (Vec<u8>, Vec<f64>) {
        let Gptq { order, panels } = self.of;
        let (n, columns) = (order.len(), self.columns);
        // `(w − ŵ)ᵀ H (w − ŵ) = Σ_k (M_kk (target_k − ŵ_k))²`.
        let mut outputs = vec![0.0; columns];
        let mut codes = vec![0; n * columns];
        // `w − ŵ` of the inputs that were rounded, in their order.
        let mut errors = vec![0.0; n * columns];
        let mut carried = Vec::new();
        for panel in panels.iter().rev() {
            let end = panel.start + panel.width;
            carried.clear();
            carried.resize(panel.width * columns, 0.0);
            let below = panel.rows_from(end);
            let sizes = [panel.width, columns, n - end];
            product(&mut carried, sizes, (below, [1, panel.width]), (&errors[end * columns..], [columns, 1]), 1.0);
            for row in (panel.start..end).rev() {
                let line = row - panel.start;
                let carried_here = &carried[line * columns..][..columns];
                let pivot = panel.values[line * panel.width + line];
                let input = order[row];
                let weights = &weights[input * d_out + self.first..][..columns];
                for (column, weight) in weights.iter().enumerate() {
                    let weight = f64::from(*weight);
                    let target = weight + carried_here[column] / pivot;
                    let (code, value) = self.grid.round(input, self.first + column, target);
                    outputs[column] += (pivot * (target - value)).powi(2);
                    codes[input * columns + column] = code;
                    errors[row * columns + column] = weight - value;
                }
                let error = &errors[row * columns..][..columns];
                for before in 0..line {
                    let factor = panel.values[line * panel.width + before];
                    let target = &mut carried[before * columns..][..columns];
                    target.iter_mut().zip(error).for_each(|(target, error)| *target += factor * error);
                }
            }
        }
        (codes, outputs)
    }
}
