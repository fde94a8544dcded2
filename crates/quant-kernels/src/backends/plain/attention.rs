//! Causal self-attention of primitives.

use burn::tensor::{
    Bool, Tensor, TensorPrimitive, activation,
    backend::Backend,
    module::attention,
    ops::{AttentionModuleOptions, FloatTensor},
};

use crate::backends::head_split::{HeadSplit, repeat_heads};

pub(crate) fn causal_attention<B: Backend>(qkv: FloatTensor<B>, split: HeadSplit) -> FloatTensor<B> {
    let [q, k, v] = split.split::<B>(Tensor::from_primitive(TensorPrimitive::Float(qkv)));
    let options = AttentionModuleOptions { scale: Some(split.scale), is_causal: true, ..Default::default() };
    HeadSplit::join(attention(q, k, v, None, None, options)).into_primitive().tensor()
}

pub(crate) fn cached_attention<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    scale: f64,
) -> FloatTensor<B> {
    let [q, k, v] = [q, k, v].map(|x| Tensor::<B, 4>::from_primitive(TensorPrimitive::Float(x)));
    let sharing = q.dims()[1] / k.dims()[1].max(1);
    let [k, v] = [k, v].map(|x| repeat_heads(x, sharing));
    let options = AttentionModuleOptions { scale: Some(scale), is_causal: true, ..Default::default() };
    HeadSplit::join(attention(q, k, v, None, None, options)).into_primitive().tensor()
}

pub(crate) fn causal_attention_backward<B: Backend>(
    qkv: FloatTensor<B>,
    gradient: FloatTensor<B>,
    split: HeadSplit,
) -> FloatTensor<B> {
    let [q, k, v] = split.split::<B>(Tensor::from_primitive(TensorPrimitive::Float(qkv)));
    let [batch, heads, tokens, width] = q.dims();
    let gradient = Tensor::<B, 3>::from_primitive(TensorPrimitive::Float(gradient));
    let gradient = gradient.reshape([batch, tokens, heads, width]).swap_dims(1, 2);
    let hidden = Tensor::<B, 2, Bool>::tril_mask([tokens, tokens], 0, &q.device()).unsqueeze::<4>();
    let scores = (q.clone() * split.scale).matmul(k.clone().transpose()).mask_fill(hidden, f32::MIN);
    let p = activation::softmax(scores, 3);
    let dp = gradient.clone().matmul(v.transpose());
    let mean = (p.clone() * dp.clone()).sum_dim(3);
    let ds = p.clone() * (dp - mean) * split.scale;
    let parts = [ds.clone().matmul(k), ds.transpose().matmul(q), p.transpose().matmul(gradient)];
    Tensor::cat(parts.map(HeadSplit::join).to_vec(), 2).into_primitive().tensor()
}
