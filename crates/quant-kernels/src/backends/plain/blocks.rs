//! Tensors seen as blocks of values that share a scale.
//!
//! ```text
//! x [.., d_in, d_out]  →  block [outer, values, inner]  →  reduced [outer, 1, inner]
//! ```
//!
//! Every granularity is a reshape to three dimensions whose middle one holds the values that share
//! a scale, so that a range estimator is written once, for blocks. A last group that is shorter
//! than the others is a block of its own.

use burn::tensor::{Tensor, backend::Backend};

use crate::spec::granularity::Granularity;

/// Reduces each block of `x` to `N` values and lays them out as [`Granularity::param_shape`] says.
///
/// # Shapes
///
/// - `x` `[.., d_in, d_out]`, not empty
/// - `reduce`: `[outer, values, inner]` to `N` tensors `[outer, 1, inner]`
/// - output: `N` tensors of `param_shape`
pub(crate) fn reduce_blocks<B: Backend, const D: usize, const N: usize>(
    x: Tensor<B, D>,
    granularity: Granularity,
    param_shape: [usize; D],
    reduce: impl Fn(Tensor<B, 3>) -> [Tensor<B, 3>; N],
) -> [Tensor<B, D>; N] {
    let dims = x.dims();
    let values: usize = dims.iter().product();
    let reduced = match granularity {
        Granularity::PerTensor => reduce(x.reshape([1, values, 1])),
        Granularity::PerToken => {
            let features = dims[D - 1];
            reduce(x.reshape([values / features, features, 1]))
        }
        Granularity::PerChannel => {
            let [rows, columns] = [dims[D - 2], dims[D - 1]];
            reduce(x.reshape([values / (rows * columns), rows, columns]))
        }
        Granularity::PerGroup(size) => {
            let [rows, columns] = [dims[D - 2], dims[D - 1]];
            let matrices = x.reshape([values / (rows * columns), rows, columns]);
            reduce_groups(matrices, size.get(), reduce)
        }
    };
    reduced.map(|reduced| reduced.reshape(param_shape))
}

/// Reduces runs of `size` rows of each column: `[outer, rows, columns]` to
/// `[outer, ⌈rows / size⌉, columns]`.
fn reduce_groups<B: Backend, const N: usize>(
    x: Tensor<B, 3>,
    size: usize,
    reduce: impl Fn(Tensor<B, 3>) -> [Tensor<B, 3>; N],
) -> [Tensor<B, 3>; N] {
    let [outer, rows, columns] = x.dims();
    let (whole, rest) = (rows / size, rows % size);
    let reduce_whole = |x: Tensor<B, 3>| {
        reduce(x.reshape([outer * whole, size, columns])).map(|reduced| reduced.reshape([outer, whole, columns]))
    };
    if rest == 0 {
        return reduce_whole(x);
    }
    let last = reduce(x.clone().narrow(1, whole * size, rest));
    if whole == 0 {
        return last;
    }
    let mut last = last.into_iter();
    reduce_whole(x.narrow(1, 0, whole * size)).map(|first| {
        let parts = std::iter::once(first).chain(last.next()).collect();
        Tensor::cat(parts, 1)
    })
}

/// Makes a scale or zero point broadcast against a tensor of shape `dims`.
///
/// # Shapes
///
/// - `param`: [`Granularity::param_shape`] of `dims`
/// - output: the same, or `dims` per group and when `dims` is empty
pub(crate) fn broadcastable<B: Backend, const D: usize>(
    param: Tensor<B, D>,
    granularity: Granularity,
    dims: [usize; D],
) -> Tensor<B, D> {
    if dims.contains(&0) {
        return Tensor::empty(dims, (&param.device(), param.dtype()));
    }
    let Granularity::PerGroup(size) = granularity else {
        return param;
    };
    let [.., groups, columns] = param.dims()[..] else {
        unreachable!("groups exist from rank 2 on");
    };
    let rows = dims[D - 2];
    let matrices = param.shape().num_elements() / (groups * columns);
    let size = size.get().min(rows);
    param
        .reshape([matrices * groups, 1, columns])
        .repeat_dim(1, size)
        .reshape([matrices, groups * size, columns])
        .narrow(1, 0, rows)
        .reshape(dims)
}

/// The largest value of each block: `[outer, values, inner]` to `[outer, 1, inner]`.
pub(crate) fn max_of<B: Backend>(block: Tensor<B, 3>) -> Tensor<B, 3> {
    match block.dims() {
        [1, _, 1] => block.max().reshape([1, 1, 1]),
        [outer, values, 1] => block.reshape([outer, values]).max_dim(1).reshape([outer, 1, 1]),
        _ => block.max_dim(1),
    }
}

/// The sum of each block: `[outer, values, inner]` to `[outer, 1, inner]`.
pub(crate) fn sum_of<B: Backend>(block: Tensor<B, 3>) -> Tensor<B, 3> {
    match block.dims() {
        [1, _, 1] => block.sum().reshape([1, 1, 1]),
        [outer, values, 1] => block.reshape([outer, values]).sum_dim(1).reshape([outer, 1, 1]),
        _ => block.sum_dim(1),
    }
}
