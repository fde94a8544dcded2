//! Ranges of least error of a layer's outputs, after the feedback of GPTQ.
//!
//! ```text
//! s = f·s₀,   f of least  (w − ŵ)ᵀ H (w − ŵ)  for each output w [d_in], all of its groups together
//! f = 2^(k/4),  k = −3 ..= 4;   then f·2^(±1/8)
//! ```
//!
//! Feedback moves weights away from where they were, so that a range of least error for rounding alone cuts off what
//! it adds: at 2 bits GPTQ with such a range is worse than rounding to the nearest. All of a tensor has one factor
//! where it has one scale.

use super::{gptq::Gptq, level_grid::LevelGrid};
use crate::{
    cpu::range_search::Params, error::Result, packed::packed_spec::PackedSpec, spec::granularity::Granularity,
};

const STEPS: std::ops::RangeInclusive<i16> = -3..=4;
const STEPS_PER_DOUBLING: f32 = 4.0;

/// A weight and the ranges that rounding alone would have.
pub(super) struct Start<'a> {
    pub(super) spec: PackedSpec,
    /// `[d_in, d_out]`, row-major.
    pub(super) weights: &'a [f32],
    pub(super) params: &'a [Params],
}

/// The factor of each output's scales, and the error that it gives.
struct Found {
    factors: Vec<f32>,
    errors: Vec<f64>,
}

impl Start<'_> {
    /// The parameters of least error of the outputs.
    pub(super) fn fitted(&self, gptq: &Gptq) -> Result<Vec<Params>> {
        let d_out = self.spec.shape[1];
        let mut found = Found { factors: vec![1.0; d_out], errors: vec![f64::INFINITY; d_out] };
        for step in STEPS {
            let factor = (f32::from(step) / STEPS_PER_DOUBLING).exp2();
            self.try_factors(gptq, &vec![factor; d_out], &mut found)?;
        }
        let coarse = found.factors.clone();
        for half_step in [-0.5, 0.5] {
            let by = (half_step / STEPS_PER_DOUBLING).exp2();
            let factors: Vec<f32> = coarse.iter().map(|factor| factor * by).collect();
            self.try_factors(gptq, &factors, &mut found)?;
        }
        self.scaled(&found.factors)
    }

    /// Keeps the factors that give less error than those found before.
    fn try_factors(&self, gptq: &Gptq, factors: &[f32], found: &mut Found) -> Result<()> {
        let grid = LevelGrid::new(self.spec, &self.scaled(factors)?)?;
        let mut errors = gptq.round(&grid, self.weights, factors.len()).errors;
        if self.spec.granularity == Granularity::PerTensor {
            let of_all = errors.iter().sum();
            errors.fill(of_all);
        }
        for (column, (error, factor)) in errors.iter().zip(factors).enumerate() {
            if *error < found.errors[column] {
                (found.errors[column], found.factors[column]) = (*error, *factor);
            }
        }
        Ok(())
    }

    /// The parameters with a factor for each output. Those of a tensor have the first.
    fn scaled(&self, factors: &[f32]) -> Result<Vec<Params>> {
        let columns = self.spec.scale_shape()?[1].max(1);
        let book = self.spec.code_book()?;
        let scaled = |(index, params): (usize, &Params)| params.times(factors[index % columns], book);
        Ok(self.params.iter().enumerate().map(scaled).collect())
    }
}
