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
    cpu::{instruction_set::InstructionSet, multiversion::multiversion},
    packed::packed_spec::PackedSpec,
    spec::{
        formats::code_book::{CodeBook, largest_scale},
        granularity::Granularity,
    },
};

const STEPS: u32 = 50;
const STEPS_PER_HALVING: f32 = 10.0;
const REFITS: usize = 8;

/// The ranges whose errors are added up side by side: one sum alone waits for each of its additions.
const TOGETHER: usize = 4;
/// The weights whose terms are computed before they are added, in their order.
const TERMS: usize = 16;

/// A scale and its zero point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Params {
    pub(super) scale: f32,
    pub(super) zero: f32,
}

impl Params {
    /// A wider or a narrower range, as far as its levels stand for finite numbers.
    pub(super) fn times(self, factor: f32, book: CodeBook) -> Self {
        let reach = self.zero.max(book.highest() - self.zero);
        let scale = (self.scale * factor).min(largest_scale(reach));
        if scale > 0.0 { Self { scale, ..self } } else { self }
    }
}

/// Weights that share a scale.
pub(super) struct Shared<'a> {
    pub(super) book: CodeBook,
    pub(super) has_zero_point: bool,
    pub(super) weights: &'a [f32],
}

impl Shared<'_> {
    /// Scale and zero point of the min-max range times a factor.
    pub(super) fn of_range(&self, factor: f32) -> Params {
        let (low, high) = self.weights.iter().fold((0.0_f32, 0.0_f32), |(low, high), &w| (low.min(w), high.max(w)));
        let (low, high, highest) = (low * factor, high * factor, self.book.highest());
        if self.has_zero_point {
            let scale = one_where_zero(high / highest - low / highest);
            let zero = (-low / scale).round_ties_even().clamp(0.0, highest);
            Params { scale: scale.min(largest_scale(zero.max(highest - zero))), zero }
        } else {
            let scale = one_where_zero(high.max(-low) / highest);
            Params { scale: scale.min(largest_scale(highest)), zero: 0.0 }
        }
    }

    /// What a weight's code stands for, in units of the scale.
    pub(super) fn value(&self, weight: f32, Params { scale, zero }: Params) -> f32 {
        self.book.value(self.book.nearest(weight / scale, zero), zero)
    }

    /// The parameters of least error.
    fn best(&self, importance: &[f32]) -> Params {
        let set = InstructionSet::best();
        let candidates: Vec<Params> =
            (0..=STEPS).map(|step| self.of_range((-(step as f32) / STEPS_PER_HALVING).exp2())).collect();
        let with_errors = candidates.chunks(TOGETHER).flat_map(|some| {
            let params: [Params; TOGETHER] = std::array::from_fn(|at| some[at.min(some.len() - 1)]);
            some.iter().copied().zip(errors(set, self.book, self.weights, importance, &params))
        });
        let mut best = with_errors.reduce(|best, next| if next.1 < best.1 { next } else { best });
        for _ in 0..REFITS {
            let Some((params, error)) = best else { break };
            let refitted = self.refitted(importance, params);
            let error_then =
                refitted.map(|params| (params, single_error(set, self.book, self.weights, importance, &params)));
            match error_then {
                Some((params, lower)) if lower < error => best = Some((params, lower)),
                _ => break,
            }
        }
        best.map_or(Params { scale: 1.0, zero: 0.0 }, |(params, _)| params)
    }

    /// The scale of least squares for the codes that the parameters give.
    fn refitted(&self, importance: &[f32], params: Params) -> Option<Params> {
        let [product, square] = fitted_sums(InstructionSet::best(), self.book, self.weights, importance, &params);
        let scale = (product / square) as f32;
        (scale.is_finite() && scale > 0.0 && scale <= params.scale * 2.0).then_some(Params { scale, ..params })
    }
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
        each(index, &Shared { book, has_zero_point, weights: &shared }, &rows)
    };
    Ok((0..groups * scales).into_par_iter().map(of_scale).collect())
}

/// The parameters of least error for each scale, in the order of the scales.
pub(super) fn weighted_params(spec: &PackedSpec, weights: &[f32], importance: &[f32]) -> crate::Result<Vec<Params>> {
    of_each_scale(spec, weights, |_, shared, rows| {
        let of_rows: Vec<f32> = rows.iter().map(|&row| importance[row]).collect();
        // Inputs that never were anything but 0 leave the choice to the weights.
        if of_rows.iter().all(|&importance| importance == 0.0) {
            return shared.best(&vec![1.0; of_rows.len()]);
        }
        shared.best(&of_rows)
    })
}

multiversion! {
    /// `Σ h (w − value(q)·s)²` under each of some parameters, added in the order of the weights: the same bits from every
    /// instruction set.
    fn errors(book: CodeBook, weights: &[f32], importance: &[f32], params: &[Params; TOGETHER]) -> [f64; TOGETHER] {
        ordered_sums(book, weights, importance, params, squared_error)
    }
}

multiversion! {
    /// The same under parameters alone.
    fn single_error(book: CodeBook, weights: &[f32], importance: &[f32], params: &Params) -> f64 {
        ordered_sums(book, weights, importance, &[*params], squared_error)[0]
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "plain Rust is compiled anew for each instruction set of its callers")]
fn squared_error(weight: f32, importance: f32, params: &Params, value: f32) -> f64 {
    let error = f64::from(weight - value * params.scale);
    f64::from(importance) * (error * error)
}

multiversion! {
    /// `Σ h w value(q)` and `Σ h value(q)²`, added in the order of the weights.
    fn fitted_sums(book: CodeBook, weights: &[f32], importance: &[f32], params: &Params) -> [f64; 2] {
        let product = |weight: f32, importance: f32, _: &Params, value: f32| {
            f64::from(importance) * f64::from(weight) * f64::from(value)
        };
        let square =
            |_: f32, importance: f32, _: &Params, value: f32| f64::from(importance) * f64::from(value) * f64::from(value);
        let params = [*params];
        let [product] = ordered_sums(book, weights, importance, &params, product);
        let [square] = ordered_sums(book, weights, importance, &params, square);
        [product, square]
    }
}

/// The sums of a term of weight, importance, parameters and what the code stands for, over all weights.
#[inline(always)]
#[expect(clippy::inline_always, reason = "plain Rust is compiled anew for each instruction set of its callers")]
fn ordered_sums<const N: usize>(
    book: CodeBook,
    weights: &[f32],
    importance: &[f32],
    params: &[Params; N],
    term: impl Fn(f32, f32, &Params, f32) -> f64,
) -> [f64; N] {
    let mut sums = [0.0; N];
    let mut terms = [0.0; TERMS];
    let (whole, rest) = weights.as_chunks::<TERMS>();
    let (importance, importance_of_rest) = importance[..weights.len()].as_chunks::<TERMS>();
    for (weights, importance) in whole.iter().zip(importance) {
        for (sum, params) in sums.iter_mut().zip(params) {
            for at in 0..TERMS {
                let ratio = weights[at] / params.scale;
                let value = book.value(book.nearest(ratio, params.zero), params.zero);
                terms[at] = term(weights[at], importance[at], params, value);
            }
            terms.iter().for_each(|term| *sum += term);
        }
    }
    for (sum, params) in sums.iter_mut().zip(params) {
        for (&weight, &importance) in rest.iter().zip(importance_of_rest) {
            let value = book.value(book.nearest(weight / params.scale, params.zero), params.zero);
            *sum += term(weight, importance, params, value);
        }
    }
    sums
}

fn one_where_zero(scale: f32) -> f32 {
    if scale == 0.0 { 1.0 } else { scale }
}
