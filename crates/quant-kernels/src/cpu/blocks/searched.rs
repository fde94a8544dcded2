//! Scales of least squared error for every block.

use rayon::prelude::*;

use super::{BlockParams, SliceQuantizer};
use crate::{
    cpu::range_search::{Params, Shared},
    spec::block_shape::Cut,
};

/// Columns whose blocks one thread gathers together, so that it reads whole lines of the cache.
const STRIPE: usize = 16;

impl SliceQuantizer {
    /// Scales and zero points of all blocks, each by the range of least squared error. A block that holds a NaN or an infinity
    /// gets NaN.
    pub(crate) fn searched_params(&self, x: &[f32]) -> BlockParams {
        let [outer, groups, columns] = self.shape.param_shape();
        let mut params = vec![Params { scale: 1.0, zero: 0.0 }; outer * groups * columns];
        match self.shape.cut {
            Cut::Whole => params[0] = self.searched(x),
            Cut::AlongRows(run) => {
                let rows = x.par_chunks(self.shape.columns.max(1));
                rows.zip(params.par_chunks_mut(columns.max(1))).for_each(|(row, params)| {
                    row.chunks(run).zip(params).for_each(|(x, params)| *params = self.searched(x));
                });
            }
            Cut::DownColumns(_) => {
                let stripes = columns.div_ceil(STRIPE);
                let found: Vec<Vec<Params>> = (0..outer * groups * stripes)
                    .into_par_iter()
                    .map(|task| {
                        let (group, first) = (task / stripes, task % stripes * STRIPE);
                        self.searched_columns(x, group, first..columns.min(first + STRIPE))
                    })
                    .collect();
                for (params, found) in params.chunks_mut(columns.max(1)).zip(found.chunks(stripes.max(1))) {
                    params.iter_mut().zip(found.iter().flatten()).for_each(|(params, found)| *params = *found);
                }
            }
        }
        let zero_points = self.format.has_zero_points().then(|| params.iter().map(|params| params.zero).collect());
        BlockParams { scales: params.iter().map(|params| params.scale).collect(), zero_points }
    }

    /// Those of some columns of a group of rows.
    fn searched_columns(&self, x: &[f32], group: usize, columns: std::ops::Range<usize>) -> Vec<Params> {
        let rows = self.rows_of_group(group);
        let mut blocks = vec![Vec::with_capacity(rows.len()); columns.len()];
        for row in rows {
            let row = &x[row * self.shape.columns..][columns.clone()];
            blocks.iter_mut().zip(row).for_each(|(block, &x)| block.push(x));
        }
        blocks.iter().map(|block| self.searched(block)).collect()
    }

    fn searched(&self, x: &[f32]) -> Params {
        if x.iter().any(|x| !x.is_finite()) {
            return Params { scale: f32::NAN, zero: f32::NAN };
        }
        Shared { book: self.book, has_zero_point: self.format.has_zero_points(), values: x }.best_range(None).0
    }
}
