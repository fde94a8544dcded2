//! GELU in its tanh form, of primitives.

use burn::tensor::{Tensor, TensorMetadata, activation, backend::Backend, ops::FloatTensor};

use crate::backends::plain::matrices::{as_matrices, with_shape_of};

const GELU_CUBIC: f64 = 0.044_715;

pub(crate) fn gelu_tanh<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let x = as_matrices::<B>(x);
    let gate = activation::sigmoid(gelu_argument(x.clone()));
    with_shape_of(x * gate, shape)
}

pub(crate) fn gelu_tanh_backward<B: Backend>(x: FloatTensor<B>, gradient: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let (x, gradient) = (as_matrices::<B>(x), as_matrices::<B>(gradient));
    let gate = activation::sigmoid(gelu_argument(x.clone()));
    let slope = (x.clone() * x.clone() * (3.0 * GELU_CUBIC) + 1.0) * gelu_scale();
    let rising = gate.clone() * (gate.clone().neg() + 1.0);
    with_shape_of((gate + x * rising * slope) * gradient, shape)
}

fn gelu_scale() -> f64 {
    2.0 * (2.0 / std::f64::consts::PI).sqrt()
}

fn gelu_argument<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 3> {
    let cube = x.clone() * x.clone() * x.clone();
    (cube * GELU_CUBIC + x) * gelu_scale()
}
