//! Backends, and the operations that they may have kernels for.
//!
//! ```text
//! reference:   x ─ abs ─ max ─ div ─ … ─ round ─ clamp ─ mul ─→ y      a pass over memory each
//! kernel:      x ─────────────────────────────────────────────→ y      one for scales, one for y
//! ```

use burn::tensor::{
    FloatDType, Tensor, TensorMetadata, TensorPrimitive,
    backend::{AutodiffBackend, Backend},
    ops::FloatTensor,
};

use crate::{
    ActivationBits, HeadSplit, LinearTerms, PackedOperand, Quantizer, StepQuantizer, packed_linear, reference,
};

/// A backend of burn with the operations of this crate.
///
/// Every method has a default that is made of the backend's plain tensor operations, so any backend
/// can be used with an empty `impl`. The backends of burn that have kernels here override them;
/// what they compute is the same, bit for bit in f32.
///
/// | backend | cargo feature | kernels |
/// |---|---|---|
/// | `Flex` | `flex` | vector instructions chosen at run time, all cores |
/// | `NdArray` | `ndarray` | the same, after a copy |
/// | `Cuda` | `cuda` | CubeCL |
/// | `Wgpu` | `wgpu` | CubeCL |
/// | `Autodiff<B>` | `autodiff` | those of `B`, with gradients |
///
/// Primitives have any rank. The last two dimensions are the rows and columns that a granularity
/// speaks of; a vector is one row.
pub trait QuantBackend: Backend {
    /// The values that `x` has after quantisation, with the gradient of the quantiser's rule.
    ///
    /// # Shapes
    ///
    /// - `x` and output: any, not empty
    fn fake_quantize(x: FloatTensor<Self>, quantizer: &Quantizer) -> FloatTensor<Self> {
        let params = Self::choose_params(x.clone(), quantizer);
        Self::fake_quantize_by(x, &params, quantizer)
    }

    /// Scales and zero points of `x`. No gradient flows through them.
    ///
    /// # Shapes
    ///
    /// - `x`: any, not empty
    /// - output: see [`PrimitiveParams`]
    fn choose_params(x: FloatTensor<Self>, quantizer: &Quantizer) -> PrimitiveParams<Self> {
        reference::choose_params_of_primitive(x, quantizer)
    }

    /// The values that `x` has after quantisation by given scales, without a gradient.
    ///
    /// # Shapes
    ///
    /// - `x` and output: the shape that the parameters were chosen for
    fn fake_quantize_by(
        x: FloatTensor<Self>,
        params: &PrimitiveParams<Self>,
        quantizer: &Quantizer,
    ) -> FloatTensor<Self> {
        reference::fake_quantize_primitive(x, params, quantizer)
    }

    /// The gradient of [`GradientRule::Clipped`](crate::GradientRule::Clipped): `gradient` where the level of `x` was not clamped,
    /// 0 elsewhere.
    ///
    /// # Shapes
    ///
    /// - `x`, `gradient` and output: the same
    fn pass_inside(
        x: FloatTensor<Self>,
        params: &PrimitiveParams<Self>,
        gradient: FloatTensor<Self>,
        quantizer: &Quantizer,
    ) -> FloatTensor<Self> {
        reference::pass_inside_primitive(x, params, gradient, quantizer)
    }

    /// The values that `x` has after quantisation by learned steps, with the gradients of
    /// [`learned_step_backward`](Self::learned_step_backward).
    ///
    /// # Shapes
    ///
    /// - `x` and output `[rows, columns]`, not empty
    /// - `step` `[1, 1]` per tensor, `[1, columns]` per channel, `[⌈rows / n⌉, columns]` per group
    fn learned_step(x: FloatTensor<Self>, step: FloatTensor<Self>, quantizer: &StepQuantizer) -> FloatTensor<Self> {
        reference::learned_step_primitive::<Self>(x, step, quantizer)
    }

    /// The gradients of values and of steps, the latter multiplied by the quantiser's gradient scale.
    ///
    /// # Shapes
    ///
    /// - `x`, `gradient` and first output `[rows, columns]`, not empty
    /// - `step` and second output: as for [`learned_step`](Self::learned_step)
    fn learned_step_backward(
        x: FloatTensor<Self>,
        step: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        quantizer: &StepQuantizer,
    ) -> [FloatTensor<Self>; 2] {
        reference::learned_step_backward_primitive::<Self>(x, step, gradient, quantizer)
    }

    /// [`packed_linear`](crate::packed_linear).
    ///
    /// # Shapes
    ///
    /// - `x` `[rows, d_in]`, output `[rows, d_out]`
    fn packed_linear(
        x: FloatTensor<Self>,
        weight: PackedOperand<'_>,
        activations: ActivationBits,
        terms: LinearTerms<Self>,
    ) -> FloatTensor<Self> {
        packed_linear::in_plain_operations::<Self>(x, weight, activations, terms)
    }

    /// The values of packed weights, without a gradient. Backends with a device of their own copy
    /// the codes to it once, and widen them there.
    ///
    /// # Shapes
    ///
    /// - output `[d_in, d_out]`
    fn widen_packed(weight: PackedOperand<'_>, device: &Self::Device, dtype: FloatDType) -> FloatTensor<Self> {
        packed_linear::widened_on_host::<Self>(weight, device, dtype)
    }

    /// [`gelu_tanh`](crate::gelu_tanh).
    ///
    /// # Shapes
    ///
    /// - `x` and output: any
    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        reference::gelu_tanh_primitive::<Self>(x)
    }

    /// The gradient of GELU's input from that of its output.
    ///
    /// # Shapes
    ///
    /// - `x`, `gradient` and output: the same
    fn gelu_tanh_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        reference::gelu_tanh_backward_primitive::<Self>(x, gradient)
    }

    /// [`causal_attention`](crate::causal_attention).
    ///
    /// # Shapes
    ///
    /// - `qkv` `[batch, tokens, 3 · d]`, output `[batch, tokens, d]`
    fn causal_attention(qkv: FloatTensor<Self>, split: HeadSplit) -> FloatTensor<Self> {
        reference::causal_attention_primitive::<Self>(qkv, split)
    }

    /// The gradient of attention's input from that of its output.
    ///
    /// # Shapes
    ///
    /// - `qkv` and output `[batch, tokens, 3 · d]`, `gradient` `[batch, tokens, d]`
    fn causal_attention_backward(
        qkv: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        split: HeadSplit,
    ) -> FloatTensor<Self> {
        reference::causal_attention_backward_primitive::<Self>(qkv, gradient, split)
    }

    /// [`cached_attention`](crate::cached_attention).
    ///
    /// # Shapes
    ///
    /// - `q` `[batch, heads, new, width]`, `k` and `v` `[batch, heads, old + new, width]`
    /// - output `[batch, new, heads · width]`
    fn cached_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        reference::cached_attention_primitive::<Self>(q, k, v, scale)
    }
}

/// A [`QuantBackend`] that records gradients, around one that does not.
///
/// It is implemented for every such backend.
pub trait QuantAutodiffBackend: QuantBackend + AutodiffBackend<InnerBackend: QuantBackend> {}

impl<B: QuantBackend + AutodiffBackend<InnerBackend: QuantBackend>> QuantAutodiffBackend for B {}

/// Scales and zero points as a backend holds them.
///
/// For a tensor `[.., rows, columns]`, with the dimensions before the last two taken together as
/// `outer`, both have the shape `[outer, 1, columns]` per channel, `[outer, ⌈rows / n⌉, columns]`
/// per group, `[outer, rows, 1]` per token and `[1, 1, 1]` per tensor.
#[derive(Debug, Clone)]
pub struct PrimitiveParams<B: Backend> {
    /// The scales.
    pub scale: FloatTensor<B>,
    /// The zero points, integers held as floats, for the asymmetric mapping.
    pub zero_point: Option<FloatTensor<B>>,
}

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
pub(crate) fn with_shape_of<B: Backend>(x: Tensor<B, 3>, shape: burn::tensor::Shape) -> FloatTensor<B> {
    let x = x.into_primitive().tensor();
    if x.shape() == shape { x } else { B::float_reshape(x, shape) }
}
