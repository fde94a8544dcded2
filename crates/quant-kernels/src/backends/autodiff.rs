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
        FloatDType,
        backend::{AutodiffBackend, Backend},
        ops::FloatTensor,
    },
};

use crate::{
    backends::{
        head_split::HeadSplit, primitive_params::PrimitiveParams, quant_backend::QuantBackend,
        transformer_backend::TransformerBackend,
    },
    packed::packed_view::PackedView,
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
