//! Gradients of a whole model: their sum over micro-batches and their global norm.
//!
//! ```text
//! g ← g · min(1, c/‖g‖₂)
//! ```
//!
//! Source of clipping by the global norm: Pascanu, Mikolov and Bengio, arXiv:1211.5063.

use burn::module::{AutodiffModule, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{ElementConversion as _, Tensor, backend::AutodiffBackend};
use quant_kernels::QuantAutodiffBackend;

/// Sum of the gradients of several micro-batches, added in their order.
pub(crate) fn sum<B: QuantAutodiffBackend, M: AutodiffModule<B>>(
    model: &M,
    parts: Vec<GradientsParams>,
) -> GradientsParams {
    let mut accumulator = GradientsAccumulator::new();
    for part in parts {
        accumulator.accumulate(model, part);
    }
    accumulator.grads()
}

/// Scales the gradients so that their global norm is at most `limit`; returns the norm before.
pub(crate) fn clip<B: QuantAutodiffBackend, M: AutodiffModule<B>>(
    model: &M,
    gradients: &mut GradientsParams,
    limit: f64,
) -> f64 {
    let mut squares = Squares::<B> { gradients, total: None };
    model.visit(&mut squares);
    let norm = squares.total.map_or(0.0, |total| total.into_scalar().elem::<f64>().sqrt());
    if norm > limit {
        model.visit(&mut Scale { gradients, factor: limit / norm });
    }
    norm
}

struct Squares<'a, B: AutodiffBackend> {
    gradients: &'a GradientsParams,
    total: Option<Tensor<B::InnerBackend, 1>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Squares<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(gradient) = self.gradients.get::<B::InnerBackend, D>(param.id) {
            let square = (gradient.clone() * gradient).sum();
            self.total = Some(match self.total.take() {
                Some(total) => total + square,
                None => square,
            });
        }
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: f64,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(gradient) = self.gradients.remove::<B::InnerBackend, D>(param.id) {
            self.gradients.register(param.id, gradient * self.factor);
        }
    }
}
