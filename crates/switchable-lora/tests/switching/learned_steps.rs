//! Weights quantised by a learned step: what is computed, where gradients flow, what is kept, and what is
//! refused.

use burn::{
    backend::NdArray as Other,
    module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param, ParamId},
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

#[test]
fn codes_have_the_step_as_their_scale() {
    skip_without_device!();
    for settings in every_setting() {
        let packed = LinearSettings { execution: Execution::Packed, ..settings };
        let cache = QuantizedCache::default();
        let (fake, packed) = (layer::<Plain>(settings, &cache), layer::<Plain>(packed, &cache));
        for width in WIDTHS {
            for activations in [BitWidth::B8, BitWidth::FULL] {
                let what = format!("{:?} at {width}", packed.settings());
                let precision = SitePrecision::uniform(width).with_activations(activations);
                let expected = values(&fake.forward(x(), &precision));
                for _ in 0..2 {
                    assert_close(&values(&packed.forward(x(), &precision)), &expected, 2e-5, &what);
                }
                let bare = precision.without_adapter();
                let expected = values(&fake.forward(x(), &bare));
                assert_close(&values(&packed.forward(x(), &bare)), &expected, 2e-5, &what);
            }
        }
    }
    let other = LinearSettings { execution: Execution::Packed, ..LinearSettings::default() };
    let got = values(&layer::<Other>(other, &QuantizedCache::default()).forward(x(), &AT_2));
    let expected = values(&plain_layer(&QuantizedCache::default()).forward(x(), &AT_2));
    assert_close(&got, &expected, 2e-5, "ndarray");
}

#[test]
fn kept_codes_follow_the_step() {
    skip_without_device!();
    let settings = LinearSettings { execution: Execution::Packed, ..LinearSettings::default() };
    let cache = QuantizedCache::default();
    let layer = layer::<Plain>(settings, &cache);
    let _ = layer.forward(x(), &AT_2);
    assert!(
        layer.keeps_quantized(BitWidth::B2, WeightScales::Learned)
            && !layer.keeps_quantized(BitWidth::B2, WeightScales::Found)
    );
    assert!(cache.used_bytes() < D_IN * D_OUT * size_of::<f32>() * 2, "floats are kept");
    // Half the step and the same weight: an old code would be twice too large or clipped.
    let halved = at(&layer, BitWidth::B2).step().unwrap().step.val() * 0.5;
    let halved = LearnedStep::from_steps(halved, BitWidth::B2, Granularity::PerTensor).unwrap();
    let mut changed = layer.clone();
    changed.insert_adapter(BitWidth::B2, pair(BitWidth::B2).with_step(halved)).unwrap();
    assert_close(
        &values(&changed.forward(x(), &AT_2)),
        &values(&formula(&changed, BitWidth::B2, &x())),
        2e-5,
        "halved",
    );
    assert_close(&values(&layer.forward(x(), &AT_2)), &values(&formula(&layer, BitWidth::B2, &x())), 2e-5, "whole");
}

#[test]
fn a_negative_step_packs_to_what_it_quantises_to() {
    skip_without_device!();
    let weight = tensor::<Plain, 2>([D_IN, D_OUT], 1);
    for granularity in [Granularity::PerTensor, Granularity::PerChannel] {
        for width in WIDTHS {
            let negative = step(&weight, width, granularity).step.val().neg();
            let step = LearnedStep::from_steps(negative, width, granularity).unwrap();
            let packed = Rounding::Step(&step).pack(&weight, ScaleFormat::F32).unwrap();
            assert_eq!(packed.dequantize(), values(&step.forward(weight.clone())), "{granularity} {width}");
        }
    }
    let step = step(&weight, BitWidth::B4, Granularity::PerChannel);
    let error = Rounding::Step(&step).pack(&tensor::<Plain, 2>([D_IN, D_OUT + 1], 1), ScaleFormat::F32).unwrap_err();
    assert!(matches!(error, quant_kernels::Error::StepShape { .. }), "{error}");
}

#[test]
fn weights_that_are_only_there_packed_take_the_step_that_they_were_packed_by_and_no_other() {
    skip_without_device!();
    let weight = tensor::<Plain, 2>([D_IN, D_OUT], 1);
    let float = plain_layer(&QuantizedCache::default());
    let four = SitePrecision::uniform(BitWidth::B4);
    let with_step = at(&float, BitWidth::B4).clone();
    let packed = |weights| {
        let (bias, cache) = (Some(tensor([D_OUT], 2)), QuantizedCache::default());
        SwitchableLinear::<Plain>::from_packed(weights, bias, LinearSettings::default(), &cache, &device())
    };
    for format in [ScaleFormat::F32, ScaleFormat::F16] {
        let codes = Rounding::Step(with_step.step().unwrap()).pack(&weight, format).unwrap();
        let mut layer = packed(PackedWeights::Fixed(codes));
        layer.insert_adapter(BitWidth::B4, with_step.clone()).expect("the codes are its own");
        assert!(layer.check(&four).is_ok());
        let tolerance = if format == ScaleFormat::F32 { 2e-5 } else { 5e-3 };
        assert_close(
            &values(&layer.forward(x(), &four)),
            &values(&float.forward(x(), &four)),
            tolerance,
            &format.to_string(),
        );
        // A step of a width that the codes do not have is never used.
        layer.insert_adapter(BitWidth::B2, at(&float, BitWidth::B2).clone()).unwrap();
        assert!(matches!(layer.check(&AT_2), Err(Error::PackedWidth { .. })));
        let error = layer.init_adapter(BitWidth::B4, &learned(LoraConfig::new(1, 1.0).unwrap()), 0).unwrap_err();
        assert!(matches!(error, Error::PackedStep { .. }), "{error}");
    }
    let nearest = |bits| Rounding::Nearest { bits, spec: QuantSpec::default() };
    let by_range = |bits| nearest(bits).pack(&weight, ScaleFormat::F32).unwrap();
    let nested = PackedWeights::Nested(NestedTensor::new(by_range(BitWidth::B8)).unwrap());
    for weights in [PackedWeights::Fixed(by_range(BitWidth::B4)), nested] {
        let mut layer = packed(weights);
        let error = layer.insert_adapter(BitWidth::B4, with_step.clone()).unwrap_err();
        assert!(matches!(error, Error::PackedStep { .. }), "{error}");
        assert!(layer.bank().is_empty());
    }
}

/// Nested codes by the step of 8 bits, with the steps of the other widths as their scales.
fn nested_by_steps(float: &SwitchableLinear<Plain>, format: ScaleFormat) -> NestedTensor {
    let step = |width| at(float, width).step().expect("there is a step");
    let eight = Rounding::Step(step(BitWidth::B8)).pack(&float.weight(), format).expect("it packs");
    WIDTHS.into_iter().filter(|width| *width < BitWidth::B8).fold(
        NestedTensor::new(eight).expect("8 bits"),
        |nested, width| {
            let scales = Rounding::Step(step(width)).scales(&float.weight()).expect("scales");
            nested.with_scales(width, format, &scales).expect("they fit")
        },
    )
}

#[test]
fn nested_codes_serve_a_bank_whose_steps_are_their_scales() {
    skip_without_device!();
    for granularity in [Granularity::PerTensor, Granularity::PerChannel, Granularity::per_group(32).unwrap()] {
        for format in [ScaleFormat::F32, ScaleFormat::F16] {
            let float = layer::<Plain>(settings(granularity, Placement::Residual), &QuantizedCache::default());
            let codes = nested_by_steps(&float, format);
            let nested =
                float.clone().with_packed_weights(PackedWeights::Nested(codes.clone())).expect("its own steps");
            assert_eq!(nested.bank().widths(), WIDTHS);
            for width in WIDTHS {
                let what = format!("{granularity} {format} {width}");
                let precision = SitePrecision::uniform(width);
                nested.check(&precision).expect(&what);
                let slice = codes.slice_to(width).unwrap();
                let weight =
                    Tensor::<Plain, 2>::from_data(TensorData::new(slice.dequantize(), [D_IN, D_OUT]), &device());
                assert_eq!(values(&nested.quantized_weight(width).unwrap()), values(&weight), "{what}");
                let pair = at(&float, width);
                let expected = x().matmul(weight) + pair.forward(x()) + float.bias().unwrap().unsqueeze();
                assert_close(&values(&nested.forward(x(), &precision)), &values(&expected), 2e-5, &what);
                // Of itself it rounds by the step, whatever adapter is added; to the nearest level it cannot.
                for precision in [precision, precision.without_adapter()] {
                    let said = nested.explicit(&precision);
                    assert_eq!(said.rounding, Some(SiteRounding::LearnedStep), "{what}");
                    assert_eq!(nested.implicit(&said), precision);
                    let nearest = SitePrecision { rounding: Some(SiteRounding::Nearest), ..precision };
                    assert!(matches!(nested.check(&nearest), Err(Error::PackedStep { .. })), "{what}");
                    assert!(
                        matches!(nested.check(&nested.implicit(&nearest)), Err(Error::PackedStep { .. })),
                        "{what}"
                    );
                }
            }
            // Steps that are not quite the scales, at each width.
            for width in WIDTHS {
                let moved = at(&float, width).step().unwrap().step.val() * 1.01;
                let moved = LearnedStep::from_steps(moved, width, granularity).unwrap();
                let other = at(&float, width).clone().with_step(moved);
                let error = nested.clone().insert_adapter(width, other).unwrap_err();
                assert!(matches!(error, Error::PackedStep { bits, .. } if bits == width), "{error}");
            }
        }
    }
}

#[test]
fn one_step_for_a_whole_weight_is_the_scale_of_every_channel() {
    skip_without_device!();
    let float = plain_layer(&QuantizedCache::default());
    let spec = QuantSpec::default().with_granularity(Granularity::PerChannel);
    let eight = Rounding::Nearest { bits: BitWidth::B8, spec }.pack(&float.weight(), ScaleFormat::F32).unwrap();
    let step = Rounding::Step(at(&float, BitWidth::B3).step().unwrap()).scales(&float.weight()).expect("scales");
    let nested = NestedTensor::new(eight).expect("8 bits");
    let mut layer = SwitchableLinear::<Plain>::from_packed(
        PackedWeights::Nested(nested.clone().with_scales(BitWidth::B3, ScaleFormat::F32, &step).unwrap()),
        None,
        LinearSettings::default(),
        &QuantizedCache::default(),
        &device(),
    );
    layer.insert_adapter(BitWidth::B3, at(&float, BitWidth::B3).clone()).expect("the step is its scale");
    let mut scales = vec![step[0]; D_OUT];
    scales[D_OUT - 1] *= 1.01;
    let other = PackedWeights::Nested(nested.with_scales(BitWidth::B3, ScaleFormat::F32, &scales).unwrap());
    let error = layer.with_packed_weights(other).unwrap_err();
    assert!(matches!(error, Error::PackedStep { .. }), "{error}");
}

#[derive(Default)]
struct Paths {
    path: Vec<String>,
    found: Vec<(String, ParamId)>,
}

impl<B: Backend> ModuleVisitor<B> for Paths {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.found.push((self.path.join("."), param.id));
    }
}

#[test]
fn steps_are_parameters_with_a_path_that_are_told_apart() {
    skip_without_device!();
    let mut layer = plain_layer(&QuantizedCache::default());
    layer.insert_adapter(BitWidth::B8, pair(BitWidth::B8)).unwrap();
    let mut paths = Paths::default();
    layer.visit(&mut paths);
    let steps: Vec<_> = paths.found.iter().filter(|(path, _)| path.contains("step")).collect();
    let names: Vec<_> = steps.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names, [0, 1, 2].map(|pair| format!("bank.pairs.{pair}.step.values.step")));
    assert_eq!(learned_step_ids::<Plain, _>(&layer), steps.iter().map(|(_, id)| *id).collect());
    assert!(layer.to_string().contains("LearnedStep"));
}

#[test]
fn records_carry_steps_and_they_are_trained_afterwards() {
    skip_without_device!();
    let layer = layer::<Tracked>(LinearSettings::default(), &QuantizedCache::default());
    let recorder = BinBytesRecorder::<FullPrecisionSettings>::new();
    let bytes = recorder.record(layer.clone().into_record(), ()).unwrap();
    let record = recorder.load(bytes, &device()).unwrap();
    let mut blank = layer.clone();
    for width in WIDTHS {
        let one = LearnedStep::from_steps(Tensor::ones([1, 1], &device()), width, Granularity::PerTensor);
        blank.insert_adapter(width, pair(width).with_step(one.unwrap())).unwrap();
    }
    assert_ne!(values(&blank.forward(x(), &AT_2)), values(&layer.forward(x(), &AT_2)));
    let loaded = blank.load_record(record);
    for width in WIDTHS {
        let precision = SitePrecision::uniform(width);
        let y = loaded.forward(x(), &precision);
        assert_eq!(values(&y), values(&layer.forward(x(), &precision)), "{width} bits");
        let gradients = y.square().sum().backward();
        assert!(at(&loaded, width).step().unwrap().step.grad(&gradients).is_some(), "{width} bits");
    }
}

/// An adapter as it was recorded before there were learned steps.
#[derive(Module, Debug)]
struct PairWithoutField<B: Backend> {
    a: Param<Tensor<B, 2>>,
    b: Param<Tensor<B, 2>>,
    alpha: f64,
}

#[derive(Module, Debug)]
struct BankWithoutField<B: Backend> {
    pairs: Vec<PairWithoutField<B>>,
    widths: Vec<BitWidth>,
}

#[test]
fn records_without_the_field_load_as_adapters_without_steps() {
    skip_without_device!();
    let old = pair::<Plain>(BitWidth::B4);
    let field = PairWithoutField { a: old.a.clone(), b: old.b.clone(), alpha: old.alpha() };
    let bank = BankWithoutField { pairs: vec![field], widths: vec![BitWidth::B4] };
    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::new();
    let bytes = Recorder::<Plain>::record(&recorder, bank.into_record(), ()).unwrap();
    let mut fresh = LoraBank::<Plain>::new();
    let rank = old.rank();
    let zeros = |dims: [usize; 2]| Tensor::<Plain, 2>::zeros(dims, &device());
    let blank = LoraAdapterPair::from_factors(zeros([D_IN, rank]), zeros([rank, D_OUT]), old.alpha()).unwrap();
    fresh.insert(BitWidth::B4, blank);
    let record = Recorder::<Plain>::load(&recorder, bytes, &device()).unwrap();
    let loaded = fresh.load_record(record);
    let got = loaded.get(BitWidth::B4).unwrap();
    assert_eq!((values(&got.a.val()), values(&got.b.val())), (values(&old.a.val()), values(&old.b.val())));
    assert!(got.step().is_none());
}
