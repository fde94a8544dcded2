//! The layer as a burn module: validation copies, records, paths and moves.

use burn::{
    module::{AutodiffModule, Module},
    record::{BinBytesRecorder, FullPrecisionSettings, NamedMpkBytesRecorder, Recorder},
    tensor::Tensor,
};

use quant_kernels::spec::bit_width::BitWidth;
use switchable_lora::{
    adapter_pair::LoraAdapterPair,
    linear_settings::{BasePolicy, LinearSettings},
    lora_config::{LoraConfig, WeightScales},
    quantized_cache::QuantizedCache,
    site_precision::SitePrecision,
    switchable_linear::SwitchableLinear,
};

use crate::support::{
    D_IN, D_OUT, Paths, Plain, Tracked, device, layer, merged, pair, precisions, skip_without_device, tensor, values,
};

#[test]
fn the_validation_copy_gives_the_same_bits() {
    skip_without_device!();
    for settings in [LinearSettings::default(), merged()] {
        for base in [BasePolicy::Frozen, BasePolicy::Trainable] {
            let tracked = layer::<Tracked>(LinearSettings { base, ..settings }, &QuantizedCache::default());
            let valid: SwitchableLinear<Plain> = tracked.valid();
            for precision in precisions() {
                let a = tracked.forward(tensor::<Tracked, 2>([4, D_IN], 5), &precision);
                let b = valid.forward(tensor::<Plain, 2>([4, D_IN], 5), &precision);
                assert_eq!(values(&a), values(&b), "{settings:?} {precision:?}");
            }
        }
    }
}

#[test]
fn a_layer_moved_to_autodiff_trains_what_its_policy_says() {
    skip_without_device!();
    for (base, trained) in [(BasePolicy::Frozen, false), (BasePolicy::Trainable, true)] {
        let plain = layer::<Plain>(LinearSettings { base, ..LinearSettings::default() }, &QuantizedCache::default());
        let tracked = plain.train::<Tracked>();
        let output = tracked.forward(tensor::<Tracked, 2>([4, D_IN], 5).require_grad(), &SitePrecision::FULL);
        let gradients = output.sum().backward();
        assert_eq!(tracked.weight().grad(&gradients).is_some(), trained, "{base:?}");
    }
}

#[test]
fn every_parameter_is_visited_under_its_path() {
    skip_without_device!();
    let mut layer = layer::<Plain>(LinearSettings::default(), &QuantizedCache::default());
    for width in [BitWidth::B8, BitWidth::FULL] {
        layer.remove_adapter(width);
    }
    let mut paths = Paths::default();
    layer.visit(&mut paths);
    let names: Vec<_> = paths.found.iter().map(|(path, _)| path.as_str()).collect();
    let pairs = ["bank.pairs.0.a", "bank.pairs.0.b", "bank.pairs.1.a", "bank.pairs.1.b"];
    assert_eq!(names, [&["base.weight", "base.bias"][..], &pairs[..]].concat());
    assert_eq!(paths.found[0].1, layer.weight_param().unwrap().id);
    assert_eq!(Some(paths.found[1].1), layer.bias_param().map(|bias| bias.id));

    let rank = |width| pair::<Plain>(width).rank();
    let adapters = (rank(BitWidth::B2) + rank(BitWidth::B4)) * (D_IN + D_OUT);
    assert_eq!(layer.num_params(), D_IN * D_OUT + D_OUT + adapters);
}

/// Writes a layer's record and reads it into another.
fn reload(layer: &SwitchableLinear<Plain>, into: SwitchableLinear<Plain>) -> SwitchableLinear<Plain> {
    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::new();
    let bytes = Recorder::<Plain>::record(&recorder, layer.clone().into_record(), ()).expect("valid input");
    into.load_record(recorder.load(bytes, &device()).expect("valid input"))
}

/// A layer of zeros without adapters.
fn blank() -> SwitchableLinear<Plain> {
    let zeros = Tensor::zeros([D_IN, D_OUT], &device());
    let bias = Some(Tensor::zeros([D_OUT], &device()));
    SwitchableLinear::new(zeros, bias, LinearSettings::default(), &QuantizedCache::default())
}

/// Checks that two layers are one: in their adapters and in what they compute.
fn assert_same_layer(got: &SwitchableLinear<Plain>, expected: &SwitchableLinear<Plain>) {
    let adapters = |layer: &SwitchableLinear<Plain>| {
        let adapter = |(width, pair): (BitWidth, &LoraAdapterPair<Plain>)| {
            let step = pair.step().map(|step| (step.bits(), step.granularity(), step.step.id));
            (width, pair.rank(), pair.alpha(), [pair.a.id, pair.b.id], step)
        };
        layer.bank().iter().map(adapter).collect::<Vec<_>>()
    };
    assert_eq!(adapters(got), adapters(expected));
    let x = tensor::<Plain, 2>([4, D_IN], 5);
    for precision in precisions() {
        if precision.adapter.is_none_or(|width| expected.bank().get(width).is_some()) {
            let (got, expected) = (got.forward(x.clone(), &precision), expected.forward(x.clone(), &precision));
            assert_eq!(values(&got), values(&expected), "{precision:?}");
        }
    }
}

#[test]
fn records_carry_weights_and_adapters() {
    skip_without_device!();
    let layer = layer::<Plain>(LinearSettings::default(), &QuantizedCache::default());
    let recorder = BinBytesRecorder::<FullPrecisionSettings>::new();
    let bytes = recorder.record(layer.clone().into_record(), ()).unwrap();
    assert_same_layer(&blank().load_record(recorder.load(bytes, &device()).unwrap()), &layer);
    assert_same_layer(&reload(&layer, blank()), &layer);
}

#[test]
fn a_record_says_which_adapters_there_are() {
    skip_without_device!();
    let layer = layer::<Plain>(LinearSettings::default(), &QuantizedCache::default());
    let factors =
        |rank, alpha| LoraAdapterPair::from_factors(tensor([D_IN, rank], 7), tensor([rank, D_OUT], 8), alpha).unwrap();
    // Another alpha, another rank, and the same number of adapters at other widths.
    let mut others = blank();
    for (width, rank, alpha) in [(BitWidth::B2, 3, 8.0), (BitWidth::B4, 5, 0.5), (BitWidth::B3, 1, 1.0)] {
        others.insert_adapter(width, factors(rank, alpha)).unwrap();
    }
    assert_same_layer(&reload(&layer, others.clone()), &layer);
    others.insert_adapter(BitWidth::B6, factors(2, 1.0)).unwrap();
    assert_same_layer(&reload(&layer, others.clone()), &layer);
    assert_same_layer(&reload(&blank(), others), &blank());
}

#[test]
fn a_record_says_which_adapters_have_a_learned_step() {
    skip_without_device!();
    let settings = LinearSettings { weight: "per-channel".parse().unwrap(), ..LinearSettings::default() };
    let with = |scales: WeightScales, granularity: &str| {
        let weight = granularity.parse().unwrap();
        let mut layer = blank().with_parameters(tensor([D_IN, D_OUT], 1), Some(tensor([D_OUT], 2)));
        layer = layer.with_settings(LinearSettings { weight, ..settings });
        let config = LoraConfig::new(2, 3.0).unwrap().with_scales(scales);
        layer.init_adapter(BitWidth::B4, &config, 3).unwrap();
        layer
    };
    let [learned, found] = [WeightScales::Learned, WeightScales::Found].map(|scales| with(scales, "per-channel"));
    assert_same_layer(&reload(&learned, found.clone()), &learned);
    assert_same_layer(&reload(&found, learned.clone()), &found);
    assert_same_layer(&reload(&learned, blank().with_settings(settings)), &learned);
    // A step of another granularity comes as it was saved: the layer refuses it by name.
    let other = reload(&learned, with(WeightScales::Learned, "per-tensor"));
    let error = other.check(&SitePrecision::uniform(BitWidth::B4)).unwrap_err().to_string();
    assert!(error.contains("per-channel") && error.contains("per-tensor"), "{error}");
}

#[test]
#[should_panic(expected = "record of a layer without a bias, the layer has one")]
fn a_record_without_the_bias_is_refused() {
    let without = blank().with_parameters(tensor([D_IN, D_OUT], 1), None);
    let _ = reload(&without, blank());
}

#[test]
#[should_panic(expected = "record of a layer with a bias, the layer has none")]
fn a_record_with_a_bias_too_many_is_refused() {
    let without = blank().with_parameters(tensor([D_IN, D_OUT], 1), None);
    let _ = reload(&blank(), without);
}

#[test]
#[should_panic(expected = "record of a weight of shape [3, 7], the layer's is [12, 7]")]
fn a_record_of_another_shape_is_refused() {
    let settings = LinearSettings::default();
    let other = SwitchableLinear::<Plain>::new(
        tensor([3, D_OUT], 1),
        Some(tensor([D_OUT], 2)),
        settings,
        &QuantizedCache::default(),
    );
    let _ = reload(&other, blank());
}

#[test]
fn a_loaded_record_keeps_the_policy() {
    skip_without_device!();
    for (base, trained) in [(BasePolicy::Frozen, false), (BasePolicy::Trainable, true)] {
        let settings = LinearSettings { base, ..LinearSettings::default() };
        let layer = layer::<Tracked>(settings, &QuantizedCache::default());
        let loaded = layer.clone().load_record(layer.into_record());
        assert_eq!(loaded.weight().is_require_grad(), trained, "{base:?}");
        assert_eq!(loaded.bias().unwrap().is_require_grad(), trained, "{base:?}");
        assert!(loaded.bank().iter().all(|(_, pair)| pair.a.val().is_require_grad()), "{base:?}");
    }
}

#[test]
fn moving_to_a_device_keeps_the_values() {
    skip_without_device!();
    let layer = layer::<Plain>(LinearSettings::default(), &QuantizedCache::default());
    let device = device();
    let x = tensor::<Plain, 2>([4, D_IN], 5);
    let expected = values(&layer.forward(x.clone(), &SitePrecision::uniform(BitWidth::B4)));
    assert_eq!(layer.devices(), [crate::support::device()]);
    for moved in [layer.clone().to_device(&device), layer.fork(&device)] {
        assert_eq!(values(&moved.forward(x.clone(), &SitePrecision::uniform(BitWidth::B4))), expected);
    }
}

#[test]
fn the_printed_layer_names_its_parts() {
    skip_without_device!();
    let layer = layer::<Plain>(LinearSettings::default(), &QuantizedCache::default());
    let text = layer.to_string();
    for part in ["SwitchableLinear", "BaseWeights", "Frozen", "[12, 7]", "Residual"] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
}

/// A record as version 0.1.0 wrote it: without widths, alphas and the granularity of steps.
#[test]
fn a_record_of_an_earlier_version_fills_the_adapters_that_are_there() {
    skip_without_device!();
    let with_adapters = |mut layer: SwitchableLinear<Plain>, scale: f32, alphas: f64| {
        for width in [BitWidth::B2, BitWidth::B8] {
            let pair = pair::<Plain>(width);
            let (a, b) = (pair.a.val() * scale, pair.b.val() * scale);
            let pair = LoraAdapterPair::from_factors(a, b, pair.alpha() * alphas).unwrap();
            layer.insert_adapter(width, pair).unwrap();
        }
        let config = LoraConfig::new(2, 3.0 * alphas).unwrap().with_scales(WeightScales::Learned);
        layer.init_adapter(BitWidth::B4, &config, 3).unwrap();
        layer
    };
    let load = |into: SwitchableLinear<Plain>| {
        let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::new();
        let bytes = include_bytes!("records/layer_0_1_0.mpk").to_vec();
        into.load_record(recorder.load(bytes, &device()).unwrap())
    };
    let outputs = |layer: &SwitchableLinear<Plain>| {
        let at = |bits| values(&layer.forward(tensor::<Plain, 2>([4, D_IN], 5), &SitePrecision::uniform(bits)));
        [BitWidth::B2, BitWidth::B4, BitWidth::B8].map(at)
    };
    let original = blank().with_parameters(tensor([D_IN, D_OUT], 1), Some(tensor([D_OUT], 2)));
    let expected = outputs(&with_adapters(original.clone(), 1.0, 1.0));
    let blank_bank =
        with_adapters(blank().with_parameters(tensor([D_IN, D_OUT], 9), Some(tensor([D_OUT], 3))), 0.5, 1.0);
    assert_eq!(outputs(&load(blank_bank)), expected);
    // Alphas stay as they are: the record has none.
    let doubled = load(with_adapters(blank(), 1.0, 2.0));
    assert!(
        doubled
            .bank()
            .iter()
            .zip(original_alphas())
            .all(|((_, pair), alpha)| (pair.alpha() - 2.0 * alpha).abs() < 1e-9)
    );
    // The number of adapters must fit, as it had to.
    let refused = std::panic::catch_unwind(|| load(blank())).unwrap_err();
    let message = refused.downcast_ref::<String>().unwrap();
    assert!(message.contains("record of 3 adapters without their widths, the layer has 0"), "{message}");
}

fn original_alphas() -> [f64; 3] {
    [pair::<Plain>(BitWidth::B2).alpha(), 3.0, pair::<Plain>(BitWidth::B8).alpha()]
}
