//! Layers that compute from codes.

use burn::{backend::NdArray as Other, module::Module as _};

use quant_kernels::{
    packed::{nested::NestedTensor, product::epilogue::OutputFunction, scales::ScaleFormat},
    spec::{bit_width::BitWidth, quant_spec::QuantSpec},
    tensor::rounding::Rounding,
};
use switchable_lora::{
    adapter_pair::LoraAdapterPair,
    error::Error,
    linear_settings::{Execution, LinearSettings},
    lora_config::WeightScales,
    packed_weights::PackedWeights,
    quantized_cache::QuantizedCache,
    site_precision::SitePrecision,
    switchable_linear::SwitchableLinear,
};

use crate::support::{
    D_IN, D_OUT, Plain, Tracked, assert_close, device, layer, merged, pair, precisions, skip_without_device, tensor,
    values,
};

fn settings(execution: Execution) -> LinearSettings {
    LinearSettings { execution, ..LinearSettings::default() }
}

fn packed_layer(nested: bool) -> SwitchableLinear<Plain> {
    let weight = tensor::<Plain, 2>([D_IN, D_OUT], 1);
    let nearest = |bits| Rounding::Nearest { bits, spec: QuantSpec::default() };
    let packed = |bits| nearest(bits).pack(&weight, ScaleFormat::F32).expect("it fits");
    let weights = if nested {
        PackedWeights::Nested(NestedTensor::new(packed(BitWidth::B8)).expect("it fits"))
    } else {
        PackedWeights::Fixed(packed(BitWidth::B4))
    };
    let cache = QuantizedCache::default();
    let bias = Some(tensor([D_OUT], 2));
    let mut layer = SwitchableLinear::from_packed(weights, bias, settings(Execution::Packed), &cache, &device());
    layer.insert_adapter(BitWidth::B4, pair(BitWidth::B4)).expect("it fits");
    layer
}

#[test]
fn codes_give_what_fake_quantised_weights_give() {
    skip_without_device!();
    let x = tensor::<Plain, 3>([2, 3, D_IN], 9);
    let fake = layer::<Plain>(settings(Execution::FakeQuantized), &QuantizedCache::default());
    let packed = layer::<Plain>(settings(Execution::Packed), &QuantizedCache::default());
    for precision in precisions() {
        for function in [OutputFunction::Identity, OutputFunction::GeluTanh] {
            let what = format!("{precision:?} {function:?}");
            let got = packed.forward_then(x.clone(), &precision, function);
            let expected = fake.forward_then(x.clone(), &precision, function);
            assert_close(&values(&got), &values(&expected), 2e-5, &what);
        }
    }
}

#[test]
fn merged_adapters_are_in_the_codes_and_codes_follow_them() {
    skip_without_device!();
    let x = tensor::<Plain, 3>([2, 3, D_IN], 9);
    let with = |execution| LinearSettings { execution, ..merged() };
    let cache = QuantizedCache::default();
    let mut fake = layer::<Plain>(with(Execution::FakeQuantized), &QuantizedCache::default());
    let mut packed = layer::<Plain>(with(Execution::Packed), &cache);
    let compare = |fake: &SwitchableLinear<Plain>, packed: &SwitchableLinear<Plain>| {
        for precision in precisions() {
            let (got, expected) = (packed.forward(x.clone(), &precision), fake.forward(x.clone(), &precision));
            assert_close(&values(&got), &values(&expected), 2e-5, &format!("{precision:?}"));
        }
    };
    compare(&fake, &packed);
    // A second call finds what the first one kept.
    let four = SitePrecision::uniform(BitWidth::B4);
    packed.forward(x.clone(), &four);
    let misses = cache.statistics().misses;
    packed.forward(x.clone(), &four);
    assert_eq!(cache.statistics().misses, misses);
    // Another adapter of the same width is another weight.
    for layer in [&mut fake, &mut packed] {
        let other = LoraAdapterPair::from_factors(tensor([D_IN, 2], 7), tensor([2, D_OUT], 8), 3.0);
        layer.insert_adapter(BitWidth::B4, other.expect("the ranks agree")).expect("it fits");
    }
    compare(&fake, &packed);
}

#[test]
fn codes_of_a_table_give_what_fake_quantised_weights_give() {
    skip_without_device!();
    let nf4 = |execution| LinearSettings { weight: "per-channel,nf4".parse().unwrap(), ..settings(execution) };
    let x = tensor::<Plain, 3>([2, 3, D_IN], 9);
    let [fake, packed] = [Execution::FakeQuantized, Execution::Packed]
        .map(|execution| layer::<Plain>(nf4(execution), &QuantizedCache::default()));
    // Activations of 8 bits have no integer product with a table: they are multiplied as floats.
    for activations in [BitWidth::FULL, BitWidth::B8] {
        let precision = SitePrecision::uniform(BitWidth::B4).with_activations(activations);
        let (got, expected) = (packed.forward(x.clone(), &precision), fake.forward(x.clone(), &precision));
        assert_close(&values(&got), &values(&expected), 2e-5, &format!("{activations}"));
    }
    assert!(packed.check(&SitePrecision::uniform(BitWidth::B4)).is_ok());
    let error = packed.check(&SitePrecision::FULL.with_weights(BitWidth::B2)).unwrap_err().to_string();
    assert_eq!(error, "the format nf4 has no codes of 2 bits, expected 4");
}

#[test]
fn codes_are_kept_in_place_of_floats() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let packed = layer::<Plain>(settings(Execution::Packed), &cache);
    let four = SitePrecision::uniform(BitWidth::B4);
    packed.forward(tensor::<Plain, 2>([2, D_IN], 9), &four);
    assert!(packed.keeps_quantized(BitWidth::B4, WeightScales::Found));
    let float = D_IN * D_OUT * size_of::<f32>();
    // Codes are padded to tiles of 32 × 16.
    let padded = D_IN.div_ceil(32) * 32 * D_OUT.div_ceil(16) * 16 / 2;
    assert_eq!(cache.used_bytes(), padded + size_of::<f32>());
    assert_ne!(cache.used_bytes(), float);
    packed.clear_quantized();
    assert_eq!(cache.used_bytes(), 0);
}

#[test]
fn recorded_gradients_and_other_backends_do_not_need_codes() {
    skip_without_device!();
    let four = SitePrecision::uniform(BitWidth::B4);
    let x = |seed| tensor::<Tracked, 2>([2, D_IN], seed).require_grad();
    let fake = layer::<Tracked>(settings(Execution::FakeQuantized), &QuantizedCache::default());
    let packed = layer::<Tracked>(settings(Execution::Packed), &QuantizedCache::default());
    assert_eq!(values(&packed.forward(x(9), &four)), values(&fake.forward(x(9), &four)));
    let other = layer::<Other>(settings(Execution::Packed), &QuantizedCache::default());
    let got = other.forward(tensor::<Other, 2>([2, D_IN], 9), &four);
    assert_close(&values(&got), &values(&fake.forward(x(9), &four)), 2e-5, "ndarray");
}

#[test]
fn weights_that_are_only_there_packed_have_their_widths_and_no_parameters() {
    skip_without_device!();
    let fixed = packed_layer(false);
    assert!(fixed.weight_param().is_none());
    assert_eq!((fixed.d_in(), fixed.d_out()), (D_IN, D_OUT));
    // Bias and the two factors of the adapter.
    assert_eq!(fixed.num_params(), D_OUT + pair::<Plain>(BitWidth::B4).num_params());
    let four = SitePrecision::uniform(BitWidth::B4);
    assert!(fixed.check(&four).is_ok());
    for bits in [BitWidth::B3, BitWidth::B8, BitWidth::FULL] {
        let error = fixed.check(&four.with_weights(bits)).unwrap_err();
        assert!(matches!(error, Error::PackedWidth { .. }), "{error}");
        assert!(error.to_string().contains(&format!("no form at {bits} bits, available: 4")), "{error}");
    }
    let nested = packed_layer(true);
    for bits in 2..=8 {
        assert!(nested.check(&four.with_weights(BitWidth::new(bits).unwrap())).is_ok());
    }
    assert!(nested.check(&four.with_weights(BitWidth::FULL)).is_err());
}

#[test]
fn a_packed_layer_survives_clones_moves_and_records() {
    skip_without_device!();
    let x = || tensor::<Plain, 2>([3, D_IN], 9);
    let four = SitePrecision::uniform(BitWidth::B4);
    let layer = packed_layer(false);
    let expected = values(&layer.forward(x(), &four));
    let moved = layer.clone().to_device(&device());
    assert_eq!(values(&moved.forward(x(), &four)), expected);
    let restored = packed_layer(false).load_record(layer.clone().into_record());
    assert_eq!(values(&restored.forward(x(), &four)), expected);
    assert_eq!(layer.clone().unfreeze().settings().base, switchable_lora::BasePolicy::Frozen, "codes are not trained");
}

#[test]
fn a_broken_weight_is_not_packed_and_stays_broken() {
    skip_without_device!();
    let mut numbers = values(&tensor::<Plain, 2>([D_IN, D_OUT], 1));
    numbers[3] = f32::NAN;
    let weight = burn::tensor::Tensor::<Plain, 1>::from_floats(&numbers[..], &device());
    let weight = weight.reshape([D_IN, D_OUT]);
    let nearest = Rounding::Nearest { bits: BitWidth::B4, spec: QuantSpec::default() };
    assert!(nearest.pack(&weight, ScaleFormat::F32).is_err());
    let layer = SwitchableLinear::new(weight, None, settings(Execution::Packed), &QuantizedCache::default());
    let y = layer.forward(tensor::<Plain, 2>([2, D_IN], 9), &SitePrecision::uniform(BitWidth::B4).without_adapter());
    assert!(values(&y).iter().all(|y| y.is_nan()));
}
