//! Learned steps move in proportion to their size.
//!
//! ```text
//! s ← s + |s| · u          u: the optimiser's update of s
//! ```
//!
//! Adam moves every parameter by about the learning rate, whatever the size of its gradient. Steps are
//! small, at many bits smaller than the learning rate, and a step that passes 0 has lost what it knew.
//! With `|s| · u` the relative change is that of the learning rate, for every width and every site; to
//! first order it is Adam on `ln s`. LSQ asks for the same by the scale of its gradient (arXiv:1902.08153,
//! section 2.2), which Adam divides out.

use std::collections::HashMap;

use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use switchable_lora::adapter_step::learned_step_ids;

/// The learned steps of a model before an update.
pub(crate) struct StepSizes<B: AutodiffBackend>(HashMap<ParamId, Tensor<B::InnerBackend, 2>>);

impl<B: AutodiffBackend> StepSizes<B> {
    /// Those of a model; none, at the cost of a walk over its parameters, where it has no learned step.
    pub(crate) fn of<M: AutodiffModule<B>>(model: &M) -> Self {
        let mut sizes = Self(HashMap::new());
        let ids = learned_step_ids::<B, M>(model);
        if !ids.is_empty() {
            model.visit(&mut Remember { ids: &ids, sizes: &mut sizes });
        }
        sizes
    }

    /// The model after an update, with what the update did to the steps multiplied by their sizes.
    pub(crate) fn scale_update<M: Module<B>>(self, updated: M) -> M {
        if self.0.is_empty() { updated } else { updated.map(&mut ScaleUpdate(self)) }
    }
}

struct Remember<'a, B: AutodiffBackend> {
    ids: &'a std::collections::HashSet<ParamId>,
    sizes: &'a mut StepSizes<B>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Remember<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if self.ids.contains(&param.id) {
            let step = param.val().inner();
            let columns = step.dims().last().copied().unwrap_or(1).max(1);
            let rows = step.shape().num_elements() / columns;
            self.sizes.0.insert(param.id, step.reshape([rows, columns]));
        }
    }
}

struct ScaleUpdate<B: AutodiffBackend>(StepSizes<B>);

impl<B: AutodiffBackend> ModuleMapper<B> for ScaleUpdate<B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some(before) = self.0.0.remove(&param.id) else { return param };
        param.map(|updated| {
            let trained = updated.is_require_grad();
            let updated = updated.inner();
            let before = before.reshape(updated.dims());
            let step = before.clone() + (updated - before.clone()) * before.abs();
            Tensor::from_inner(step).set_require_grad(trained)
        })
    }
}
