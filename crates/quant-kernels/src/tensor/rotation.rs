//! Rotations of tensors.

use burn::tensor::{Tensor, TensorPrimitive};

use crate::{
    backends::quant_backend::QuantBackend,
    rotation::hadamard::{Direction, HadamardTransform},
};

/// `x·R` of each row, or `x·Rᵀ`, with the gradient of that product.
///
/// # Shapes
///
/// - `x` and output `[.., transform.width()]`
///
/// # Panics
///
/// If the rows are of another width.
///
/// ```
/// use burn::{backend::Flex, tensor::Tensor};
/// use quant_kernels::{HadamardTransform, Rotation, rotation::hadamard::Direction, tensor::rotation::rotate};
///
/// let transform = HadamardTransform::of(Rotation::Hadamard(0), 4).unwrap();
/// let x = Tensor::<Flex, 2>::from_floats([[0.0, 2.0, 0.0, 0.0]], &Default::default());
/// let rotated = rotate(x, &transform, Direction::There);
/// assert_eq!(rotated.clone().abs().into_data().to_vec::<f32>().unwrap(), [1.0; 4]);
/// let back = rotate(rotated, &transform, Direction::Back);
/// assert_eq!(back.into_data().to_vec::<f32>().unwrap(), [0.0, 2.0, 0.0, 0.0]);
/// ```
pub fn rotate<B: QuantBackend, const D: usize>(
    x: Tensor<B, D>,
    transform: &HadamardTransform,
    direction: Direction,
) -> Tensor<B, D> {
    let (dims, width) = (x.dims(), transform.width());
    assert_eq!(dims.last(), Some(&width), "values of shape {dims:?} do not end in {width}");
    Tensor::from_primitive(TensorPrimitive::Float(B::rotate(x.into_primitive().tensor(), transform, direction)))
}

/// `Rᵀ·W`: the weight of a layer for inputs that were rotated; or `R·W`, which takes that back.
///
/// # Shapes
///
/// - `weight` and output `[transform.width(), d_out]`
///
/// # Panics
///
/// If there are more or fewer inputs.
pub fn rotate_inputs<B: QuantBackend>(
    weight: Tensor<B, 2>,
    transform: &HadamardTransform,
    direction: Direction,
) -> Tensor<B, 2> {
    rotate(weight.transpose(), transform, direction).transpose()
}
