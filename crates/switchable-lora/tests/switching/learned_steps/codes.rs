//! Codes whose scales are learned steps.

use super::*;

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
