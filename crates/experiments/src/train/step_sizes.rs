//! Learned steps move in proportion to their size, and never to 0.
//!
//! ```text
//! s ← s + |s| · u                  u: the optimiser's update of s
//!
//! |s| / 2 ≤ |s'| ≤ 2·|s|           of one update, at whatever rate
//! |s₀| / 64 ≤ |s'| ≤ 64·|s₀|       of all, from where training started
//! ```
//!
//! Adam moves every parameter by about the learning rate, whatever the size of its gradient. Steps are
//! small, at many bits smaller than the learning rate, and a step that passes 0 has lost what it knew.
//! With `|s| · u` the relative change is that of the learning rate, for every width and every site; to
//! first order it is Adam on `ln s`. LSQ asks for the same by the scale of its gradient (arXiv:1902.08153,
//! section 2.2), which Adam divides out. An update of −1 or less, which a large rate gives, would end at 0 or
//! behind it: the bounds keep the sign, and a size from which the step can come back.

use std::collections::HashMap;

use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use switchable_lora::adapter_step::learned_step_ids;

/// The most that one update multiplies or divides a step by.
const MOST_OF_ONE: f32 = 2.0;
/// The most that all updates multiply or divide a step by.
const MOST_OF_ALL: f32 = 64.0;

/// The learned steps of a model, in the order in which it is visited.
pub(crate) struct StepSizes<B: AutodiffBackend>(Vec<(ParamId, Steps<B>)>);

/// The values of learned steps.
type Steps<B> = Tensor<<B as AutodiffBackend>::InnerBackend, 2>;

impl<B: AutodiffBackend> StepSizes<B> {
    /// Those of a model; none, at the cost of a walk over its parameters, where it has no learned step.
    pub(crate) fn of<M: AutodiffModule<B>>(model: &M) -> Self {
        let mut sizes = Self(Vec::new());
        let ids = learned_step_ids::<B, M>(model);
        if !ids.is_empty() {
            model.visit(&mut Remember { ids: &ids, sizes: &mut sizes });
        }
        sizes
    }

    /// The model after an update, with what the update did to the steps multiplied by their sizes, within the
    /// bounds. These are those before the update; `starts` are those that training started from, which a record of
    /// the model may have given other identifiers.
    pub(crate) fn scale_update<M: Module<B>>(self, starts: &Self, updated: M) -> M {
        if self.0.is_empty() {
            return updated;
        }
        let of_step = |(at, (id, before)): (usize, (ParamId, Steps<B>))| {
            let start = starts.0.get(at).map_or_else(|| before.clone(), |(_, start)| start.clone());
            (id, Bounded { before, start })
        };
        updated.map(&mut ScaleUpdate(self.0.into_iter().enumerate().map(of_step).collect()))
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
            self.sizes.0.push((param.id, step.reshape([rows, columns])));
        }
    }
}

/// Steps before an update and at the start of training.
struct Bounded<B: AutodiffBackend> {
    before: Steps<B>,
    start: Steps<B>,
}

impl<B: AutodiffBackend> Bounded<B> {
    /// The steps after an update that the optimiser took for `updated`.
    fn after(&self, updated: Steps<B>) -> Steps<B> {
        let Self { before, start } = self;
        let (sign, size, start) = (before.clone().sign(), before.clone().abs(), start.clone().abs());
        let step = before.clone() + (updated - before.clone()) * size.clone();
        let least = (size.clone() / MOST_OF_ONE).max_pair(start.clone() / MOST_OF_ALL);
        let most = (size * MOST_OF_ONE).min_pair(start * MOST_OF_ALL);
        // A NaN is within no bounds, and stays for the loss to show.
        (step * sign.clone()).max_pair(least).min_pair(most) * sign
    }
}

struct ScaleUpdate<B: AutodiffBackend>(HashMap<ParamId, Bounded<B>>);

impl<B: AutodiffBackend> ModuleMapper<B> for ScaleUpdate<B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some(bounded) = self.0.remove(&param.id) else { return param };
        param.map(|updated| {
            let trained = updated.is_require_grad();
            let updated = updated.inner();
            let dims = updated.dims();
            let step = bounded.after(updated.reshape(bounded.before.dims())).reshape(dims);
            Tensor::from_inner(step).set_require_grad(trained)
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use quant_kernels::spec::bit_width::BitWidth;
    use switchable_lora::{
        linear_settings::LinearSettings,
        lora_config::{LoraConfig, WeightScales},
        quantized_cache::QuantizedCache,
        switchable_linear::SwitchableLinear,
    };

    use super::*;

    type Tracked = Autodiff<Flex>;
    type Layer = SwitchableLinear<Tracked>;

    /// A layer with learned steps, one of which is negative.
    fn layer() -> Layer {
        let weight = Tensor::from_floats([[0.7, -0.3], [0.1, 0.6]], &burn_flex::FlexDevice);
        let settings = LinearSettings { weight: "per-channel".parse().unwrap(), ..LinearSettings::default() };
        let mut layer = Layer::new(weight, None, settings, &QuantizedCache::default());
        let config = LoraConfig::new(1, 1.0).unwrap().with_scales(WeightScales::Learned);
        for width in [BitWidth::B2, BitWidth::B8] {
            layer.init_adapter(width, &config, 0).unwrap();
        }
        let ids = learned_step_ids::<Tracked, Layer>(&layer);
        layer.map(&mut Change {
            ids,
            change: |step: Tensor<Flex, 2>| step * Tensor::from_floats([[1.0, -1.0]], &burn_flex::FlexDevice),
        })
    }

    struct Change<F> {
        ids: std::collections::HashSet<ParamId>,
        change: F,
    }

    impl<F: Fn(Tensor<Flex, 2>) -> Tensor<Flex, 2>> ModuleMapper<Tracked> for Change<F> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<Tracked, D>>) -> Param<Tensor<Tracked, D>> {
            if !self.ids.contains(&param.id) {
                return param;
            }
            param.map(|step| {
                let dims = step.dims();
                let step = (self.change)(step.inner().reshape([1, 2])).reshape(dims);
                Tensor::from_inner(step).require_grad()
            })
        }
    }

    fn steps(layer: &Layer) -> Vec<f32> {
        StepSizes::<Tracked>::of(layer)
            .0
            .into_iter()
            .flat_map(|(_, step)| step.into_data().to_vec::<f32>().unwrap())
            .collect()
    }

    /// A layer after updates by `u`.
    fn updated(starts: &StepSizes<Tracked>, layer: Layer, u: f32) -> Layer {
        let ids = learned_step_ids::<Tracked, Layer>(&layer);
        let sizes = StepSizes::<Tracked>::of(&layer);
        sizes.scale_update(starts, layer.map(&mut Change { ids, change: |step: Tensor<Flex, 2>| step + u }))
    }

    #[test]
    fn a_small_update_is_multiplied_by_the_size_of_the_step() {
        let start = layer();
        let before = steps(&start);
        assert!(before.len() == 4 && before[0] > 0.0 && before[1] < 0.0);
        for u in [1e-3, -5e-3, 0.3] {
            let after = steps(&updated(&StepSizes::of(&start), start.clone(), u));
            // The optimiser's update as it is read off the parameter.
            let expected: Vec<f32> = before.iter().map(|s| s + ((s + u) - s) * s.abs()).collect();
            assert_eq!(after, expected);
        }
    }

    #[test]
    fn no_update_takes_a_step_to_zero_or_to_the_other_sign() {
        for u in [-1.0, 1.0, -3.0, 1e6, -1e6, f32::MAX, f32::MIN] {
            let mut layer = layer();
            let (starts, start) = (StepSizes::<Tracked>::of(&layer), steps(&layer));
            for _ in 0..40 {
                let before = steps(&layer);
                layer = updated(&starts, layer, u);
                for ((after, before), start) in steps(&layer).iter().zip(&before).zip(&start) {
                    let (of_one, of_all) = (after / before, after / start);
                    assert!((0.5..=2.0).contains(&of_one), "{u}: from {before} to {after}");
                    assert!((1.0 / 64.0..=64.0).contains(&of_all), "{u}: started at {start}, got to {after}");
                }
            }
            // And it comes back.
            for _ in 0..12 {
                layer = updated(&starts, layer, -u);
            }
            for (after, start) in steps(&layer).iter().zip(&start) {
                let opposite = if (u > 0.0) == (*start > 0.0) { 1.0 / 64.0 } else { 64.0 };
                assert!((after / start / opposite - 1.0).abs() < 1e-5, "{u}: {after} of {start}");
            }
        }
    }

    #[test]
    fn an_update_that_is_no_number_stays_none() {
        let layer = layer();
        let starts = StepSizes::<Tracked>::of(&layer);
        assert!(steps(&updated(&starts, layer, f32::NAN)).iter().all(|step| step.is_nan()));
    }
}
