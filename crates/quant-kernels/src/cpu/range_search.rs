//! Ranges of least squared error, for the values that share a scale.
//!
//! ```text
//! E(s) = Σᵢ hᵢ (xᵢ − value(qᵢ)·s)²          hᵢ = 1 where all values count the same
//! s    = the best of f · (min-max range),   f = 2^(−k/10),  k = 0 ..= 50, the first of equals
//! ```
//!
//! Each range follows from the min-max one by the formulas of the plain tensor operations. Errors are added up in f64, in
//! the order of the values whatever the instruction set and the number of threads: terms are computed side by side and
//! added one by one, those of several ranges in turns, so that no sum waits for itself.

use rayon::prelude::*;

use crate::{
    cpu::{instruction_set::InstructionSet, multiversion::multiversion},
    spec::formats::code_book::{CodeBook, largest_scale, params_of_range},
};

const STEPS: u32 = 50;
const STEPS_PER_HALVING: f32 = 10.0;
/// The ranges whose errors are added up in turns.
const TOGETHER: usize = 4;
/// The values whose terms are computed before they are added.
const TERMS: usize = 16;
/// Values from which on the ranges are tried by several threads.
const PARALLEL_FROM: usize = 1 << 15;

/// A scale and its zero point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Params {
    pub(crate) scale: f32,
    pub(crate) zero: f32,
}

impl Params {
    /// A wider or a narrower range, as far as its levels stand for finite numbers.
    pub(crate) fn times(self, factor: f32, book: CodeBook) -> Self {
        let reach = self.zero.max(book.highest() - self.zero);
        let scale = (self.scale * factor).min(largest_scale(reach));
        if scale > 0.0 { Self { scale, ..self } } else { self }
    }
}

/// Finite values that share a scale.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared<'a> {
    pub(crate) book: CodeBook,
    pub(crate) has_zero_point: bool,
    pub(crate) values: &'a [f32],
}

impl Shared<'_> {
    /// The lowest and the highest value, 0 among them.
    fn extent(&self) -> [f32; 2] {
        self.values.iter().fold([0.0, 0.0], |[low, high], &x| [x.min(low), x.max(high)])
    }

    /// Scale and zero point of a range times a factor.
    fn within(&self, [low, high]: [f32; 2], factor: f32) -> Params {
        let range = [low * factor, high * factor];
        let (scale, zero) = params_of_range(range, self.book.highest(), self.has_zero_point);
        Params { scale, zero }
    }

    /// What a value's code stands for, in units of the scale.
    pub(crate) fn value(&self, x: f32, Params { scale, zero }: Params) -> f32 {
        self.book.value(self.book.nearest(x / scale, zero), zero)
    }

    /// The error under some parameters.
    pub(crate) fn error(&self, importance: Option<&[f32]>, params: Params) -> f64 {
        error(InstructionSet::best(), self.book, self.values, importance, &params)
    }

    /// The range of least error, and that error.
    pub(crate) fn best_range(&self, importance: Option<&[f32]>) -> (Params, f64) {
        let (set, extent) = (InstructionSet::best(), self.extent());
        let ranges: Vec<Params> =
            (0..=STEPS).map(|step| self.within(extent, (-(step as f32) / STEPS_PER_HALVING).exp2())).collect();
        let errors_of = |some: &[Params]| {
            let params: [Params; TOGETHER] = std::array::from_fn(|at| some[at.min(some.len() - 1)]);
            errors(set, self.book, self.values, importance, &params)
        };
        let found: Vec<[f64; TOGETHER]> = if self.values.len() < PARALLEL_FROM {
            ranges.chunks(TOGETHER).map(errors_of).collect()
        } else {
            ranges.par_chunks(TOGETHER).map(errors_of).collect()
        };
        let mut best = (ranges[0], found[0][0]);
        for (params, error) in ranges.iter().zip(found.into_iter().flatten()) {
            if error < best.1 {
                best = (*params, error);
            }
        }
        best
    }

    /// The scale of least squares for the codes that the parameters give.
    pub(crate) fn refitted(&self, importance: &[f32], params: Params) -> Option<Params> {
        let [product, square] = fitted_sums(InstructionSet::best(), self.book, self.values, importance, &params);
        let scale = (product / square) as f32;
        (scale.is_finite() && scale > 0.0 && scale <= params.scale * 2.0).then_some(Params { scale, ..params })
    }
}

multiversion! {
    /// `Σ h (x − value(q)·s)²` under each of some parameters.
    fn errors(
        book: CodeBook,
        values: &[f32],
        importance: Option<&[f32]>,
        params: &[Params; TOGETHER],
    ) -> [f64; TOGETHER] {
        match importance {
            Some(importance) => ordered_sums(book, values, importance, params, weighted_error),
            None => ordered_sums(book, values, values, params, squared_error),
        }
    }
}

multiversion! {
    /// The same under parameters alone.
    fn error(book: CodeBook, values: &[f32], importance: Option<&[f32]>, params: &Params) -> f64 {
        match importance {
            Some(importance) => ordered_sums(book, values, importance, &[*params], weighted_error)[0],
            None => ordered_sums(book, values, values, &[*params], squared_error)[0],
        }
    }
}

multiversion! {
    /// `Σ h x value(q)` and `Σ h value(q)²`.
    fn fitted_sums(book: CodeBook, values: &[f32], importance: &[f32], params: &Params) -> [f64; 2] {
        let product = |x: f32, h: f32, _: &Params, value: f32| f64::from(h) * f64::from(x) * f64::from(value);
        let square = |_: f32, h: f32, _: &Params, value: f32| f64::from(h) * f64::from(value) * f64::from(value);
        let params = [*params];
        let [product] = ordered_sums(book, values, importance, &params, product);
        let [square] = ordered_sums(book, values, importance, &params, square);
        [product, square]
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "plain Rust is compiled anew for each instruction set of its callers")]
fn squared_error(x: f32, _: f32, params: &Params, value: f32) -> f64 {
    let error = f64::from(x - value * params.scale);
    error * error
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "plain Rust is compiled anew for each instruction set of its callers")]
fn weighted_error(x: f32, importance: f32, params: &Params, value: f32) -> f64 {
    f64::from(importance) * squared_error(x, importance, params, value)
}

/// The sums of a term of value, importance, parameters and what the code stands for, in the order of the values.
#[inline(always)]
#[expect(clippy::inline_always, reason = "plain Rust is compiled anew for each instruction set of its callers")]
fn ordered_sums<const N: usize>(
    book: CodeBook,
    values: &[f32],
    importance: &[f32],
    params: &[Params; N],
    term: impl Fn(f32, f32, &Params, f32) -> f64,
) -> [f64; N] {
    // The book is looked at once, not for each value.
    match book {
        CodeBook::Uniform(levels) => {
            let (low, high) = (levels.low as f32, levels.high as f32);
            let value = |ratio: f32, zero: f32| (ratio.round_ties_even() + zero).clamp(low, high) - zero;
            sums_of(values, importance, params, value, term)
        }
        CodeBook::Table(table) => {
            let value = |ratio: f32, _: f32| table.entries[usize::from(table.nearest(ratio))];
            sums_of(values, importance, params, value, term)
        }
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "plain Rust is compiled anew for each instruction set of its callers")]
fn sums_of<const N: usize>(
    values: &[f32],
    importance: &[f32],
    params: &[Params; N],
    value: impl Fn(f32, f32) -> f32,
    term: impl Fn(f32, f32, &Params, f32) -> f64,
) -> [f64; N] {
    let mut sums = [0.0; N];
    let mut terms = [0.0; TERMS];
    let (whole, rest) = values.as_chunks::<TERMS>();
    let (importance, importance_of_rest) = importance[..values.len()].as_chunks::<TERMS>();
    for (values, importance) in whole.iter().zip(importance) {
        for (sum, params) in sums.iter_mut().zip(params) {
            for at in 0..TERMS {
                let value = value(values[at] / params.scale, params.zero);
                terms[at] = term(values[at], importance[at], params, value);
            }
            for term in &terms {
                *sum += term;
            }
        }
    }
    for (sum, params) in sums.iter_mut().zip(params) {
        for (&x, &importance) in rest.iter().zip(importance_of_rest) {
            *sum += term(x, importance, params, value(x / params.scale, params.zero));
        }
    }
    sums
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "every way of adding up gives the same bits")]
mod tests {
    use super::*;
    use crate::spec::bit_width::BitWidth;
    use crate::spec::formats::{code_book::LevelRange, format::Format};

    /// Numbers without a pattern, some of them far out.
    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from((state >> 16) as u16) / 65_536.0 - 0.5
        };
        (0..n).map(|at| next() * if at % 17 == 0 { 8.0 } else { 1.0 }).collect()
    }

    fn books() -> Vec<(CodeBook, bool)> {
        let of_format = |bits: u8, format: Format| {
            (format.code_book(BitWidth::new(bits).unwrap()).unwrap(), format.has_zero_points())
        };
        let widths = [2, 3, 4, 8].into_iter();
        let uniform =
            widths.flat_map(|bits| [Format::Symmetric, Format::Asymmetric].map(|format| of_format(bits, format)));
        uniform.chain([of_format(4, Format::Nf4)]).collect()
    }

    /// The error of the documentation, one value after another.
    fn plain_error(shared: &Shared<'_>, importance: Option<&[f32]>, params: Params) -> f64 {
        let mut sum = 0.0;
        for (at, &x) in shared.values.iter().enumerate() {
            let error = f64::from(x - shared.value(x, params) * params.scale);
            sum += importance.map_or(1.0, |importance| f64::from(importance[at])) * (error * error);
        }
        sum
    }

    #[test]
    fn every_instruction_set_gives_the_bits_of_one_value_after_another() {
        for n in [0, 1, 15, 16, 17, 100] {
            let (values, importance) = (values(n, 3), values(n, 5).iter().map(|h| h.abs()).collect::<Vec<_>>());
            for (book, has_zero_point) in books() {
                let shared = Shared { book, has_zero_point, values: &values };
                let ranges = [1.0, 0.7, 0.3, 0.1].map(|factor| shared.within(shared.extent(), factor));
                for importance in [None, Some(importance.as_slice())] {
                    let expected = ranges.map(|params| plain_error(&shared, importance, params));
                    for set in InstructionSet::available() {
                        assert_eq!(errors(set, book, &values, importance, &ranges), expected, "{set:?} {n}");
                        assert_eq!(error(set, book, &values, importance, &ranges[2]), expected[2], "{set:?} {n}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_range_is_the_first_of_least_error_by_one_thread_and_by_several() {
        for n in [1, 33, PARALLEL_FROM + 5] {
            let values = values(n, 7);
            for (book, has_zero_point) in books() {
                let shared = Shared { book, has_zero_point, values: &values };
                let all =
                    (0..=STEPS).map(|step| shared.within(shared.extent(), (-(step as f32) / STEPS_PER_HALVING).exp2()));
                let with_error = all.map(|params| (params, plain_error(&shared, None, params)));
                let best = with_error.reduce(|best, next| if next.1 < best.1 { next } else { best }).unwrap();
                assert_eq!(shared.best_range(None), best, "{n} {book:?}");
            }
        }
        let zeros = Shared {
            book: CodeBook::Uniform(LevelRange { low: -1, high: 1 }),
            has_zero_point: false,
            values: &[0.0; 8],
        };
        assert_eq!(zeros.best_range(None), (Params { scale: 1.0, zero: 0.0 }, 0.0));
    }
}
