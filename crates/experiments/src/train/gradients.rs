//! Gradients of a whole model: their sum over micro-batches and their global norm.
//!
//! ```text
//! clipping:  g ← g · min(1, c/‖g‖₂)
//! conflict:  h ← h − min(0, h·g)/(g·g) · g
//! ```
//!
//! Sources: Pascanu, Mikolov and Bengio, arXiv:1211.5063 (clipping by the global norm); A-GEM,
//! arXiv:1812.00420, and PCGrad, arXiv:2001.06782 (conflict).

use burn::module::{AutodiffModule, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion as _, Tensor};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;

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

/// Takes out of `gradients` what points against `guarded`, over all parameters together.
pub(crate) fn remove_conflict<B: QuantAutodiffBackend, M: AutodiffModule<B>>(
    model: &M,
    gradients: &mut GradientsParams,
    guarded: &GradientsParams,
) {
    let mut products = Products::<B> { gradients, guarded, conflict: None, square: None };
    model.visit(&mut products);
    let value = |sum: Option<Tensor<B::InnerBackend, 1>>| sum.map_or(0.0, |sum| sum.into_scalar().elem::<f64>());
    let (conflict, square) = (value(products.conflict), value(products.square));
    if conflict < 0.0 && square > 0.0 {
        model.visit(&mut AddScaled { gradients, guarded, factor: -conflict / square });
    }
}

/// Inner products of two gradients, and of the guarded one with itself.
struct Products<'a, B: AutodiffBackend> {
    gradients: &'a GradientsParams,
    guarded: &'a GradientsParams,
    conflict: Option<Tensor<B::InnerBackend, 1>>,
    square: Option<Tensor<B::InnerBackend, 1>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Products<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let Some(guarded) = self.guarded.get::<B::InnerBackend, D>(param.id) else { return };
        add(&mut self.square, (guarded.clone() * guarded.clone()).sum());
        if let Some(gradient) = self.gradients.get::<B::InnerBackend, D>(param.id) {
            add(&mut self.conflict, (gradient * guarded).sum());
        }
    }
}

fn add<B: Backend>(total: &mut Option<Tensor<B, 1>>, term: Tensor<B, 1>) {
    *total = Some(match total.take() {
        Some(total) => total + term,
        None => term,
    });
}

struct AddScaled<'a> {
    gradients: &'a mut GradientsParams,
    guarded: &'a GradientsParams,
    factor: f64,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for AddScaled<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let Some(guarded) = self.guarded.get::<B::InnerBackend, D>(param.id) else { return };
        let added = guarded * self.factor;
        let sum = match self.gradients.remove::<B::InnerBackend, D>(param.id) {
            Some(gradient) => gradient + added,
            None => added,
        };
        self.gradients.register(param.id, sum);
    }
}

struct Squares<'a, B: AutodiffBackend> {
    gradients: &'a GradientsParams,
    total: Option<Tensor<B::InnerBackend, 1>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Squares<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(gradient) = self.gradients.get::<B::InnerBackend, D>(param.id) {
            add(&mut self.total, (gradient.clone() * gradient).sum());
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
