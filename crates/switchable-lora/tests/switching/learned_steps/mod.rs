//! Weights quantised by a learned step: what is computed, where gradients flow, what is kept, and what is
//! refused.

mod codes;
mod records;

use burn::{
    backend::NdArray as Other,
    module::{AutodiffModule, Module, ModuleMapper, Param},
    optim::{GradientsParams, Optimizer, SgdConfig},
    record::{BinBytesRecorder, FullPrecisionSettings, NamedMpkBytesRecorder, Recorder},
    tensor::{Tensor, TensorData, backend::Backend},
};

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    packed::{nested::NestedTensor, scales::ScaleFormat},
    spec::{bit_width::BitWidth, granularity::Granularity, quant_spec::QuantSpec},
    tensor::{distortion::Distortion, learned_step::LearnedStep, rounding::Rounding},
};
use switchable_lora::{
    adapter_pair::LoraAdapterPair,
    adapter_step::learned_step_ids,
    error::Error,
    linear_settings::{BasePolicy, Execution, LinearSettings},
    lora_bank::LoraBank,
    lora_config::{LoraConfig, LoraInit, WeightScales},
    packed_weights::PackedWeights,
    placement::Placement,
    quantized_cache::QuantizedCache,
    site_precision::{SitePrecision, SiteRounding},
    switchable_linear::SwitchableLinear,
};

use crate::support::{
    D_IN, D_OUT, Plain, Tracked, assert_close, assert_panics, device, pair, skip_without_device, tensor, values,
};

const WIDTHS: [BitWidth; 4] = [BitWidth::B2, BitWidth::B3, BitWidth::B4, BitWidth::B8];
const AT_2: SitePrecision = SitePrecision::uniform(BitWidth::B2);

fn granularities() -> [Granularity; 4] {
    let group = |rows| Granularity::per_group(rows).expect("a size above 0");
    [Granularity::PerTensor, Granularity::PerChannel, group(5), group(32)]
}

/// The configuration with scales that are learned.
fn learned(config: LoraConfig) -> LoraConfig {
    config.with_scales(WeightScales::Learned)
}

fn settings(granularity: Granularity, placement: Placement) -> LinearSettings {
    let weight = QuantSpec::default().with_granularity(granularity);
    LinearSettings { weight, placement, ..LinearSettings::default() }
}

fn every_setting() -> impl Iterator<Item = LinearSettings> {
    granularities().into_iter().flat_map(|granularity| {
        [Placement::Residual, Placement::Merged].map(|placement| settings(granularity, placement))
    })
}

/// A step that is neither the paper's start nor what a range gives, and differs from block to block.
fn step<B: QuantBackend>(weight: &Tensor<B, 2>, width: BitWidth, granularity: Granularity) -> LearnedStep<B> {
    let start = LearnedStep::new(weight, width, granularity).expect("it can be learned").step.val();
    let dims = start.dims();
    let steps = start.set_require_grad(false) * (tensor::<B, 2>(dims, 31) * 0.3 + 0.8);
    LearnedStep::from_steps(steps, width, granularity).expect("it can be learned")
}

/// A layer with a bias and, at each of `WIDTHS`, an adapter that is not zero with a learned step.
fn layer<B: QuantBackend>(settings: LinearSettings, cache: &QuantizedCache) -> SwitchableLinear<B> {
    let mut layer = SwitchableLinear::new(tensor([D_IN, D_OUT], 1), Some(tensor([D_OUT], 2)), settings, cache);
    for width in WIDTHS {
        let step = step(&layer.weight(), width, settings.weight.granularity);
        layer.insert_adapter(width, pair(width).with_step(step)).expect("it fits");
    }
    layer
}

fn plain_layer(cache: &QuantizedCache) -> SwitchableLinear<Plain> {
    layer(LinearSettings::default(), cache)
}

fn at<B: QuantBackend>(layer: &SwitchableLinear<B>, width: BitWidth) -> &LoraAdapterPair<B> {
    layer.bank().get(width).expect("there is an adapter")
}

/// What the layer should compute, from the step itself.
fn formula<B: QuantBackend>(layer: &SwitchableLinear<B>, width: BitWidth, x: &Tensor<B, 2>) -> Tensor<B, 2> {
    let pair = at(layer, width);
    let step = pair.step().expect("there is a step");
    let y = match layer.settings().placement {
        Placement::Residual => x.clone().matmul(step.forward(layer.weight())) + pair.forward(x.clone()),
        Placement::Merged => x.clone().matmul(step.forward(layer.weight() + pair.product())),
    };
    y + layer.bias().expect("there is a bias").unsqueeze()
}

fn x<B: QuantBackend>() -> Tensor<B, 2> {
    tensor([5, D_IN], 3)
}

#[test]
fn the_weight_is_quantised_by_the_step_bit_for_bit() {
    skip_without_device!();
    for settings in every_setting() {
        let cache = QuantizedCache::default();
        let (tracked, plain) = (layer::<Tracked>(settings, &cache), layer::<Plain>(settings, &cache));
        for width in WIDTHS {
            let what = format!("{settings:?} at {width} bits");
            let precision = SitePrecision::uniform(width);
            let expected = values(&formula(&plain, width, &x()));
            assert_eq!(values(&formula(&tracked, width, &x())), expected, "{what}");
            assert_eq!(values(&tracked.forward(x(), &precision)), expected, "{what}");
            // Twice: once quantised, once kept.
            for _ in 0..2 {
                assert_eq!(values(&plain.forward(x(), &precision)), expected, "{what}");
                assert_eq!(values(&tracked.valid().forward(x(), &precision)), expected, "{what}");
            }
            let bare = pair::<Plain>(width);
            let mut by_range = plain.clone();
            by_range.insert_adapter(width, bare).unwrap();
            assert_ne!(values(&by_range.forward(x(), &precision)), expected, "{what}");
        }
    }
}

#[test]
fn gradients_of_step_and_factors_are_those_of_the_formula_and_the_base_gets_none() {
    skip_without_device!();
    for settings in every_setting() {
        let layer = layer::<Tracked>(settings, &QuantizedCache::default());
        for width in WIDTHS {
            let what = format!("{settings:?} at {width} bits");
            let y = layer.forward(x(), &SitePrecision::uniform(width));
            let arriving = y.clone().inner() * 2.0;
            let got = y.square().sum().backward();
            let expected = formula(&layer, width, &x()).square().sum().backward();
            let pair = at(&layer, width);
            let step = pair.step().unwrap();
            for parameter in [&pair.a, &pair.b, &step.step] {
                let gradient = values(&parameter.grad(&got).expect("it is trained"));
                assert_eq!(gradient, values(&parameter.grad(&expected).unwrap()), "{what}");
                assert!(gradient.iter().any(|&gradient| gradient != 0.0), "{what}");
            }
            assert!(layer.weight().grad(&got).is_none(), "{what}");

            // The gradient that arrives at the quantised weight is xᵀ·G.
            let arriving = x::<Plain>().transpose().matmul(arriving);
            let quantised = match settings.placement {
                Placement::Residual => layer.weight(),
                Placement::Merged => (layer.weight() + pair.product()).set_require_grad(false),
            };
            let alone = (step.forward(quantised) * Tensor::from_inner(arriving)).sum().backward();
            let (got, alone) = (step.step.grad(&got).unwrap(), step.step.grad(&alone).unwrap());
            let largest = alone.clone().abs().max().into_scalar();
            assert_close(&values(&got), &values(&alone), 1e-4 * largest, &what);

            let others = WIDTHS.into_iter().filter(|&other| other != width);
            let untouched = |other| at(&layer, other).step().unwrap().step.grad(&expected).is_none();
            assert!(others.clone().all(untouched), "{what}");
        }
    }
}

#[test]
fn a_trainable_base_gets_the_gradient_of_lsq() {
    skip_without_device!();
    let trainable = LinearSettings { base: BasePolicy::Trainable, ..LinearSettings::default() };
    let cache = QuantizedCache::default();
    let layer = layer::<Tracked>(trainable, &cache);
    let gradients = layer.forward(x(), &AT_2).square().sum().backward();
    let expected = formula(&layer, BitWidth::B2, &x()).square().sum().backward();
    let got = values(&layer.weight().grad(&gradients).unwrap());
    assert_eq!(got, values(&layer.weight().grad(&expected).unwrap()));
    assert!(got.contains(&0.0), "no value is clipped, so this shows little");
    assert!(cache.is_empty());
}

#[test]
fn a_step_serves_its_own_width_and_adapter_alone() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let layer = plain_layer(&cache);
    let mut without = layer.clone();
    for width in WIDTHS {
        without.insert_adapter(width, at(&layer, width).clone().without_step()).unwrap();
    }
    for weights in WIDTHS.into_iter().chain([BitWidth::FULL]) {
        for adapter in WIDTHS.map(Some).into_iter().chain([None]) {
            let precision = SitePrecision { weights, adapter, ..SitePrecision::FULL };
            let same = values(&layer.forward(x(), &precision)) == values(&without.forward(x(), &precision));
            let uses_step = adapter == Some(weights);
            assert_eq!(same, !uses_step, "{precision:?}");
            assert_eq!(layer.learned_step(&precision).is_some(), uses_step, "{precision:?}");
        }
        assert_eq!(
            values(&layer.quantized_weight(weights).unwrap()),
            values(&without.quantized_weight(weights).unwrap())
        );
    }
}

#[test]
fn the_start_is_the_better_of_mean_and_range() {
    skip_without_device!();
    let [mut means, mut ranges] = [0; 2];
    for granularity in granularities() {
        let settings = settings(granularity, Placement::Residual);
        // Most values are small and a few large, as in trained weights.
        let weight = tensor::<Plain, 2>([60, 20], 1).powi_scalar(3);
        let mut layer = SwitchableLinear::new(weight.clone(), None, settings, &QuantizedCache::default());
        let mse = |quantised: Tensor<Plain, 2>| Distortion::between(&weight, &quantised).mse;
        for width in WIDTHS.into_iter().chain([BitWidth::B16]) {
            layer.init_adapter(width, &learned(LoraConfig::new(2, 2.0).unwrap()), 0).unwrap();
            let step = at(&layer, width).step().unwrap();
            assert_eq!((step.bits(), step.granularity()), (width, granularity));
            let got = mse(step.forward(weight.clone()));
            let by_mean = mse(LearnedStep::new(&weight, width, granularity).unwrap().forward(weight.clone()));
            let by_range = mse(layer.quantized_weight(width).unwrap());
            assert!(got <= by_mean && got <= by_range, "{granularity} {width} bits: {got}, {by_mean}, {by_range}");
            means += usize::from(got < by_range);
            ranges += usize::from(got < by_mean);
        }
    }
    assert!(means > 0 && ranges > 0, "{means} of the mean, {ranges} of the range");
}

#[test]
fn loftq_repairs_what_the_step_leaves() {
    skip_without_device!();
    let mut layer = SwitchableLinear::<Plain>::new(
        tensor([40, 30], 1),
        None,
        LinearSettings::default(),
        &QuantizedCache::default(),
    );
    let loftq = |rank| LoraConfig::new(rank, 3.0).unwrap().with_init(LoraInit::LoftQ { iterations: 4 });
    layer.init_adapter(BitWidth::B2, &learned(loftq(30)), 0).unwrap();
    let pair = at(&layer, BitWidth::B2);
    let quantised = pair.step().unwrap().forward(layer.weight());
    let by_range = layer.quantized_weight(BitWidth::B2).unwrap();
    let left = |quantised: Tensor<Plain, 2>| Distortion::between(&layer.weight(), &(quantised + pair.product())).mse;
    let (by_step, by_range) = (left(quantised), left(by_range));
    assert!(by_step < 1e-12, "the full rank left {by_step}");
    assert!(by_range > 1e-3, "it repairs the scale of the range as well: {by_range}");
}

#[test]
fn an_optimiser_step_drops_the_kept_weight_and_the_plain_one_stays() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let mut layer = layer::<Tracked>(LinearSettings::default(), &cache);
    let mut optimizer = SgdConfig::new().init();
    let mut last = Vec::new();
    for round in 0..4 {
        let loss = layer.forward(x(), &AT_2).square().mean();
        assert!(!layer.keeps_quantized(BitWidth::B2, WeightScales::Learned), "a trained step's weight was kept");
        let valid = layer.valid();
        assert!(
            !valid.keeps_quantized(BitWidth::B2, WeightScales::Learned),
            "round {round} found the weight of the one before"
        );
        let got = values(&valid.forward(x(), &AT_2));
        let expected = values(&formula(&valid, BitWidth::B2, &x()));
        assert_eq!(got, expected, "round {round}");
        assert_ne!(got, last, "round {round}: the step did not move");
        last = got;
        let _ = valid.forward(x(), &AT_2.without_adapter());
        assert!(
            valid.keeps_quantized(BitWidth::B2, WeightScales::Learned)
                && valid.keeps_quantized(BitWidth::B2, WeightScales::Found)
        );
        assert_eq!(cache.len(), 2, "an old form was left behind in round {round}");
        assert_eq!(values(&valid.forward(x(), &AT_2)), expected);
        let gradients = GradientsParams::from_grads(loss.backward(), &layer);
        layer = optimizer.step(0.05, layer, gradients);
    }
    assert!(
        layer.valid().keeps_quantized(BitWidth::B2, WeightScales::Found),
        "training dropped the weight that no step decides"
    );
}

/// Multiplies every float parameter.
struct Scale(f32);

impl<B: Backend> ModuleMapper<B> for Scale {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.map(|tensor| (tensor * self.0).set_require_grad(false))
    }
}

#[test]
fn whatever_changes_a_step_is_seen_and_clones_keep_theirs() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let layer = plain_layer(&cache);
    let fresh = |layer: &SwitchableLinear<Plain>| values(&formula(layer, BitWidth::B2, &x()));
    let kept = |layer: &SwitchableLinear<Plain>| values(&layer.forward(x(), &AT_2));
    assert_eq!(kept(&layer), fresh(&layer));

    let mapped = layer.clone().map(&mut Scale(1.5));
    let loaded = layer.clone().load_record(mapped.clone().into_record());
    let mut replaced = layer.clone();
    let other = step(&layer.weight(), BitWidth::B2, Granularity::PerTensor).step.val() * 0.7;
    let other = LearnedStep::from_steps(other, BitWidth::B2, Granularity::PerTensor).unwrap();
    replaced.insert_adapter(BitWidth::B2, pair(BitWidth::B2).with_step(other)).unwrap();
    let mut bare = layer.clone();
    bare.insert_adapter(BitWidth::B2, pair(BitWidth::B2)).unwrap();
    let removed = values(&bare.forward(x(), &AT_2));
    let other_weight = layer.clone().with_parameters(layer.weight() * 0.5, layer.bias());

    assert_ne!(fresh(&mapped), fresh(&layer));
    assert_ne!(fresh(&replaced), fresh(&layer));
    assert_ne!(removed, fresh(&layer));
    for _ in 0..2 {
        for layer in [&layer, &mapped, &loaded, &replaced, &other_weight] {
            assert_eq!(kept(layer), fresh(layer));
        }
        assert_eq!(values(&bare.forward(x(), &AT_2)), removed);
    }
    assert_eq!(kept(&loaded), kept(&mapped));
}

#[test]
fn a_step_that_is_not_trained_is_kept_under_autodiff_too() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let layer = layer::<Tracked>(LinearSettings::default(), &cache).no_grad();
    let y = layer.forward(x(), &AT_2);
    assert_eq!(values(&y), values(&formula(&layer, BitWidth::B2, &x())));
    assert!(layer.keeps_quantized(BitWidth::B2, WeightScales::Learned));
}

#[test]
fn steps_that_do_not_fit_are_refused_with_their_reason() {
    skip_without_device!();
    let config = LoraConfig::new(2, 2.0).unwrap();
    let bare = |weight: &str| {
        let settings = LinearSettings { weight: weight.parse().unwrap(), ..LinearSettings::default() };
        SwitchableLinear::<Plain>::new(tensor([D_IN, D_OUT], 1), None, settings, &QuantizedCache::default())
    };
    let one = BitWidth::new(1).unwrap();
    for (weight, width, expected) in [
        ("per-tensor,asymmetric", BitWidth::B4, "needs a symmetric weight quantiser, got asymmetric"),
        ("per-token", BitWidth::B4, "cannot have granularity per-token"),
        ("per-channel", BitWidth::FULL, "32 bits are full precision"),
        ("per-channel", one, "at least 2 bits, got 1"),
    ] {
        let mut layer = bare(weight);
        let message = layer.init_adapter(width, &learned(config), 0).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(layer.bank().is_empty());
    }

    let mut layer = bare("per-channel");
    let of = |granularity, dims: [usize; 2]| {
        let steps = Tensor::<Plain, 2>::full(dims, 0.1, &device());
        pair(BitWidth::B4).with_step(LearnedStep::from_steps(steps, BitWidth::B4, granularity).unwrap())
    };
    let mut refused = |width, pair| layer.insert_adapter(width, pair).unwrap_err();
    let fitting = of(Granularity::PerChannel, [1, D_OUT]);
    assert!(matches!(refused(BitWidth::B3, fitting.clone()), Error::StepWidth { .. }));
    let error = refused(BitWidth::B4, of(Granularity::PerChannel, [1, D_OUT + 1]));
    assert!(matches!(error, Error::Quantisation(quant_kernels::Error::StepShape { got: [1, 8], .. })), "{error}");
    let error = refused(BitWidth::B4, of(Granularity::PerTensor, [1, 1]));
    assert_eq!(error.to_string(), "a learned step per-tensor does not fit a weight that is quantised per-channel");
    assert!(layer.bank().is_empty());

    layer.insert_adapter(BitWidth::B4, fitting).unwrap();
    let four = SitePrecision::uniform(BitWidth::B4);
    assert!(layer.check(&four).is_ok());
    let error = layer.merged_with(BitWidth::B4).unwrap_err();
    assert!(matches!(error, Error::MergedStep { .. }), "{error}");
    for weight in ["per-tensor", "per-channel,asymmetric"] {
        let settings = LinearSettings { weight: weight.parse().unwrap(), ..layer.settings() };
        let other = layer.clone().with_settings(settings);
        let error = other.check(&four).unwrap_err();
        assert!(matches!(error, Error::StepGranularity { .. } | Error::StepFormat { .. }), "{error}");
        assert!(other.check(&four.without_adapter()).is_ok());
    }
}

#[test]
fn a_forward_pass_with_a_step_of_other_settings_panics() {
    skip_without_device!();
    let layer = plain_layer(&QuantizedCache::default());
    let settings = LinearSettings { weight: "per-channel".parse().unwrap(), ..layer.settings() };
    let layer = layer.with_settings(settings);
    assert_panics("a learned step per-tensor does not fit a weight that is quantised per-channel", || {
        let _ = layer.forward(x(), &AT_2);
    });
}
