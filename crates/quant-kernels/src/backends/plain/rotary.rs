//! Rotary positions of primitives.

use burn::tensor::{Tensor, TensorPrimitive, backend::Backend, ops::FloatTensor};

pub(crate) fn turn_heads<B: Backend>(x: FloatTensor<B>, terms: [FloatTensor<B>; 2], heads: usize) -> FloatTensor<B> {
    let x = Tensor::<B, 3>::from_primitive(TensorPrimitive::Float(x));
    let [cos, sin] =
        terms.map(|terms| Tensor::<B, 3>::from_primitive(TensorPrimitive::Float(terms)).unsqueeze_dim::<4>(2));
    let [batch, tokens, d] = x.dims();
    let half = d / heads / 2;
    let x = x.reshape([batch, tokens, heads, 2 * half]);
    let (first, second) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    let turned = vec![first.clone() * cos.clone() - second.clone() * sin.clone(), first * sin + second * cos];
    Tensor::cat(turned, 3).reshape([batch, tokens, d]).into_primitive().tensor()
}
