//! Quantisation by learned steps on slices, and its gradients.
//!
//! ```text
//! r  = clamp(x / s, −Q, Q)        y = ⌊r⌉ · s
//!
//! dx = g where |x / s| < Q, else 0
//! ds = f · Σ g · (⌊r⌉ − r where |x / s| < Q, else r)
//! ```
//!
//! A step of 0 counts as NaN, so that what it makes of the values is no number. `⌊·⌉` rounds half to even; `g` is the gradient of y and `f` the quantiser's gradient scale. Values
//! and `dx` are those of the plain-tensor functions in `reference`, to the bit. The terms of `ds` are
//! summed in f64, where each product of two f32 is exact, and rounded to f32 at the end; the order of
//! the sum does not depend on the number of threads.

use std::{
    mem::{MaybeUninit, take},
    ops::Range,
};

use rayon::prelude::*;

use crate::{
    cpu::{instruction_set::InstructionSet, multiversion::multiversion},
    spec::{granularity::Granularity, step_quantizer::StepQuantizer},
};

/// Values that one thread works on at a time, or one row if that is more.
const RUN: usize = 1 << 15;

/// Learned steps of a matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepKernel {
    set: InstructionSet,
    columns: usize,
    /// Values that the same steps belong to, one after the other.
    group: usize,
    /// Steps of a group: one, or one for each column.
    steps: usize,
    high: f32,
    gradient_scale: f64,
}

impl StepKernel {
    /// The kernel for matrices `[rows, columns]`, not empty, with the best instructions that the
    /// processor has.
    pub(crate) fn new([rows, columns]: [usize; 2], quantizer: &StepQuantizer) -> Self {
        let (group_rows, steps) = match quantizer.granularity() {
            Granularity::PerTensor | Granularity::PerToken => (rows, 1),
            Granularity::PerChannel => (rows, columns),
            Granularity::PerGroup(size) => (size.get().min(rows), columns),
        };
        Self {
            set: InstructionSet::best(),
            columns,
            group: group_rows * columns,
            steps,
            high: quantizer.levels().high as f32,
            gradient_scale: quantizer.gradient_scale(),
        }
    }

    /// The quantised values.
    pub(crate) fn forward(&self, x: &[f32], steps: &[f32]) -> Vec<f32> {
        let (y, _) = self.each_part(x.len(), steps.len(), |part, y| {
            let (x, steps) = (&x[part.values], &steps[part.steps]);
            match *steps {
                [step] => round_run(self.set, x, step, self.high, y),
                _ => {
                    for (x, y) in x.chunks(self.columns).zip(y.chunks_mut(self.columns)) {
                        round_columns(self.set, x, steps, self.high, y);
                    }
                }
            }
        });
        y
    }

    /// The gradients of values and of steps.
    pub(crate) fn backward(&self, x: &[f32], steps: &[f32], gradient: &[f32]) -> (Vec<f32>, Vec<f32>) {
        assert_eq!(x.len(), gradient.len(), "there is one gradient for each value");
        let (of_x, sums) = self.each_part(x.len(), steps.len(), |part, of_x| {
            let own = part.steps.clone();
            let (x, gradient, steps) = (&x[part.values.clone()], &gradient[part.values], &steps[part.steps]);
            let sums = if let [step] = *steps {
                vec![backward_run(self.set, x, gradient, step, self.high, of_x)]
            } else {
                let mut sums = vec![0.0; steps.len()];
                let rows = x.chunks(self.columns).zip(gradient.chunks(self.columns));
                for ((x, gradient), of_x) in rows.zip(of_x.chunks_mut(self.columns)) {
                    backward_columns(self.set, x, gradient, steps, self.high, &mut sums, of_x);
                }
                sums
            };
            (own, sums)
        });
        let mut totals = vec![0.0; steps.len()];
        for (own, sums) in sums {
            totals[own].iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        }
        (of_x, totals.into_iter().map(|total: f64| (total * self.gradient_scale) as f32).collect())
    }

    /// Runs `work` on all parts. It must write all of the slice that it is handed. What it gives
    /// back comes in the order of the parts.
    fn each_part<T: Send>(
        &self,
        len: usize,
        steps: usize,
        work: impl Fn(Part, &mut [MaybeUninit<f32>]) -> T + Sync,
    ) -> (Vec<f32>, Vec<T>) {
        assert_eq!(steps, len.div_ceil(self.group) * self.steps, "the steps are those of the matrix");
        let mut out = Vec::with_capacity(len);
        let mut rest = &mut out.spare_capacity_mut()[..len];
        let parts: Vec<_> = self
            .parts(len)
            .map(|part| {
                let (own, after) = take(&mut rest).split_at_mut(part.values.len());
                rest = after;
                (part, own)
            })
            .collect();
        assert!(rest.is_empty(), "the parts are the whole matrix");
        let results = parts.into_par_iter().map(|(part, own)| work(part, own)).collect();
        // SAFETY: the parts are the first `len` elements, and `work` has written all of each.
        #[expect(unsafe_code, reason = "a large result is not filled with zeros first")]
        unsafe {
            out.set_len(len);
        }
        (out, results)
    }

    /// Whole rows of one group each, in order.
    fn parts(&self, len: usize) -> impl Iterator<Item = Part> {
        let Self { group, steps, .. } = *self;
        let longest = (RUN / self.columns).max(1) * self.columns;
        (0..len).step_by(group).enumerate().flat_map(move |(index, first)| {
            let end = len.min(first + group);
            (first..end).step_by(longest).map(move |start| Part {
                values: start..end.min(start + longest),
                steps: index * steps..(index + 1) * steps,
            })
        })
    }
}

/// Values of one group, and the steps of the group.
struct Part {
    values: Range<usize>,
    steps: Range<usize>,
}

/// A step, NaN for one of 0.
#[inline(always)]
fn usable(step: f32) -> f32 {
    if step == 0.0 { f32::NAN } else { step }
}

/// `clamp(x / s, −Q, Q)`, in which a NaN stays one.
#[inline(always)]
fn clamped(x: f32, step: f32, high: f32) -> f32 {
    let ratio = x / step;
    let ratio = if ratio < -high { -high } else { ratio };
    if ratio > high { high } else { ratio }
}

#[inline(always)]
fn value(x: f32, step: f32, high: f32) -> f32 {
    let step = usable(step);
    clamped(x, step, high).round_ties_even() * step
}

/// The gradient of a value, and its part of the gradient of the step.
#[inline(always)]
fn gradients(x: f32, gradient: f32, step: f32, high: f32) -> (f32, f64) {
    let ratio = clamped(x, usable(step), high);
    let level = ratio.round_ties_even();
    // A NaN is not inside, and goes into the sum.
    let inside = ratio.abs() < high;
    let slope = if inside { level - ratio } else { level };
    (if inside { gradient } else { 0.0 }, f64::from(gradient) * f64::from(slope))
}

multiversion! {
    fn round_run(x: &[f32], step: f32, high: f32, y: &mut [MaybeUninit<f32>]) {
        for (y, &x) in y.iter_mut().zip(x) {
            y.write(value(x, step, high));
        }
    }
}

multiversion! {
    fn round_columns(x: &[f32], steps: &[f32], high: f32, y: &mut [MaybeUninit<f32>]) {
        for ((y, &x), &step) in y.iter_mut().zip(x).zip(steps) {
            y.write(value(x, step, high));
        }
    }
}

multiversion! {
    fn backward_run(x: &[f32], gradient: &[f32], step: f32, high: f32, of_x: &mut [MaybeUninit<f32>]) -> f64 {
        // Independent sums, which the compiler maps to registers.
        const LANES: usize = 16;
        let mut sums = [0.0; LANES];
        let chunks = x.chunks(LANES).zip(gradient.chunks(LANES));
        for ((x, gradient), of_x) in chunks.zip(of_x.chunks_mut(LANES)) {
            for (((sum, of_x), &x), &gradient) in sums.iter_mut().zip(of_x).zip(x).zip(gradient) {
                let (passed, term) = gradients(x, gradient, step, high);
                of_x.write(passed);
                *sum += term;
            }
        }
        sums.into_iter().sum()
    }
}

multiversion! {
    fn backward_columns(
        x: &[f32], gradient: &[f32], steps: &[f32], high: f32, sums: &mut [f64], of_x: &mut [MaybeUninit<f32>]
    ) {
        let values = x.iter().zip(gradient).zip(steps);
        for (((&x, &gradient), &step), (sum, of_x)) in values.zip(sums.iter_mut().zip(of_x)) {
            let (passed, term) = gradients(x, gradient, step, high);
            of_x.write(passed);
            *sum += term;
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        backend::{Flex, flex::FlexDevice},
        tensor::Tensor,
    };

    use super::*;
    use crate::{spec::bit_width::BitWidth, tensor::learned_step::LearnedStep};

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let dims = [83, 409];
        let x: Vec<f32> = (0..dims[0] * dims[1]).map(|i| ((i * 7919) % 10_007) as f32 / 5003.5 - 1.0).collect();
        let gradient: Vec<f32> = x.iter().map(|x| x * x - 0.3).collect();
        let sample = Tensor::<Flex, 1>::from_floats(x.as_slice(), &FlexDevice).reshape(dims);
        for granularity in ["per-tensor", "per-channel", "per-group:5"] {
            let learned = LearnedStep::new(&sample, BitWidth::B3, granularity.parse().unwrap()).unwrap();
            let steps: Vec<f32> = learned.step.val().into_data().to_vec().unwrap();
            let best = StepKernel::new(dims, &learned.quantizer(dims));
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let results = InstructionSet::available().map(|set| {
                let kernel = StepKernel { set, ..best };
                let (of_x, of_step) = kernel.backward(&x, &steps, &gradient);
                [kernel.forward(&x, &steps), of_x, of_step].map(bits)
            });
            let results: Vec<_> = results.collect();
            assert!(results.iter().all(|result| *result == results[0]), "{granularity}");
        }
    }
}
