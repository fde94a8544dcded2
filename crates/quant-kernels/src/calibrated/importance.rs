//! Ranges of least error, where the error of a weight counts by its input.
//!
//! ```text
//! E(s) = Σᵢ hᵢ (wᵢ − value(qᵢ)·s)²,   hᵢ = mean(xᵢ²)
//! s₀   = the best of f · (min-max range),  f = 2^(−k/10), k = 0 ..= 50
//! sₜ₊₁ = Σ hᵢ wᵢ value(qᵢ) / Σ hᵢ value(qᵢ)²         while E falls, at most 8 times
//! ```
//!
//! The search is that of [`RangeEstimator::Mse`](crate::spec::range_estimator::RangeEstimator::Mse) with weights;
//! the steps after it are least squares for the codes that a scale gives.

use rayon::prelude::*;

use crate::{
    cpu::range_search::{Params, Shared},
    packed::packed_spec::PackedSpec,
    spec::granularity::Granularity,
};

const REFITS: usize = 8;

/// The parameters of least error.
fn best(shared: &Shared<'_>, importance: &[f32]) -> Params {
    let mut best = shared.best_range(Some(importance));
    for _ in 0..REFITS {
        let refitted = shared.refitted(importance, best.0);
        match refitted.map(|params| (params, shared.error(Some(importance), params))) {
            Some(lower) if lower.1 < best.1 => best = lower,
            _ => break,
        }
    }
    best.0
}

/// What `each` makes of every scale: of its position, its weights and the rows that they are of.
pub(super) fn of_each_scale<R: Send>(
    spec: &PackedSpec,
    weights: &[f32],
    each: impl Fn(usize, &Shared<'_>, &[usize]) -> R + Sync,
) -> crate::Result<Vec<R>> {
    let [groups, scales] = spec.scale_shape()?;
    let (book, [d_in, d_out]) = (spec.code_book()?, spec.shape);
    let has_zero_point = spec.format.has_zero_points();
    let of_scale = |index: usize| {
        let (group, column) = (index / scales.max(1), index % scales.max(1));
        let per_group = spec.rows_per_scale();
        let rows = group * per_group..((group + 1) * per_group).min(d_in);
        let columns = if spec.granularity == Granularity::PerTensor { 0..d_out } else { column..column + 1 };
        let places = || rows.clone().flat_map(|row| columns.clone().map(move |column| (row, column)));
        let shared: Vec<f32> = places().map(|(row, column)| weights[row * d_out + column]).collect();
        let rows: Vec<usize> = places().map(|(row, _)| row).collect();
        each(index, &Shared { book, has_zero_point, values: &shared }, &rows)
    };
    Ok((0..groups * scales).into_par_iter().map(of_scale).collect())
}

/// The parameters of least error for each scale, in the order of the scales.
pub(super) fn weighted_params(spec: &PackedSpec, weights: &[f32], importance: &[f32]) -> crate::Result<Vec<Params>> {
    of_each_scale(spec, weights, |_, shared, rows| {
        let of_rows: Vec<f32> = rows.iter().map(|&row| importance[row]).collect();
        // Inputs that never were anything but 0 leave the choice to the weights.
        if of_rows.iter().all(|&importance| importance == 0.0) {
            return best(shared, &vec![1.0; of_rows.len()]);
        }
        best(shared, &of_rows)
    })
}
