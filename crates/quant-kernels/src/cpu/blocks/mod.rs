//! Quantisation of a whole tensor, block by block, on all cores.
//!
//! ```text
//! x [outer, rows, columns]  →  y, the same
//! ```
//!
//! Blocks along rows, and short ones down columns, stay in a core's cache between the pass that finds
//! their scales and the one that rounds. Tall ones do not; there each pass goes through whole rows,
//! which memory likes better than narrow stripes of columns.

#[cfg(feature = "flex")]
mod searched;

use std::{mem::MaybeUninit, ops::Range};

use rayon::prelude::*;

use crate::{
    cpu::{
        instruction_set::InstructionSet,
        round_trip::{
            Bounds, Extent, column_params, extent, include_row, magnitude, pass_columns, pass_run, raise_magnitudes,
            round_trip_columns, round_trip_run,
        },
        table_round_trip::{table_columns, table_pass_columns, table_pass_run, table_run},
    },
    spec::{
        block_shape::{BlockShape, Cut},
        formats::{code_book::CodeBook, format::Format},
        quantizer::Quantizer,
    },
};

/// Values below which threads cost more than they save.
const PARALLEL_FROM: usize = 1 << 15;
/// Values that one thread works on at a time where they share a scale.
const RUN: usize = 1 << 16;
/// Columns that a short block's two passes take at a time.
const STRIPE: usize = 256;
/// Rows from which on a stripe no longer stays in a core's cache between the passes.
const TALL: usize = 384;

/// A quantiser for blocks of values by their smallest and largest value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SliceQuantizer {
    pub(crate) set: InstructionSet,
    pub(crate) shape: BlockShape,
    pub(crate) format: Format,
    pub(crate) book: CodeBook,
}

/// Scales and zero points in the order of [`BlockShape::param_shape`].
#[derive(Debug, Clone)]
pub(crate) struct BlockParams {
    pub(crate) scales: Vec<f32>,
    pub(crate) zero_points: Option<Vec<f32>>,
}

/// What is done with each value under its scale.
#[derive(Clone, Copy)]
enum Work<'a> {
    /// It is quantised and restored.
    RoundTrip,
    /// Its gradient passes unless its level was clamped.
    PassInside { gradient: &'a [f32] },
}

impl SliceQuantizer {
    /// The kernel of a quantiser for tensors `[outer, rows, columns]`, with the best instructions that
    /// the processor has.
    pub(crate) fn new(dims: [usize; 3], quantizer: &Quantizer) -> Self {
        Self {
            set: InstructionSet::best(),
            shape: BlockShape::new(dims, quantizer.spec().granularity),
            format: quantizer.spec().format,
            book: quantizer.code_book(),
        }
    }

    /// The same for tensors whose rows are the columns of these.
    #[cfg(feature = "flex")]
    pub(crate) fn transposed(self) -> Self {
        Self { shape: self.shape.transposed(), ..self }
    }

    /// Scales and zero points of all blocks.
    pub(crate) fn params(&self, x: &[f32]) -> BlockParams {
        let [outer, groups, columns] = self.shape.param_shape();
        let count = outer * groups * columns;
        let mut scales = vec![1.0; count];
        let mut zero_points = vec![0.0; count];
        match self.shape.cut {
            Cut::Whole => (scales[0], zero_points[0]) = self.whole(x),
            Cut::AlongRows(run) => {
                let runs = self.shape.columns.div_ceil(run).max(1);
                let rows = x.par_chunks(self.shape.columns.max(1)).with_min_len(self.rows_per_task());
                (rows, scales.par_chunks_mut(runs), zero_points.par_chunks_mut(runs)).into_par_iter().for_each(
                    |(row, scales, zero_points)| {
                        for ((x, scale), zero_point) in row.chunks(run).zip(scales).zip(zero_points) {
                            (*scale, *zero_point) = self.of_run(x);
                        }
                    },
                );
            }
            Cut::DownColumns(_) => {
                let columns = self.shape.columns.max(1);
                let rows = (scales.par_chunks_mut(columns), zero_points.par_chunks_mut(columns));
                rows.into_par_iter().enumerate().for_each(|(group, (scales, zero_points))| {
                    let bounds = self.bounds_of_group(x, self.rows_of_group(group));
                    self.params_of(&bounds, scales, zero_points);
                });
            }
        }
        BlockParams { scales, zero_points: self.format.has_zero_points().then_some(zero_points) }
    }

    /// All values quantised and restored, scales found on the way.
    pub(crate) fn round_trip(&self, x: &[f32]) -> Vec<f32> {
        self.run(x, None, Work::RoundTrip)
    }

    /// All values quantised and restored by given scales.
    pub(crate) fn round_trip_by(&self, x: &[f32], params: &BlockParams) -> Vec<f32> {
        self.run(x, Some(params), Work::RoundTrip)
    }

    /// The gradient where no level was clamped, 0 elsewhere.
    pub(crate) fn pass_inside(&self, x: &[f32], params: &BlockParams, gradient: &[f32]) -> Vec<f32> {
        assert_eq!(x.len(), gradient.len(), "there is one gradient for each value");
        self.run(x, Some(params), Work::PassInside { gradient })
    }

    fn run(&self, x: &[f32], given: Option<&BlockParams>, work: Work<'_>) -> Vec<f32> {
        let BlockShape { columns, cut, .. } = self.shape;
        assert_eq!(x.len(), self.shape.len(), "the shape is that of the values");
        let mut out = Vec::with_capacity(x.len());
        let spare = &mut out.spare_capacity_mut()[..x.len()];
        match cut {
            Cut::Whole => {
                let (scale, zero_point) = match given {
                    Some(params) => params.at(0),
                    None => self.whole(x),
                };
                spare.par_chunks_mut(RUN).enumerate().for_each(|(chunk, out)| {
                    let range = chunk * RUN..chunk * RUN + out.len();
                    self.work_on_run(x, range, scale, zero_point, work, out);
                });
            }
            Cut::AlongRows(run) => {
                let runs = columns.div_ceil(run);
                let rows = spare.par_chunks_mut(columns.max(1)).with_min_len(self.rows_per_task());
                rows.enumerate().for_each(|(row, out)| {
                    for (index, out) in out.chunks_mut(run).enumerate() {
                        let start = row * columns + index * run;
                        let range = start..start + out.len();
                        let (scale, zero_point) = match given {
                            Some(params) => params.at(row * runs + index),
                            None => self.of_run(&x[range.clone()]),
                        };
                        self.work_on_run(x, range, scale, zero_point, work, out);
                    }
                });
            }
            Cut::DownColumns(_) => self.run_down_columns(x, given, work, spare),
        }
        // SAFETY: every arm above has written each of the first `x.len()` elements once.
        #[expect(unsafe_code, reason = "a large result is not filled with zeros first")]
        unsafe {
            out.set_len(x.len());
        }
        out
    }

    fn run_down_columns(&self, x: &[f32], given: Option<&BlockParams>, work: Work<'_>, out: &mut [MaybeUninit<f32>]) {
        let Cut::DownColumns(size) = self.shape.cut else { unreachable!("the caller has looked") };
        if let Some(params) = given {
            self.apply_to_rows(x, params, work, out);
        } else if size >= TALL {
            self.apply_to_rows(x, &self.params(x), work, out);
        } else {
            self.run_by_stripes(x, work, out);
        }
    }

    /// All rows under scales that are known.
    fn apply_to_rows(&self, x: &[f32], params: &BlockParams, work: Work<'_>, out: &mut [MaybeUninit<f32>]) {
        let columns = self.shape.columns.max(1);
        out.par_chunks_mut(columns).with_min_len(self.rows_per_task()).enumerate().for_each(|(row, out)| {
            let of_group = self.group_of_row(row) * columns;
            let of_group = of_group..of_group + columns;
            let zero_points = params.zero_points.as_ref().map(|all| &all[of_group.clone()]);
            self.work_on_columns(x, row * columns, &params.scales[of_group], zero_points, work, out);
        });
    }

    /// Short groups, each stripe of columns twice while it is in the cache.
    fn run_by_stripes(&self, x: &[f32], work: Work<'_>, out: &mut [MaybeUninit<f32>]) {
        let [outer, groups, columns] = self.shape.param_shape();
        let stripes = columns.div_ceil(STRIPE);
        let out = Rectangle { start: out.as_mut_ptr(), len: out.len() };
        let work_on = |task: usize| {
            let (group, stripe) = (task / stripes, task % stripes);
            let rows = self.rows_of_group(group);
            let stripe = stripe * STRIPE..columns.min((stripe + 1) * STRIPE);
            let mut bounds = ColumnBounds::new(stripe.len());
            self.include_rows(&mut bounds, x, rows.clone(), stripe.clone());
            let (mut scales, mut zero_points) = ([0.0; STRIPE], [0.0; STRIPE]);
            let (scales, zero_points) = (&mut scales[..stripe.len()], &mut zero_points[..stripe.len()]);
            self.params_of(&bounds, scales, zero_points);
            let zero_points = self.format.has_zero_points().then_some(&*zero_points);
            for row in rows {
                let start = row * columns + stripe.start;
                // SAFETY: tasks are disjoint in rows or in columns, and so are the ranges of each.
                #[expect(unsafe_code, reason = "threads write to different columns of the same rows")]
                let out = unsafe { out.slice(start..start + stripe.len()) };
                self.work_on_columns(x, start, scales, zero_points, work, out);
            }
        };
        let tasks = outer * groups * stripes;
        if self.shape.len() < PARALLEL_FROM {
            (0..tasks).for_each(work_on);
        } else {
            (0..tasks).into_par_iter().for_each(work_on);
        }
    }

    /// Values that stand side by side from `start` on, with a scale each.
    fn work_on_columns(
        &self,
        x: &[f32],
        start: usize,
        scales: &[f32],
        zero_points: Option<&[f32]>,
        work: Work<'_>,
        out: &mut [MaybeUninit<f32>],
    ) {
        let range = start..start + out.len();
        let set = self.set;
        match (self.book, work) {
            (CodeBook::Uniform(levels), Work::RoundTrip) => {
                round_trip_columns(set, &x[range], scales, zero_points, Bounds::new(levels), out);
            }
            (CodeBook::Uniform(levels), Work::PassInside { gradient }) => {
                let (x, gradient) = (&x[range.clone()], &gradient[range]);
                pass_columns(set, x, gradient, scales, zero_points, Bounds::new(levels), out);
            }
            (CodeBook::Table(table), Work::RoundTrip) => table_columns(set, &x[range], scales, table, out),
            (CodeBook::Table(table), Work::PassInside { gradient }) => {
                table_pass_columns(set, &x[range.clone()], &gradient[range], scales, table, out);
            }
        }
    }

    fn work_on_run(
        &self,
        x: &[f32],
        range: Range<usize>,
        scale: f32,
        zero_point: f32,
        work: Work<'_>,
        out: &mut [MaybeUninit<f32>],
    ) {
        let zero_point = self.format.has_zero_points().then_some(zero_point);
        let set = self.set;
        match (self.book, work) {
            (CodeBook::Uniform(levels), Work::RoundTrip) => {
                round_trip_run(set, &x[range], scale, zero_point, Bounds::new(levels), out);
            }
            (CodeBook::Uniform(levels), Work::PassInside { gradient }) => {
                pass_run(set, &x[range.clone()], &gradient[range], scale, zero_point, Bounds::new(levels), out);
            }
            (CodeBook::Table(table), Work::RoundTrip) => table_run(set, &x[range], scale, table, out),
            (CodeBook::Table(table), Work::PassInside { gradient }) => {
                table_pass_run(set, &x[range.clone()], &gradient[range], scale, table, out);
            }
        }
    }

    /// Scale and zero point of all values together.
    fn whole(&self, x: &[f32]) -> (f32, f32) {
        let extent = x.par_chunks(RUN).map(|run| self.extent(run)).reduce(|| Extent::EMPTY, Extent::join);
        extent.params(self.format, self.book.highest())
    }

    fn of_run(&self, x: &[f32]) -> (f32, f32) {
        self.extent(x).params(self.format, self.book.highest())
    }

    fn extent(&self, x: &[f32]) -> Extent {
        if self.format.has_zero_points() { extent(self.set, x) } else { magnitude(self.set, x) }
    }

    /// The bounds of all columns over the rows of one group.
    fn bounds_of_group(&self, x: &[f32], rows: Range<usize>) -> ColumnBounds {
        let columns = self.shape.columns;
        let step = self.rows_per_task();
        let parts = rows.len().div_ceil(step);
        (0..parts)
            .into_par_iter()
            .map(|part| {
                let mut bounds = ColumnBounds::new(columns);
                let first = rows.start + part * step;
                self.include_rows(&mut bounds, x, first..rows.end.min(first + step), 0..columns);
                bounds
            })
            .reduce(|| ColumnBounds::new(columns), ColumnBounds::join)
    }

    /// Takes some columns of some rows into their bounds.
    fn include_rows(&self, bounds: &mut ColumnBounds, x: &[f32], rows: Range<usize>, columns: Range<usize>) {
        for row in rows {
            let row = &x[row * self.shape.columns..][columns.clone()];
            raise_magnitudes(self.set, row, &mut bounds.magnitudes);
            if self.format.has_zero_points() {
                include_row(self.set, row, &mut bounds.min, &mut bounds.max);
            }
        }
    }

    fn params_of(&self, bounds: &ColumnBounds, scales: &mut [f32], zero_points: &mut [f32]) {
        let ColumnBounds { magnitudes, min, max } = bounds;
        column_params(self.set, magnitudes, min, max, self.format, self.book.highest(), scales, zero_points);
    }

    /// The group that a row, counted through all matrices, is in.
    fn group_of_row(&self, row: usize) -> usize {
        let Cut::DownColumns(size) = self.shape.cut else { unreachable!("only columns have groups of rows") };
        let (matrix, row) = (row / self.shape.rows, row % self.shape.rows);
        matrix * self.shape.rows.div_ceil(size) + row / size
    }

    /// The rows, counted through all matrices, of a group, counted the same way.
    fn rows_of_group(&self, group: usize) -> Range<usize> {
        let Cut::DownColumns(size) = self.shape.cut else { unreachable!("only columns have groups of rows") };
        let groups = self.shape.rows.div_ceil(size);
        let (matrix, group) = (group / groups, group % groups);
        let first = matrix * self.shape.rows;
        first + group * size..first + self.shape.rows.min((group + 1) * size)
    }

    fn rows_per_task(&self) -> usize {
        (PARALLEL_FROM / self.shape.columns.max(1)).max(1)
    }
}

impl BlockParams {
    fn at(&self, index: usize) -> (f32, f32) {
        (self.scales[index], self.zero_points.as_ref().map_or(0.0, |all| all[index]))
    }
}

/// What the scales of columns follow from.
struct ColumnBounds {
    magnitudes: Vec<u32>,
    min: Vec<f32>,
    max: Vec<f32>,
}

impl ColumnBounds {
    /// Those of no value. Ranges contain 0.
    fn new(columns: usize) -> Self {
        Self { magnitudes: vec![0; columns], min: vec![0.0; columns], max: vec![0.0; columns] }
    }

    fn join(mut self, other: Self) -> Self {
        self.magnitudes.iter_mut().zip(other.magnitudes).for_each(|(a, b)| *a = (*a).max(b));
        self.min.iter_mut().zip(other.min).for_each(|(a, b)| *a = a.min(b));
        self.max.iter_mut().zip(other.max).for_each(|(a, b)| *a = a.max(b));
        self
    }
}

/// Memory that several threads write different parts of.
struct Rectangle {
    start: *mut MaybeUninit<f32>,
    len: usize,
}

// SAFETY: the pointer is only used through `slice`, whose callers keep their ranges apart.
#[expect(unsafe_code, reason = "threads write to different columns of the same rows")]
unsafe impl Sync for Rectangle {}

impl Rectangle {
    /// # Safety
    ///
    /// While the slice lives, nobody else may have one that overlaps it.
    #[expect(unsafe_code, reason = "threads write to different columns of the same rows")]
    #[expect(clippy::mut_from_ref, reason = "callers keep their ranges apart")]
    unsafe fn slice(&self, range: Range<usize>) -> &mut [MaybeUninit<f32>] {
        assert!(range.start <= range.end && range.end <= self.len, "a range outside the memory");
        // SAFETY: the range lies inside the memory, and by contract nobody else uses it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests;
