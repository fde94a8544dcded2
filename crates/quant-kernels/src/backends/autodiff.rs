//! Gradients of the operations, whatever kernels the backend inside has.

use burn::{
    backend::{
        Autodiff,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind, unary},
        },
    },
    tensor::{
        FloatDType, Tensor, TensorPrimitive,
        backend::{AutodiffBackend, Backend},
        ops::FloatTensor,
    },
};

use crate::{
    backends::{
        head_split::HeadSplit, linear_terms::LinearTerms, primitive_params::PrimitiveParams,
        quant_backend::QuantBackend, transformer_backend::TransformerBackend,
    },
    packed::{half_weight::HalfWeight, packed_view::PackedView, product::epilogue::OutputFunction},
    rotation::hadamard::{Direction, HadamardTransform},
    spec::{gradient_rule::GradientRule, quantizer::Quantizer, step_quantizer::StepQuantizer},
};

impl<B: QuantBackend, C: CheckpointStrategy> QuantBackend for Autodiff<B, C> {
    fn fake_quantize(x: FloatTensor<Self>, quantizer: &Quantizer) -> FloatTensor<Self> {
        match quantizer.gradient() {
            GradientRule::Identity => {
                let y = B::fake_quantize(x.primitive, quantizer);
                match StraightThrough.prepare::<C>([x.node]).compute_bound().stateful() {
                    OpsKind::Tracked(operation) => operation.finish((), y),
                    OpsKind::UnTracked(operation) => operation.finish(y),
                }
            }
            GradientRule::Clipped => {
                let params = B::choose_params(x.primitive.clone(), quantizer);
                let y = B::fake_quantize_by(x.primitive.clone(), &params, quantizer);
                match Clipped.prepare::<C>([x.node]).compute_bound().stateful() {
                    OpsKind::Tracked(operation) => operation.finish((x.primitive, params, *quantizer), y),
                    OpsKind::UnTracked(operation) => operation.finish(y),
                }
            }
        }
    }

    fn choose_params(x: FloatTensor<Self>, quantizer: &Quantizer) -> PrimitiveParams<Self> {
        let PrimitiveParams { scale, zero_point } = B::choose_params(x.primitive, quantizer);
        let constant = constant::<B, C>;
        PrimitiveParams { scale: constant(scale), zero_point: zero_point.map(constant) }
    }

    fn fake_quantize_by(
        x: FloatTensor<Self>,
        params: &PrimitiveParams<Self>,
        quantizer: &Quantizer,
    ) -> FloatTensor<Self> {
        constant::<B, C>(B::fake_quantize_by(x.primitive, &inner(params), quantizer))
    }

    fn pass_inside(
        x: FloatTensor<Self>,
        params: &PrimitiveParams<Self>,
        gradient: FloatTensor<Self>,
        quantizer: &Quantizer,
    ) -> FloatTensor<Self> {
        constant::<B, C>(B::pass_inside(x.primitive, &inner(params), gradient.primitive, quantizer))
    }

    fn learned_step(x: FloatTensor<Self>, step: FloatTensor<Self>, quantizer: &StepQuantizer) -> FloatTensor<Self> {
        let y = B::learned_step(x.primitive.clone(), step.primitive.clone(), quantizer);
        match ByLearnedStep.prepare::<C>([x.node, step.node]).compute_bound().stateful() {
            OpsKind::Tracked(operation) => operation.finish((x.primitive, step.primitive, *quantizer), y),
            OpsKind::UnTracked(operation) => operation.finish(y),
        }
    }

    fn learned_step_backward(
        x: FloatTensor<Self>,
        step: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        quantizer: &StepQuantizer,
    ) -> [FloatTensor<Self>; 2] {
        let [x, step, gradient] = [x, step, gradient].map(|tensor| tensor.primitive);
        B::learned_step_backward(x, step, gradient, quantizer).map(constant::<B, C>)
    }

    fn rotate(x: FloatTensor<Self>, transform: &HadamardTransform, direction: Direction) -> FloatTensor<Self> {
        let y = B::rotate(x.primitive, transform, direction);
        match Rotated.prepare::<C>([x.node]).compute_bound().stateful() {
            OpsKind::Tracked(operation) => operation.finish((transform.clone(), direction), y),
            OpsKind::UnTracked(operation) => operation.finish(y),
        }
    }

    fn multiplies_bf16() -> bool {
        B::multiplies_bf16()
    }

    fn half_linear(x: FloatTensor<Self>, weight: &HalfWeight, terms: LinearTerms<Self>) -> FloatTensor<Self> {
        let LinearTerms { bias, adapter, function } = terms;
        let bias = bias.map(|bias| bias.primitive);
        let y = match adapter {
            None => {
                let terms = LinearTerms { bias, adapter: None, function: OutputFunction::Identity };
                let y = B::half_linear(x.primitive, weight, terms);
                match ByHalfWeight.prepare::<C>([x.node]).compute_bound().stateful() {
                    OpsKind::Tracked(operation) => operation.finish(weight.clone(), y),
                    OpsKind::UnTracked(operation) => operation.finish(y),
                }
            }
            Some((a, b, scaling)) => {
                let factors = (a.primitive.clone(), b.primitive.clone(), scaling);
                let terms = LinearTerms { bias, adapter: Some(factors), function: OutputFunction::Identity };
                let y = B::half_linear(x.primitive.clone(), weight, terms);
                match ByHalfWeightAndAdapter.prepare::<C>([x.node, a.node, b.node]).compute_bound().stateful() {
                    OpsKind::Tracked(operation) => {
                        let inputs = [x.primitive, a.primitive, b.primitive];
                        operation.finish((weight.clone(), inputs, scaling), y)
                    }
                    OpsKind::UnTracked(operation) => operation.finish(y),
                }
            }
        };
        match function {
            OutputFunction::Identity => y,
            OutputFunction::GeluTanh => Self::gelu_tanh(y),
        }
    }

    fn half_linear_backward(
        gradient: FloatTensor<Self>,
        weight: &HalfWeight,
        adapter: Option<[FloatTensor<Self>; 2]>,
    ) -> FloatTensor<Self> {
        let adapter = adapter.map(|factors| factors.map(|factor| factor.primitive));
        constant::<B, C>(B::half_linear_backward(gradient.primitive, weight, adapter))
    }

    fn dequantize_packed(weight: PackedView<'_>, device: &Self::Device, dtype: FloatDType) -> FloatTensor<Self> {
        constant::<B, C>(B::dequantize_packed(weight, device, dtype))
    }
}

impl<B: TransformerBackend, C: CheckpointStrategy> TransformerBackend for Autodiff<B, C> {
    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let y = B::gelu_tanh(x.primitive.clone());
        match GeluTanh.prepare::<C>([x.node]).compute_bound().stateful() {
            OpsKind::Tracked(operation) => operation.finish(x.primitive, y),
            OpsKind::UnTracked(operation) => operation.finish(y),
        }
    }

    fn gelu_tanh_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        constant::<B, C>(B::gelu_tanh_backward(x.primitive, gradient.primitive))
    }

    fn causal_attention(qkv: FloatTensor<Self>, split: HeadSplit) -> FloatTensor<Self> {
        let y = B::causal_attention(qkv.primitive.clone(), split);
        match CausalAttention.prepare::<C>([qkv.node]).compute_bound().stateful() {
            OpsKind::Tracked(operation) => operation.finish((qkv.primitive, split), y),
            OpsKind::UnTracked(operation) => operation.finish(y),
        }
    }

    fn causal_attention_backward(
        qkv: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        split: HeadSplit,
    ) -> FloatTensor<Self> {
        constant::<B, C>(B::causal_attention_backward(qkv.primitive, gradient.primitive, split))
    }
}

fn constant<B: Backend, C: CheckpointStrategy>(x: FloatTensor<B>) -> FloatTensor<Autodiff<B, C>> {
    <Autodiff<B, C> as AutodiffBackend>::from_inner(x)
}

fn inner<B: QuantBackend, C: CheckpointStrategy>(params: &PrimitiveParams<Autodiff<B, C>>) -> PrimitiveParams<B> {
    PrimitiveParams {
        scale: params.scale.primitive.clone(),
        zero_point: params.zero_point.as_ref().map(|zero_point| zero_point.primitive.clone()),
    }
}

/// `∂L/∂x = ∂L/∂y`.
#[derive(Debug)]
struct StraightThrough;

impl<B: QuantBackend> Backward<B, 1> for StraightThrough {
    type State = ();

    fn backward(self, ops: Ops<(), 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        unary::<B, _>(ops.parents, ops.node, gradients, |gradient| gradient);
    }
}

/// `∂L/∂x = ∂L/∂y` where the level was not clamped, else 0.
#[derive(Debug)]
struct Clipped;

impl<B: QuantBackend> Backward<B, 1> for Clipped {
    type State = (FloatTensor<B>, PrimitiveParams<B>, Quantizer);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (x, params, quantizer) = ops.state;
        unary::<B, _>(ops.parents, ops.node, gradients, |gradient| B::pass_inside(x, &params, gradient, &quantizer));
    }
}

/// Quantisation by learned steps.
#[derive(Debug)]
struct ByLearnedStep;

impl<B: QuantBackend> Backward<B, 2> for ByLearnedStep {
    type State = (FloatTensor<B>, FloatTensor<B>, StepQuantizer);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (x, step, quantizer) = ops.state;
        let gradient = gradients.consume::<B>(&ops.node);
        // One pass over the values gives both.
        let of_parents = B::learned_step_backward(x, step, gradient, &quantizer);
        for (parent, gradient) in ops.parents.into_iter().zip(of_parents) {
            if let Some(parent) = parent {
                gradients.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// `∂L/∂x = ∂L/∂y · Rᵀ`.
#[derive(Debug)]
struct Rotated;

impl<B: QuantBackend> Backward<B, 1> for Rotated {
    type State = (HadamardTransform, Direction);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (transform, direction) = ops.state;
        unary::<B, _>(ops.parents, ops.node, gradients, |gradient| {
            B::rotate(gradient, &transform, direction.reversed())
        });
    }
}

/// `∂L/∂x = h(∂L/∂y)·Wᵀ`; the weight gets no gradient.
#[derive(Debug)]
struct ByHalfWeight;

impl<B: QuantBackend> Backward<B, 1> for ByHalfWeight {
    type State = HalfWeight;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let weight = ops.state;
        unary::<B, _>(ops.parents, ops.node, gradients, |gradient| B::half_linear_backward(gradient, &weight, None));
    }
}

/// With `t = x·A` and `d = s·∂L/∂y·Bᵀ`: `∂L/∂x = h(∂L/∂y)·Wᵀ + d·Aᵀ`, `∂L/∂A = xᵀ·d`, `∂L/∂B = s·tᵀ·∂L/∂y`; the weight
/// gets no gradient.
#[derive(Debug)]
struct ByHalfWeightAndAdapter;

impl<B: QuantBackend> Backward<B, 3> for ByHalfWeightAndAdapter {
    type State = (HalfWeight, [FloatTensor<B>; 3], f64);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let matrix = |primitive| Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(primitive));
        let (weight, inputs, scaling) = ops.state;
        let [x, a, b] = inputs.map(matrix);
        let gradient = matrix(gradients.consume::<B>(&ops.node));
        let down = gradient.clone().matmul(b.transpose()).mul_scalar(scaling);
        let [of_x, of_a, of_b] = ops.parents;
        let mut register = |id, gradient: Tensor<B, 2>| gradients.register::<B>(id, gradient.into_primitive().tensor());
        if let Some(node) = of_b {
            let inner = x.clone().matmul(a.clone()).mul_scalar(scaling);
            register(node.id, inner.transpose().matmul(gradient.clone()));
        }
        if let Some(node) = of_a {
            register(node.id, x.transpose().matmul(down.clone()));
        }
        if let Some(node) = of_x {
            let adapter = [down, a.transpose()].map(|factor| factor.into_primitive().tensor());
            let gradient = gradient.into_primitive().tensor();
            register(node.id, matrix(B::half_linear_backward(gradient, &weight, Some(adapter))));
        }
    }
}

/// GELU in its tanh form.
#[derive(Debug)]
struct GeluTanh;

impl<B: TransformerBackend> Backward<B, 1> for GeluTanh {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let x = ops.state;
        unary::<B, _>(ops.parents, ops.node, gradients, |gradient| B::gelu_tanh_backward(x, gradient));
    }
}

/// Causal attention of packed queries, keys and values.
#[derive(Debug)]
struct CausalAttention;

impl<B: TransformerBackend> Backward<B, 1> for CausalAttention {
    type State = (FloatTensor<B>, HeadSplit);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (qkv, split) = ops.state;
        unary::<B, _>(ops.parents, ops.node, gradients, |gradient| B::causal_attention_backward(qkv, gradient, split));
    }
}
