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
    tensor::ops::FloatTensor,
};

use crate::{GradientRule, PrimitiveParams, QuantBackend, Quantizer};

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
        let constant = <Self as burn::tensor::backend::AutodiffBackend>::from_inner;
        PrimitiveParams { scale: constant(scale), zero_point: zero_point.map(constant) }
    }

    fn fake_quantize_by(
        x: FloatTensor<Self>,
        params: &PrimitiveParams<Self>,
        quantizer: &Quantizer,
    ) -> FloatTensor<Self> {
        <Self as burn::tensor::backend::AutodiffBackend>::from_inner(B::fake_quantize_by(
            x.primitive,
            &inner(params),
            quantizer,
        ))
    }

    fn pass_inside(
        x: FloatTensor<Self>,
        params: &PrimitiveParams<Self>,
        gradient: FloatTensor<Self>,
        quantizer: &Quantizer,
    ) -> FloatTensor<Self> {
        <Self as burn::tensor::backend::AutodiffBackend>::from_inner(B::pass_inside(
            x.primitive,
            &inner(params),
            gradient.primitive,
            quantizer,
        ))
    }
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
