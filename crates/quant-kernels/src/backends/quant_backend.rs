//! Backends, and the operations that they may have kernels for.
//!
//! ```text
//! reference:   x ─ abs ─ max ─ div ─ … ─ round ─ clamp ─ mul ─→ y      a pass over memory each
//! kernel:      x ─────────────────────────────────────────────→ y      one for scales, one for y
//! ```

use burn::tensor::{FloatDType, Tensor, TensorPrimitive, backend::AutodiffBackend, ops::FloatTensor};

use crate::{
    backends::{
        linear_terms::LinearTerms, plain, primitive_params::PrimitiveParams, transformer_backend::TransformerBackend,
    },
    packed::{
        half_weight::HalfWeight,
        packed_view::PackedView,
        product::{activations::ActivationBits, epilogue::OutputFunction},
    },
    rotation::hadamard::{Direction, HadamardTransform},
    spec::{gradient_rule::GradientRule, quant_spec::QuantSpec, quantizer::Quantizer, step_quantizer::StepQuantizer},
};

/// A backend of burn with the operations of this crate.
///
/// Every method has a default that is made of the backend's plain tensor operations, so any backend
/// can be used with an empty `impl` of this trait and of [`TransformerBackend`]. The backends of burn that have kernels here override them;
/// what they compute is the same, bit for bit in f32, but for the order of the sums of [`rotate`](Self::rotate).
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
pub trait QuantBackend: TransformerBackend {
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
        plain::quantisation::choose_params(x, quantizer)
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
        plain::quantisation::fake_quantize(x, params, quantizer)
    }

    /// The gradient of [`GradientRule::Clipped`]: `gradient` where the level of `x` was not clamped,
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
        plain::quantisation::pass_inside(x, params, gradient, quantizer)
    }

    /// The values that `x` has after quantisation by learned steps, with the gradients of
    /// [`learned_step_backward`](Self::learned_step_backward).
    ///
    /// # Shapes
    ///
    /// - `x` and output `[rows, columns]`, not empty
    /// - `step` `[1, 1]` per tensor, `[1, columns]` per channel, `[⌈rows / n⌉, columns]` per group
    fn learned_step(x: FloatTensor<Self>, step: FloatTensor<Self>, quantizer: &StepQuantizer) -> FloatTensor<Self> {
        plain::learned_step::learned_step::<Self>(x, step, quantizer)
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
        plain::learned_step::learned_step_backward::<Self>(x, step, gradient, quantizer)
    }

    /// [`packed_linear`](crate::tensor::packed_linear::packed_linear).
    ///
    /// # Shapes
    ///
    /// - `x` `[rows, d_in]`, output `[rows, d_out]`
    fn packed_linear(
        x: FloatTensor<Self>,
        weight: PackedView<'_>,
        activations: ActivationBits,
        terms: LinearTerms<Self>,
    ) -> FloatTensor<Self> {
        packed_linear_of_dequantized::<Self>(x, weight, activations, terms)
    }

    /// Whether the backend multiplies in bf16 on this machine. Where it does not, [`half_linear`](Self::half_linear) and
    /// its like multiply activations as they are by what is rounded of the weight, no faster than f32.
    fn multiplies_bf16() -> bool {
        false
    }

    /// [`half_linear`](crate::tensor::half_linear::half_linear).
    ///
    /// # Shapes
    ///
    /// - `x` `[rows, d_in]`, output `[rows, d_out]`
    fn half_linear(x: FloatTensor<Self>, weight: &HalfWeight, terms: LinearTerms<Self>) -> FloatTensor<Self> {
        half_linear_of_floats::<Self>(x, weight, terms)
    }

    /// `h(g)·Wᵀ + down·up`, `h` to bf16: the gradient of what is multiplied by the weight, and by an adapter.
    ///
    /// # Shapes
    ///
    /// - `gradient` `[rows, d_out]`, output `[rows, d_in]`
    /// - `down` `[rows, rank]`, `up` `[rank, d_in]`
    fn half_linear_backward(
        gradient: FloatTensor<Self>,
        weight: &HalfWeight,
        adapter: Option<[FloatTensor<Self>; 2]>,
    ) -> FloatTensor<Self> {
        half_linear_backward_of_floats::<Self>(gradient, weight, adapter)
    }

    /// [`rotate`](crate::tensor::rotation::rotate): sums are in an order of the backend's own.
    ///
    /// # Shapes
    ///
    /// - `x` and output `[.., transform.width()]`
    fn rotate(x: FloatTensor<Self>, transform: &HadamardTransform, direction: Direction) -> FloatTensor<Self> {
        plain::rotation::rotate::<Self>(x, transform, direction)
    }

    /// The values of packed weights, without a gradient. Backends with a device of their own copy
    /// the codes to it once, and dequantise them there.
    ///
    /// # Shapes
    ///
    /// - output `[d_in, d_out]`
    fn dequantize_packed(weight: PackedView<'_>, device: &Self::Device, dtype: FloatDType) -> FloatTensor<Self> {
        plain::packed::dequantize_on_host::<Self>(weight, device, dtype)
    }
}

/// A [`QuantBackend`] that records gradients, around one that does not.
///
/// It is implemented for every such backend.
pub trait QuantAutodiffBackend: QuantBackend + AutodiffBackend<InnerBackend: QuantBackend> {}

impl<B: QuantBackend + AutodiffBackend<InnerBackend: QuantBackend>> QuantAutodiffBackend for B {}

/// [`QuantBackend::packed_linear`] in the backend's own operations, on weights that are dequantised for
/// the call.
pub(crate) fn packed_linear_of_dequantized<B: QuantBackend>(
    x: FloatTensor<B>,
    weight: PackedView<'_>,
    activations: ActivationBits,
    terms: LinearTerms<B>,
) -> FloatTensor<B> {
    let tensor = |primitive| TensorPrimitive::Float(primitive);
    let x = Tensor::<B, 2>::from_primitive(tensor(x));
    let weight = B::dequantize_packed(weight, &x.device(), x.dtype().into());
    let weight = Tensor::<B, 2>::from_primitive(tensor(weight));
    let quantized = match Quantizer::new(activations.width(), QuantSpec::PER_TOKEN, GradientRule::Identity) {
        Ok(quantizer) if x.shape().num_elements() > 0 => {
            let x = x.clone().into_primitive().tensor();
            Tensor::from_primitive(tensor(B::fake_quantize(x, &quantizer)))
        }
        _ => x.clone(),
    };
    linear_of_floats::<B>(
        quantized.into_primitive().tensor(),
        x.into_primitive().tensor(),
        weight.into_primitive().tensor(),
        terms,
    )
}

/// [`QuantBackend::half_linear`] in the backend's own operations.
pub(crate) fn half_linear_of_floats<B: QuantBackend>(
    x: FloatTensor<B>,
    weight: &HalfWeight,
    terms: LinearTerms<B>,
) -> FloatTensor<B> {
    let inputs = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(x.clone()));
    let shape = [inputs.dims()[0], weight.shape()[1]];
    if shape.contains(&0) {
        // Some backends divide by zero in products of nothing.
        return Tensor::<B, 2>::empty(shape, (&inputs.device(), inputs.dtype())).into_primitive().tensor();
    }
    let values = plain::packed::half_weight::<B>(&x, weight);
    linear_of_floats::<B>(x.clone(), x, values, terms)
}

/// [`QuantBackend::half_linear_backward`] in the backend's own operations.
pub(crate) fn half_linear_backward_of_floats<B: QuantBackend>(
    gradient: FloatTensor<B>,
    weight: &HalfWeight,
    adapter: Option<[FloatTensor<B>; 2]>,
) -> FloatTensor<B> {
    let values = plain::packed::half_weight::<B>(&gradient, weight);
    let of_weight = B::float_matmul(gradient, B::float_swap_dims(values, 0, 1));
    match adapter {
        Some([down, up]) => B::float_add(of_weight, B::float_matmul(down, up)),
        None => of_weight,
    }
}

/// `f(q·W + s·(x·A)·B + bias)` in the backend's own operations.
fn linear_of_floats<B: QuantBackend>(
    quantized: FloatTensor<B>,
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    terms: LinearTerms<B>,
) -> FloatTensor<B> {
    let tensor = |primitive| TensorPrimitive::Float(primitive);
    let [quantized, x, weight] =
        [quantized, x, weight].map(|primitive| Tensor::<B, 2>::from_primitive(tensor(primitive)));
    let mut y = quantized.matmul(weight);
    if let Some((a, b, scaling)) = terms.adapter {
        let [a, b] = [a, b].map(|factor| Tensor::<B, 2>::from_primitive(tensor(factor)));
        y = y + x.matmul(a).mul_scalar(scaling).matmul(b);
    }
    if let Some(bias) = terms.bias {
        y = y + Tensor::<B, 1>::from_primitive(tensor(bias)).unsqueeze();
    }
    match terms.function {
        OutputFunction::Identity => y.into_primitive().tensor(),
        OutputFunction::GeluTanh => B::gelu_tanh(y.into_primitive().tensor()),
    }
}
