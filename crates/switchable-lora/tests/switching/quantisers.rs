//! Precisions that name their own quantisers, placement and rounding.

use burn::tensor::Tensor;

use quant_kernels::{
    packed::scales::ScaleFormat,
    spec::{bit_width::BitWidth, granularity::Granularity, quant_spec::QuantSpec},
    tensor::{learned_step::LearnedStep, rounding::Rounding},
};
use switchable_lora::{
    error::Error,
    linear_settings::LinearSettings,
    lora_config::WeightScales,
    packed_weights::PackedWeights,
    placement::Placement,
    quantized_cache::QuantizedCache,
    site_precision::{SitePrecision, SiteRounding},
    switchable_linear::SwitchableLinear,
};

use crate::support::{
    D_IN, D_OUT, Plain, assert_panics, device, layer, pair, precisions, skip_without_device, tensor, values,
};

/// Settings that differ in every quantiser and in the placement.
fn every_setting() -> Vec<LinearSettings> {
    let mut settings = Vec::new();
    for weight in ["per-tensor", "per-channel", "per-group:4,asymmetric", "per-channel,symmetric,mse"] {
        for activation in ["per-token", "per-tensor,asymmetric"] {
            for placement in [Placement::Residual, Placement::Merged] {
                let [weight, activation] =
                    [weight, activation].map(|text| text.parse::<QuantSpec>().expect("valid input"));
                settings.push(LinearSettings { weight, activation, placement, ..LinearSettings::default() });
            }
        }
    }
    settings
}

fn output(layer: &SwitchableLinear<Plain>, precision: &SitePrecision) -> Vec<f32> {
    values(&layer.forward(tensor::<Plain, 2>([5, D_IN], 9), precision))
}

#[test]
fn what_a_precision_says_is_computed_whatever_the_settings() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let one = layer::<Plain>(LinearSettings::default(), &cache);
    let mut seen = std::collections::BTreeSet::new();
    for settings in every_setting() {
        let other = layer::<Plain>(settings, &QuantizedCache::disabled());
        for precision in precisions() {
            let said = precision.with_quantisation(settings.quantisation());
            // Twice: the second time some weights come from the cache.
            for _ in 0..2 {
                assert_eq!(output(&one, &said), output(&other, &precision), "{said:?}");
            }
            seen.insert(format!("{:?}", output(&one, &said)));
        }
    }
    assert!(seen.len() > 100, "only {} outputs differ", seen.len());
}

#[test]
fn a_table_of_numbers_can_be_the_quantiser_of_one_site_alone() {
    skip_without_device!();
    let nf4: QuantSpec = "per-group:4,nf4".parse().unwrap();
    let plain = layer::<Plain>(LinearSettings::default(), &QuantizedCache::default());
    let tabled =
        layer::<Plain>(LinearSettings { weight: nf4, ..LinearSettings::default() }, &QuantizedCache::default());
    let four = SitePrecision::uniform(BitWidth::B4);
    assert_eq!(output(&plain, &four.with_quantizer(nf4)), output(&tabled, &four));
    assert_ne!(output(&plain, &four), output(&tabled, &four));
    let error = plain.check(&SitePrecision::uniform(BitWidth::B8).with_quantizer(nf4)).unwrap_err();
    assert!(error.to_string().contains("nf4"), "{error}");
}

#[test]
fn what_is_said_and_what_is_left_to_the_layer_are_told_apart_and_compute_the_same() {
    skip_without_device!();
    for settings in every_setting() {
        let layer = layer::<Plain>(settings, &QuantizedCache::default());
        for precision in precisions() {
            let said = layer.explicit(&precision);
            assert!(said.is_explicit());
            assert_eq!(said.quantisation(LinearSettings::default().quantisation()), settings.quantisation());
            assert_eq!(layer.implicit(&said), precision);
            assert_eq!(output(&layer, &said), output(&layer, &precision));
        }
        let other = SitePrecision::FULL.with_quantizer("per-token".parse().unwrap());
        assert_eq!(layer.implicit(&other), other, "what differs from the layer's stays");
    }
}

/// A layer with a step per channel at 4 bits.
fn stepped() -> SwitchableLinear<Plain> {
    let settings = LinearSettings { weight: "per-channel".parse().expect("valid input"), ..LinearSettings::default() };
    let mut layer = layer::<Plain>(settings, &QuantizedCache::default());
    let steps = Tensor::<Plain, 2>::full([1, D_OUT], 0.1, &device());
    let step = LearnedStep::from_steps(steps, BitWidth::B4, Granularity::PerChannel).expect("valid input");
    layer.insert_adapter(BitWidth::B4, pair(BitWidth::B4).with_step(step)).expect("valid input");
    layer
}

#[test]
fn a_step_belongs_to_its_quantiser_and_is_used_unless_another_rounding_is_asked_for() {
    skip_without_device!();
    let (layer, four) = (stepped(), SitePrecision::uniform(BitWidth::B4));
    assert_eq!(layer.explicit(&four).rounding, Some(SiteRounding::LearnedStep));
    assert_eq!(output(&layer, &four.with_rounding(SiteRounding::LearnedStep)), output(&layer, &four));

    let nearest = four.with_rounding(SiteRounding::Nearest);
    let without = {
        let mut layer = layer.clone();
        layer.insert_adapter(BitWidth::B4, pair(BitWidth::B4)).unwrap();
        output(&layer, &four)
    };
    assert_eq!(output(&layer, &nearest), without);
    assert_ne!(output(&layer, &nearest), output(&layer, &four));
    assert!(layer.learned_step(&nearest).is_none() && layer.keeps_quantized(BitWidth::B4, WeightScales::Found));
    assert_eq!(layer.implicit(&nearest), nearest, "it is not what the layer does of itself");

    for quantizer in ["per-tensor", "per-channel,asymmetric"] {
        let other = four.with_quantizer(quantizer.parse().unwrap());
        let error = layer.check(&other).unwrap_err();
        assert!(matches!(error, Error::StepGranularity { .. } | Error::StepFormat { .. }), "{error}");
        layer.check(&other.with_rounding(SiteRounding::Nearest)).unwrap();
    }
    let eight = SitePrecision::uniform(BitWidth::B8).with_rounding(SiteRounding::LearnedStep);
    for precision in [eight, four.with_weights(BitWidth::B8).with_rounding(SiteRounding::LearnedStep)] {
        let error = layer.check(&precision).unwrap_err();
        assert!(matches!(error, Error::NoStep { .. }), "{error}");
    }
    assert_eq!(eight.without_adapter(), SitePrecision::uniform(BitWidth::B8).without_adapter());
}

#[test]
fn a_forward_pass_by_another_quantiser_than_the_steps_panics() {
    skip_without_device!();
    let per_tensor = SitePrecision::uniform(BitWidth::B4).with_quantizer(QuantSpec::default());
    let layer = stepped();
    assert_panics("a learned step per-channel does not fit a weight that is quantised per-tensor", || {
        let _ = output(&layer, &per_tensor);
    });
}

fn packed(spec: QuantSpec) -> SwitchableLinear<Plain> {
    let weight = tensor::<Plain, 2>([D_IN, D_OUT], 1);
    let codes = Rounding::Nearest { bits: BitWidth::B4, spec }.pack(&weight, ScaleFormat::F32).expect("it fits");
    let (codes, cache) = (PackedWeights::Fixed(codes), QuantizedCache::default());
    let mut layer = SwitchableLinear::from_packed(codes, None, LinearSettings::default(), &cache, &device());
    layer.insert_adapter(BitWidth::B4, pair(BitWidth::B4)).expect("it fits");
    layer
}

#[test]
fn codes_are_those_of_one_quantiser_and_others_are_refused() {
    skip_without_device!();
    let per_channel: QuantSpec = "per-channel,asymmetric".parse().unwrap();
    let (layer, four) = (packed(per_channel), SitePrecision::uniform(BitWidth::B4));
    assert_eq!(layer.settings().weight, per_channel, "the codes tell");
    layer.check(&four.with_quantizer(per_channel)).unwrap();
    assert_eq!(layer.implicit(&four.with_quantizer(per_channel)), four);
    for other in ["per-tensor,asymmetric", "per-channel,symmetric", "per-group:4,asymmetric"] {
        let error = layer.check(&four.with_quantizer(other.parse().unwrap())).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the weights were packed by per-channel,asymmetric,min-max, the plan names {other},min-max")
        );
    }
    let error = layer.check(&four.with_placement(Placement::Merged)).unwrap_err();
    assert!(matches!(error, Error::PackedPlacement), "{error}");
    layer.check(&four.without_adapter().with_placement(Placement::Merged)).unwrap();
}

#[test]
fn a_forward_pass_by_another_quantiser_than_that_of_the_codes_panics() {
    skip_without_device!();
    let four = SitePrecision::uniform(BitWidth::B4).with_quantizer(QuantSpec::default());
    let layer = packed("per-channel".parse().unwrap());
    assert_panics("the weights were packed by per-channel,symmetric,min-max, the plan names per-tensor", || {
        let _ = output(&layer, &four);
    });
}
