//! Rotations of rows, of primitives.

use burn::tensor::{FloatDType, Tensor, TensorData, TensorMetadata, backend::Backend, ops::FloatTensor};

use crate::{
    backends::plain::{
        matrices::{as_matrices, with_shape_of},
        precision::{narrowed, widened},
    },
    rotation::hadamard::{Direction, HadamardTransform},
};

pub(crate) fn rotate<B: Backend>(
    x: FloatTensor<B>,
    transform: &HadamardTransform,
    direction: Direction,
) -> FloatTensor<B> {
    let (shape, dtype) = (x.shape(), x.dtype());
    let x = widened(as_matrices::<B>(x));
    let [order, power] = transform.orders();
    let (device, of_type) = (x.device(), FloatDType::from(x.dtype()));
    let tensor = |values: Vec<f32>, dims: [usize; 3]| {
        Tensor::<B, 3>::from_data(TensorData::new(values, dims), &device).cast(of_type)
    };
    let values = shape.num_elements();
    if values == 0 {
        return with_shape_of(narrowed(x, dtype), shape);
    }
    let signs = tensor(transform.signs().to_vec(), [1, 1, transform.width()]);
    let rows = values / transform.width();
    let x = x.reshape([1, rows, transform.width()]);
    let x = if direction == Direction::There { x * signs.clone() } else { x };
    let sylvester = (0..power * power).map(|index| {
        let both = (index / power) & (index % power);
        if both.count_ones().is_multiple_of(2) { 1.0 } else { -1.0 }
    });
    let runs = x.reshape([1, values / power, power]).matmul(tensor(sylvester.collect(), [1, power, power]));
    let mixing = tensor(transform.mixing().to_vec(), [1, order, order]);
    // From the left it takes the columns of a run, so that it is transposed where the rows are not.
    let mixing = if direction == Direction::There { mixing.transpose() } else { mixing };
    let blocks = values / (order * power);
    let y = mixing.expand([blocks, order, order]).matmul(runs.reshape([blocks, order, power]));
    let y = y.reshape([1, rows, transform.width()]);
    let y = if direction == Direction::Back { y * signs } else { y };
    with_shape_of(narrowed(y, dtype), shape)
}
