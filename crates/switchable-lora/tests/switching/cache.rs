//! What is kept, for how long, and that it is never stale.

use burn::{
    module::{AutodiffModule, Module, ModuleMapper, Param},
    optim::{GradientsParams, Optimizer, SgdConfig},
    tensor::{Tensor, backend::Backend},
};

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use switchable_lora::{
    linear_settings::{BasePolicy, LinearSettings},
    lora_config::{LoraConfig, WeightScales},
    quantized_cache::QuantizedCache,
    site_precision::SitePrecision,
    switchable_linear::SwitchableLinear,
};

use crate::support::{D_IN, D_OUT, Plain, Tracked, device, layer, precisions, skip_without_device, tensor, values};

/// The bytes of one quantised weight.
const WEIGHT: usize = D_IN * D_OUT * 4;
const AT_2: SitePrecision = SitePrecision::uniform(BitWidth::B2);
const AT_4: SitePrecision = SitePrecision::uniform(BitWidth::B4);
const AT_8: SitePrecision = SitePrecision::uniform(BitWidth::B8);

fn x<B: QuantBackend>() -> Tensor<B, 2> {
    tensor([3, D_IN], 5)
}

fn plain(cache: &QuantizedCache) -> SwitchableLinear<Plain> {
    layer(LinearSettings::default(), cache)
}

#[test]
fn kept_weights_give_the_same_values_as_fresh_ones() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let (kept, fresh) = (plain(&cache), plain(&QuantizedCache::disabled()));
    for _ in 0..2 {
        for precision in precisions() {
            assert_eq!(values(&kept.forward(x(), &precision)), values(&fresh.forward(x(), &precision)));
        }
    }
    // One form for each of 2, 4 and 8 bits; full precision is the weight itself.
    assert_eq!((cache.len(), cache.used_bytes()), (3, 3 * WEIGHT));
}

#[test]
fn a_cap_of_zero_keeps_nothing() {
    skip_without_device!();
    let cache = QuantizedCache::disabled();
    let layer = plain(&cache);
    for precision in precisions() {
        let _ = layer.forward(x(), &precision);
    }
    assert_eq!((cache.len(), cache.used_bytes(), cache.cap_bytes()), (0, 0, 0));
}

#[test]
fn the_cap_is_shared_by_all_layers_and_never_exceeded() {
    skip_without_device!();
    let cache = QuantizedCache::new(4 * WEIGHT + WEIGHT / 2);
    let layers: Vec<_> = (0..3).map(|_| plain(&cache)).collect();
    for round in 0..3 {
        for (index, layer) in layers.iter().enumerate() {
            for precision in [AT_2, AT_4, AT_8] {
                let _ = layer.forward(x(), &precision);
                assert!(cache.used_bytes() <= cache.cap_bytes());
            }
            assert_eq!(cache.len(), if round == 0 && index == 0 { 3 } else { 4 });
        }
    }
}

#[test]
fn the_least_recently_used_goes_first() {
    skip_without_device!();
    let cache = QuantizedCache::new(2 * WEIGHT);
    let layer = plain(&cache);
    // Full twice over; using the older one again makes the other one go.
    for precision in [AT_2, AT_4, AT_2, AT_8] {
        let _ = layer.forward(x(), &precision);
    }
    assert!(
        layer.keeps_quantized(BitWidth::B2, WeightScales::Found)
            && layer.keeps_quantized(BitWidth::B8, WeightScales::Found)
    );
    assert!(!layer.keeps_quantized(BitWidth::B4, WeightScales::Found));
}

#[test]
fn a_weight_beyond_the_cap_is_not_kept_and_drives_nothing_out() {
    skip_without_device!();
    let cache = QuantizedCache::new(WEIGHT - 1);
    let small = SwitchableLinear::<Plain>::new(tensor([4, 4], 1), None, LinearSettings::default(), &cache);
    let four = AT_4.without_adapter();
    let _ = small.forward(tensor::<Plain, 2>([1, 4], 1), &four);
    let _ = plain(&cache).forward(x(), &four);
    assert_eq!((cache.len(), cache.used_bytes()), (1, 64));
}

#[test]
fn weights_leave_with_their_layer() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let (first, second) = (plain(&cache), plain(&cache));
    for layer in [&first, &second] {
        let _ = layer.forward(x(), &AT_4);
    }
    let copy = first.clone();
    drop(first);
    assert_eq!(cache.len(), 2, "a copy still uses them");
    drop(copy);
    assert_eq!(cache.len(), 1);
    second.clear_quantized();
    assert!(cache.is_empty() && cache.used_bytes() == 0);
}

#[test]
fn clearing_drops_everything_and_changes_no_result() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let layer = plain(&cache);
    let before = values(&layer.forward(x(), &AT_4));
    cache.clear();
    assert!(cache.is_empty() && cache.used_bytes() == 0);
    assert_eq!(values(&layer.forward(x(), &AT_4)), before);
    assert_eq!(cache.len(), 1);
}

/// Multiplies every float parameter.
struct Scale(f32);

impl<B: Backend> ModuleMapper<B> for Scale {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.map(|tensor| (tensor * self.0).set_require_grad(false))
    }
}

#[test]
fn a_weight_that_a_mapper_changes_is_quantised_anew() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let layer = plain(&cache);
    let before = layer.quantized_weight(BitWidth::B4).unwrap();
    let copy = layer.clone();
    let mapped = layer.map(&mut Scale(2.0));
    assert_eq!(values(&mapped.quantized_weight(BitWidth::B4).unwrap()), values(&(before.clone() * 2.0)));
    assert_eq!(values(&copy.quantized_weight(BitWidth::B4).unwrap()), values(&before));
}

/// What a layer gives at 4 bits without a cache.
fn fresh_form(layer: &SwitchableLinear<Plain>) -> Vec<f32> {
    let fresh = SwitchableLinear::new(layer.weight(), None, layer.settings(), &QuantizedCache::disabled());
    values(&fresh.quantized_weight(BitWidth::B4).expect("valid input"))
}

/// Checks that two layers, of which the second came from the first, have the forms of their own values,
/// whichever is asked first. Nothing may be kept before.
fn assert_forms_of_their_own(what: &str, make: impl Fn() -> [SwitchableLinear<Plain>; 2]) {
    for first in [0, 1] {
        let layers = make();
        for index in [first, 1 - first] {
            let got = values(&layers[index].quantized_weight(BitWidth::B4).expect("valid input"));
            assert_eq!(got, fresh_form(&layers[index]), "{what}: layer {index}, {first} asked first");
        }
    }
}

#[test]
fn a_copy_that_changes_before_anything_is_kept_has_forms_of_its_own() {
    skip_without_device!();
    let made = |change: fn(SwitchableLinear<Plain>) -> SwitchableLinear<Plain>| {
        move || {
            let layer = plain(&QuantizedCache::default());
            [layer.clone(), change(layer)]
        }
    };
    assert_forms_of_their_own("a mapper", made(|layer| layer.map(&mut Scale(3.0))));
    assert_forms_of_their_own(
        "a record",
        made(|layer| layer.clone().load_record(layer.map(&mut Scale(-1.0)).into_record())),
    );
    assert_forms_of_their_own(
        "other values",
        made(|layer| {
            let weight = layer.weight().neg();
            layer.with_parameters(weight, None)
        }),
    );
    assert_forms_of_their_own("a move", made(|layer| layer.to_device(&device()).map(&mut Scale(3.0))));
    assert_forms_of_their_own("a fork", made(|layer| layer.fork(&device()).map(&mut Scale(3.0))));
    assert_forms_of_their_own("there and back", made(|layer| layer.train::<Tracked>().map(&mut Scale(3.0)).valid()));
    assert_forms_of_their_own("merged", made(|layer| layer.merged_with(BitWidth::B8).unwrap()));
}

#[test]
fn a_copy_that_is_trained_has_forms_of_its_own() {
    skip_without_device!();
    let settings = LinearSettings { base: BasePolicy::Trainable, ..LinearSettings::default() };
    assert_forms_of_their_own("training", || {
        let layer = layer::<Tracked>(settings, &QuantizedCache::default());
        let copy = layer.valid();
        let loss = layer.forward(x(), &AT_4.without_adapter()).square().mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &layer);
        let trained = SgdConfig::new().init().step(0.5, layer, gradients).valid();
        assert_ne!(values(&trained.weight()), values(&copy.weight()), "the step did nothing");
        [copy, trained]
    });
}

/// Gives every parameter a gradient, as a module that was frozen in settings alone.
struct RequireGrad;

impl<B: Backend> ModuleMapper<B> for RequireGrad {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.map(Tensor::require_grad)
    }
}

#[test]
fn a_weight_that_a_mapper_lets_train_gets_its_gradient_in_every_pass() {
    skip_without_device!();
    let layer = layer::<Tracked>(LinearSettings::default(), &QuantizedCache::default());
    let _ = layer.forward(x(), &AT_4);
    let layer = layer.map(&mut RequireGrad);
    for pass in 0..2 {
        let gradients = layer.forward(x(), &AT_4).square().mean().backward();
        assert!(layer.weight().grad(&gradients).is_some(), "pass {pass}");
    }
}

#[test]
fn adapters_that_change_in_a_copy_leave_the_steps_of_the_other() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let mut layer = plain(&cache);
    let config = LoraConfig::new(2, 2.0).unwrap().with_scales(WeightScales::Learned);
    layer.init_adapter(BitWidth::B4, &config, 3).unwrap();
    let changed = layer.clone().map(&mut Scale(1.5));
    for _ in 0..2 {
        for layer in [&layer, &changed] {
            let step = layer.learned_step(&AT_4).unwrap();
            let expected = step.forward(layer.weight());
            let x = x::<Plain>();
            let pair = layer.bank().get(BitWidth::B4).unwrap();
            let bias = layer.bias().unwrap().unsqueeze();
            let expected = x.clone().matmul(expected) + pair.forward(x.clone()) + bias;
            assert_eq!(values(&layer.forward(x, &AT_4)), values(&expected));
        }
    }
}

#[test]
fn a_rotation_of_more_widths_than_there_is_room_for_finds_some_of_them() {
    skip_without_device!();
    let cache = QuantizedCache::new(3 * WEIGHT);
    let layer = plain(&cache);
    let widths = [2, 3, 4, 5, 6, 8].map(|bits| BitWidth::new(bits).unwrap());
    for _ in 0..10 {
        for width in widths {
            let _ = layer.quantized_weight(width).unwrap();
        }
    }
    let statistics = cache.statistics();
    assert_eq!(statistics.hits + statistics.misses, 60);
    // Two of the three stay for each rotation; the third place serves those that come and go.
    assert!(statistics.hits >= 9, "{statistics:?}");
    assert!(!statistics.is_too_small() && statistics.computed_again > 0, "{statistics:?}");
}

#[test]
fn a_cache_without_room_says_that_it_is_too_small() {
    skip_without_device!();
    let cache = QuantizedCache::new(WEIGHT - 1);
    let layer = plain(&cache);
    for _ in 0..2 {
        assert!(!cache.statistics().is_too_small());
        let _ = layer.quantized_weight(BitWidth::B4).unwrap();
    }
    assert!(cache.statistics().is_too_small(), "{:?}", cache.statistics());
}

#[test]
fn a_mapper_that_changes_nothing_leaves_the_kept_weights() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let layer = plain(&cache);
    let _ = layer.forward(x(), &AT_4);
    let mapped = layer.map(&mut Scale(1.0));
    assert!(mapped.keeps_quantized(BitWidth::B4, WeightScales::Found));
}

#[test]
fn loaded_and_replaced_weights_are_quantised_anew() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let layer = plain(&cache);
    let before = values(&layer.quantized_weight(BitWidth::B4).unwrap());
    let record = layer.clone().map(&mut Scale(-1.0)).into_record();
    let loaded = layer.clone().load_record(record);
    let negated: Vec<f32> = before.iter().map(|value| -value).collect();
    assert_eq!(values(&loaded.quantized_weight(BitWidth::B4).unwrap()), negated);

    let replaced = layer.clone().with_parameters(layer.weight().neg(), None);
    assert_eq!(values(&replaced.quantized_weight(BitWidth::B4).unwrap()), negated);
    assert!(replaced.bias().is_none());
    assert_eq!(values(&layer.quantized_weight(BitWidth::B4).unwrap()), before);
}

#[test]
fn other_quantiser_settings_use_other_forms() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let layer = plain(&cache);
    let before = values(&layer.quantized_weight(BitWidth::B2).unwrap());
    let channels = LinearSettings { weight: "per-channel".parse().unwrap(), ..layer.settings() };
    let layer = layer.with_settings(channels);
    let other = values(&layer.quantized_weight(BitWidth::B2).unwrap());
    assert_ne!(other, before);
    let layer = layer.with_settings(LinearSettings::default());
    assert_eq!(values(&layer.quantized_weight(BitWidth::B2).unwrap()), before);
}

#[test]
fn adapter_training_keeps_a_frozen_base() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let mut layer = layer::<Tracked>(LinearSettings::default(), &cache);
    let mut optimizer = SgdConfig::new().init();
    let _ = layer.forward(x(), &AT_4);
    for _ in 0..3 {
        let loss = layer.forward(x(), &AT_4).square().mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &layer);
        layer = optimizer.step(0.1, layer, gradients);
        assert!(
            layer.keeps_quantized(BitWidth::B4, WeightScales::Found),
            "a training step dropped the quantised weight"
        );
    }
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_trained_base_is_never_stale() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let settings = LinearSettings { base: BasePolicy::Trainable, ..LinearSettings::default() };
    let mut layer = layer::<Tracked>(settings, &cache);
    let mut optimizer = SgdConfig::new().init();
    let mut last = Vec::new();
    for _ in 0..4 {
        let loss = layer.forward(x(), &AT_8).square().mean();
        assert!(!layer.keeps_quantized(BitWidth::B8, WeightScales::Found), "a trained weight was kept");
        // Validation between steps may keep what it likes, but must see the weight of this step.
        let valid = layer.valid();
        let fresh = plain(&QuantizedCache::disabled()).with_parameters(valid.weight(), valid.bias());
        let got = values(&valid.quantized_weight(BitWidth::B8).unwrap());
        assert_eq!(got, values(&fresh.quantized_weight(BitWidth::B8).unwrap()));
        assert_ne!(got, last);
        assert!(valid.keeps_quantized(BitWidth::B8, WeightScales::Found));
        last = got;
        let gradients = GradientsParams::from_grads(loss.backward(), &layer);
        layer = optimizer.step(0.5, layer, gradients);
    }
}

#[test]
fn one_cache_serves_threads() {
    skip_without_device!();
    let cache = QuantizedCache::new(3 * WEIGHT);
    let expected: Vec<_> = precisions()
        .iter()
        .map(|precision| values(&plain(&QuantizedCache::disabled()).forward(x(), precision)))
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let layer = plain(&cache);
                for _ in 0..5 {
                    for (precision, expected) in precisions().iter().zip(&expected) {
                        assert_eq!(&values(&layer.forward(x(), precision)), expected);
                    }
                }
            });
        }
    });
    assert!(cache.is_empty(), "every layer is gone");
}
