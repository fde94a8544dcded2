//! Primitives of any rank, seen as matrices.

use burn::tensor::{Shape, Tensor, TensorMetadata, TensorPrimitive, backend::Backend, ops::FloatTensor};

/// The shape `[outer, rows, columns]` of a primitive.
pub(crate) fn matrices_of(x: &impl TensorMetadata) -> [usize; 3] {
    let shape = x.shape();
    match *shape.as_slice() {
        [] => [1, 1, 1],
        [columns] => [1, 1, columns],
        [ref outer @ .., rows, columns] => [outer.iter().product(), rows, columns],
    }
}

/// A primitive as a tensor of three dimensions.
pub(crate) fn as_matrices<B: Backend>(x: FloatTensor<B>) -> Tensor<B, 3> {
    let shape = matrices_of(&x);
    let x = if x.shape().as_slice() == shape { x } else { B::float_reshape(x, shape.into()) };
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

/// A tensor of three dimensions as a primitive of another shape.
pub(crate) fn with_shape_of<B: Backend>(x: Tensor<B, 3>, shape: Shape) -> FloatTensor<B> {
    let x = x.into_primitive().tensor();
    if x.shape() == shape { x } else { B::float_reshape(x, shape) }
}
