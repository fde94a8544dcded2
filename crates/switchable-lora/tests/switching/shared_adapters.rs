//! Layers of which several widths add one adapter.

use burn::{
    module::{AutodiffModule as _, Module as _},
    tensor::Tensor,
};

use quant_kernels::{
    ScaleFormat,
    spec::{bit_width::BitWidth, rounding_method::RoundingMethod},
};
use switchable_lora::{
    error::Error,
    linear_settings::{BasePolicy, Execution, LinearSettings},
    packed_weights::PackedWeights,
    quantized_cache::QuantizedCache,
    site_precision::SitePrecision,
};

use crate::support::{
    D_IN, D_OUT, Plain, Tracked, WIDTHS, assert_close, layer, merged, pair, skip_without_device, tensor, values,
};

/// Every width but the widest with its own adapter and that of 32 bits.
fn shared() -> impl Iterator<Item = SitePrecision> {
    let both = |width| SitePrecision::uniform(width).with_shared(BitWidth::FULL);
    WIDTHS.into_iter().filter(|width| !width.is_full()).map(both)
}

fn rounded(settings: LinearSettings, execution: Execution) -> LinearSettings {
    LinearSettings { execution, weight: "per-channel".parse().expect("a quantiser"), ..settings }
}

#[test]
fn both_adapters_are_added() {
    skip_without_device!();
    let x = tensor::<Plain, 2>([5, D_IN], 3);
    let products = |precision: SitePrecision| {
        let of = |width| pair::<Plain>(width).product();
        precision.adapters().map(of).reduce(|sum, product| sum + product).expect("two adapters")
    };
    for settings in [LinearSettings::default(), merged()] {
        let fake = layer::<Plain>(rounded(settings, Execution::FakeQuantized), &QuantizedCache::default());
        let packed = layer::<Plain>(rounded(settings, Execution::Packed), &QuantizedCache::default());
        for precision in shared() {
            let got = values(&fake.forward(x.clone(), &precision));
            let weight = fake.effective_weight(&precision).expect("a weight");
            let bias = fake.bias().expect("a bias").unsqueeze::<2>();
            assert_close(&got, &values(&(x.clone().matmul(weight) + bias)), 2e-5, &format!("{precision:?}"));
            let in_codes = values(&packed.forward(x.clone(), &precision));
            assert_close(&in_codes, &got, 5e-5, &format!("packed, {precision:?}"));
            // One layer that both are merged into.
            let alone = fake.merged_at(&precision).expect("it merges");
            let expected = fake.weight() + products(precision);
            assert_close(&values(&alone.weight()), &values(&expected), 1e-5, "merged");
            let own = precision.without_adapter().with_adapter(precision.weights);
            assert_ne!(values(&fake.forward(x.clone(), &own)), got, "the shared one does something");
        }
    }
}

#[test]
fn both_get_gradients() {
    skip_without_device!();
    for settings in [LinearSettings::default(), merged()] {
        let layer = layer::<Tracked>(settings, &QuantizedCache::default());
        let x = tensor::<Tracked, 2>([5, D_IN], 3);
        for precision in shared() {
            let gradients = layer.forward(x.clone(), &precision).square().sum().backward();
            for width in WIDTHS {
                let pair = layer.bank().get(width).expect("an adapter");
                let [a, b] = [pair.a.val(), pair.b.val()].map(|factor| factor.grad(&gradients).is_some());
                let is_added = precision.adapters().any(|added| added == width);
                assert_eq!((a, b), (is_added, is_added), "{precision:?}: the adapter of {width}");
            }
        }
    }
}

#[test]
fn a_shared_adapter_stands_beside_another() {
    skip_without_device!();
    let layer = layer::<Plain>(LinearSettings::default(), &QuantizedCache::default());
    let four = SitePrecision::uniform(BitWidth::B4);
    for wrong in [four.with_shared(BitWidth::B4), four.without_adapter().with_shared(BitWidth::FULL)] {
        assert!(matches!(layer.check(&wrong), Err(Error::SharedAlone { .. })), "{wrong:?}");
    }
    let missing = four.with_shared(BitWidth::new(5).expect("a width"));
    assert!(matches!(layer.check(&missing), Err(Error::MissingAdapter { .. })));
    assert_eq!(four.with_shared(BitWidth::FULL).without_adapter(), four.without_adapter());
    let json = serde_json::to_string(&four.with_shared(BitWidth::FULL)).expect("json");
    assert_eq!(json, r#"{"weights":4,"activations":32,"adapter":4,"shared":32}"#);
}

#[test]
fn which_widths_share_outlives_training_and_not_the_adapter() {
    skip_without_device!();
    let mut layer = layer::<Tracked>(LinearSettings::default(), &QuantizedCache::default());
    layer.share_adapter(BitWidth::FULL, &[BitWidth::B4, BitWidth::B2]);
    let at = |layer: &switchable_lora::LoraBank<Plain>| [BitWidth::B2, BitWidth::B8].map(|bits| layer.shared_at(bits));
    assert_eq!(at(layer.valid().bank()), [Some(BitWidth::FULL), None]);
    let record = layer.clone().into_record();
    assert_eq!(at(layer.clone().load_record(record).valid().bank()), [Some(BitWidth::FULL), None]);
    assert_eq!(layer.bank().sharers(BitWidth::FULL), [BitWidth::B2, BitWidth::B4]);
    assert!(layer.bank().sharers(BitWidth::B4).is_empty());
    let eight = SitePrecision::uniform(BitWidth::B8).without_adapter();
    let plain = layer.valid();
    let codes = plain.rounding_at(&eight).expect("it fits").pack(&plain.weight(), ScaleFormat::F32).expect("it packs");
    let packed = plain.with_packed_weights(PackedWeights::Fixed(codes)).expect("it fits");
    assert_eq!(at(packed.bank()), [Some(BitWidth::FULL), None]);
    layer.insert_adapter(BitWidth::FULL, pair(BitWidth::FULL)).expect("it fits");
    assert_eq!(at(layer.valid().bank()), [None, None], "another adapter is not shared");
    layer.share_adapter(BitWidth::FULL, &[BitWidth::B4]);
    layer.remove_adapter(BitWidth::FULL);
    assert_eq!(layer.bank().shared_at(BitWidth::B4), None);
}

#[test]
fn weights_are_trained_through_nested_codes() {
    skip_without_device!();
    let settings = LinearSettings {
        base: BasePolicy::Trainable,
        rounding: RoundingMethod::Nested,
        weight: "per-channel".parse().expect("a quantiser"),
        ..Default::default()
    };
    let layer = layer::<Tracked>(settings, &QuantizedCache::default());
    let x = tensor::<Tracked, 2>([5, D_IN], 3);
    for width in WIDTHS {
        let precision = SitePrecision::uniform(width).without_adapter();
        layer.check(&precision).expect("it can be trained");
        let weights = tensor::<Tracked, 2>([5, D_OUT], 8);
        let gradients = (layer.forward(x.clone(), &precision) * weights.clone()).sum().backward();
        let got = values(&layer.weight().grad(&gradients).expect("a gradient"));
        let expected: Tensor<Tracked, 2> = x.clone().transpose().matmul(weights);
        assert_close(&got, &values(&expected), 1e-5, &format!("{width} bits"));
    }
    let asymmetric =
        SitePrecision::uniform(BitWidth::B4).with_quantizer("per-channel,asymmetric".parse().expect("one"));
    let error = layer.check(&asymmetric.without_adapter()).unwrap_err().to_string();
    assert!(error.contains("symmetric"), "{error}");
}
