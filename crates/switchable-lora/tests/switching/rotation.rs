//! Layers whose inputs are rotated before they are quantised.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};

use quant_kernels::{
    HadamardTransform, InputMoments, Rotation, ScaleFormat,
    packed::nested::NestedTensor,
    rotation::hadamard::Direction,
    spec::{bit_width::BitWidth, quant_spec::QuantSpec, rounding_method::RoundingMethod},
    tensor::{
        fake_quantize::fake_quantize,
        rotation::{rotate, rotate_inputs},
    },
};
use switchable_lora::{
    error::Error,
    linear_settings::{Execution, LinearSettings},
    lora_config::{LoraConfig, WeightScales},
    packed_weights::PackedWeights,
    placement::Placement,
    quantized_cache::QuantizedCache,
    site_precision::SitePrecision,
    switchable_embedding::SwitchableEmbedding,
    switchable_linear::SwitchableLinear,
};

use crate::support::{
    D_IN, D_OUT, Plain, Tracked, assert_close, device, layer, merged, pair, precisions, skip_without_device, tensor,
    values,
};

const ROTATED: Rotation = Rotation::Hadamard(0);

fn rotated(settings: LinearSettings) -> LinearSettings {
    LinearSettings { rotation: ROTATED, ..settings }
}

fn transform() -> Arc<HadamardTransform> {
    HadamardTransform::of(ROTATED, D_IN).expect("a rotation")
}

fn width(bits: u8) -> BitWidth {
    BitWidth::new(bits).expect("a width")
}

#[test]
fn what_is_not_quantised_is_not_rotated() {
    skip_without_device!();
    let [plain, rotated] = [LinearSettings::default(), rotated(LinearSettings::default())]
        .map(|settings| layer::<Plain>(settings, &QuantizedCache::default()));
    let x = tensor::<Plain, 2>([5, D_IN], 3);
    for precision in [SitePrecision::FULL, SitePrecision::uniform(BitWidth::FULL)] {
        assert_eq!(values(&plain.forward(x.clone(), &precision)), values(&rotated.forward(x.clone(), &precision)));
    }
}

#[test]
fn both_factors_are_quantised_behind_the_rotation() {
    skip_without_device!();
    for quantizer in ["per-tensor", "per-channel,asymmetric", "per-group:5,symmetric,mse"] {
        let weight_spec: QuantSpec = quantizer.parse().expect("a quantiser");
        for settings in [LinearSettings::default(), merged()] {
            let settings = rotated(LinearSettings { weight: weight_spec, ..settings });
            let layer = layer::<Plain>(settings, &QuantizedCache::default());
            let (x, bias) = (tensor::<Plain, 2>([5, D_IN], 3), tensor::<Plain, 1>([D_OUT], 2).unsqueeze::<2>());
            for precision in precisions() {
                let there = |x| rotate(x, &transform(), Direction::There);
                let (weight, added) = (tensor::<Plain, 2>([D_IN, D_OUT], 1), precision.adapter.map(pair::<Plain>));
                let product = added.map(|pair| pair.product());
                let is_merged = settings.placement == Placement::Merged;
                let (inside, beside) = if is_merged { (product, None) } else { (None, product) };
                let weight = inside.into_iter().fold(weight, |weight, product| weight + product);
                let weight = rotate_inputs(weight, &transform(), Direction::There);
                let weight = fake_quantize(weight, precision.weights, &weight_spec, settings.gradient).expect("valid");
                let inputs = there(x.clone());
                let inputs = fake_quantize(inputs, precision.activations, &settings.activation, settings.gradient)
                    .expect("valid");
                let y = inputs.matmul(weight) + bias.clone();
                let expected = beside.into_iter().fold(y, |y, product| y + x.clone().matmul(product));
                let got = values(&layer.forward(x.clone(), &precision));
                assert_close(&got, &values(&expected), 5e-5, &format!("{settings:?} {precision:?}"));
                if precision.activations.is_full() {
                    let effective = layer.effective_weight(&precision).expect("a weight");
                    let by_weight = values(&(x.clone().matmul(effective) + bias.clone()));
                    assert_close(&got, &by_weight, 5e-5, &format!("effective, {settings:?} {precision:?}"));
                }
            }
        }
    }
}

#[test]
fn codes_give_what_fake_quantised_weights_give() {
    skip_without_device!();
    let x = tensor::<Plain, 3>([2, 3, D_IN], 9);
    for quantizer in ["per-tensor", "per-channel", "per-channel,asymmetric", "per-group:4,asymmetric"] {
        for settings in [LinearSettings::default(), merged()] {
            let weight = quantizer.parse().expect("a quantiser");
            let [fake, packed] = [Execution::FakeQuantized, Execution::Packed].map(|execution| {
                let settings = rotated(LinearSettings { execution, weight, ..settings });
                layer::<Plain>(settings, &QuantizedCache::default())
            });
            for precision in precisions() {
                let (got, expected) = (packed.forward(x.clone(), &precision), fake.forward(x.clone(), &precision));
                assert_close(&values(&got), &values(&expected), 5e-5, &format!("{quantizer} {precision:?}"));
            }
        }
    }
}

#[test]
fn every_width_is_packed_alone_and_nested() {
    skip_without_device!();
    let settings =
        rotated(LinearSettings { weight: "per-channel".parse().expect("a quantiser"), ..Default::default() });
    let float = layer::<Plain>(settings, &QuantizedCache::default());
    let x = tensor::<Plain, 2>([4, D_IN], 4);
    for bits in 2..=8 {
        for activations in [4, 8, 32].map(width) {
            let precision = SitePrecision::uniform(width(bits)).without_adapter().with_activations(activations);
            let codes = float.rounding_at(&precision).expect("it fits").pack(&float.weight(), ScaleFormat::F32);
            let packed = float.clone().with_packed_weights(PackedWeights::Fixed(codes.expect("it packs")));
            let packed = packed.expect("it fits");
            let (got, expected) = (packed.forward(x.clone(), &precision), float.forward(x.clone(), &precision));
            assert_close(&values(&got), &values(&expected), 5e-5, &format!("{precision:?}"));
            // In floats it is the weight as it stands, with its adapters beside it.
            let kept = values(&float.quantized_weight(width(bits)).expect("it fits"));
            assert_close(&values(&packed.weight()), &kept, 1e-5, "in floats");
            assert_eq!(packed.bank().widths(), float.bank().widths());
        }
    }
    let eight = SitePrecision::uniform(BitWidth::B8).without_adapter();
    let codes = float.rounding_at(&eight).expect("it fits").pack(&float.weight(), ScaleFormat::F32).expect("it packs");
    let nested = NestedTensor::new(codes).expect("8 bits");
    let nested = float.clone().with_packed_weights(PackedWeights::Nested(nested)).expect("it fits");
    let error = |bits: u8| {
        let precision = eight.with_weights(width(bits));
        let (got, expected) = (nested.forward(x.clone(), &precision), float.forward(x.clone(), &SitePrecision::FULL));
        (got - expected).square().mean().into_scalar().sqrt()
    };
    let errors: Vec<f32> = (2..=8).map(error).collect();
    assert!(errors.windows(2).all(|pair| pair[0] > pair[1]) && errors[6] < 0.02, "{errors:?}");
}

#[test]
fn inputs_that_stand_out_cost_less() {
    skip_without_device!();
    let settings = LinearSettings { weight: "per-channel".parse().expect("a quantiser"), ..Default::default() };
    let mut x: Vec<f32> = test_support::numbers::numbers(64 * D_IN, 5);
    x.iter_mut().skip(3).step_by(D_IN).for_each(|value| *value += 20.0);
    let x = Tensor::<Plain, 2>::from_data(TensorData::new(x, [64, D_IN]), &device());
    let error = |settings| {
        let layer = layer::<Plain>(settings, &QuantizedCache::default());
        let exact = layer.forward(x.clone(), &SitePrecision::FULL);
        let four = SitePrecision::FULL.with_activations(BitWidth::B4);
        (layer.forward(x.clone(), &four) - exact).square().mean().into_scalar().sqrt()
    };
    let (without, with) = (error(settings), error(rotated(settings)));
    assert!(with < 0.7 * without, "{with} with, {without} without");
}

#[test]
fn calibrated_rounding_sees_the_rotated_inputs() {
    skip_without_device!();
    let weight: QuantSpec = "per-channel,symmetric,importance".parse().expect("a quantiser");
    let x = test_support::numbers::numbers(200 * D_IN, 31);
    // Inputs that depend on one another.
    let x: Vec<f32> = x.chunks(D_IN).flat_map(|row| (0..D_IN).map(|i| row[i] + 2.0 * row[i / 3])).collect();
    let mut second = vec![0.0; D_IN * D_IN];
    for row in x.chunks(D_IN) {
        (0..D_IN * D_IN).for_each(|at| second[at] += row[at / D_IN] * row[at % D_IN] / 200.0);
    }
    let moments = InputMoments::new(second, vec![0.0; D_IN], vec![9.0; D_IN], 200).expect("finite");
    let x = Tensor::<Plain, 2>::from_data(TensorData::new(x, [200, D_IN]), &device());
    let error = |rounding| {
        let settings = rotated(LinearSettings { weight, rounding, ..Default::default() });
        let layer = layer::<Plain>(settings, &QuantizedCache::default());
        let layer = layer.with_moments(Arc::new(moments.clone())).expect("they fit");
        let three = SitePrecision::uniform(width(3)).without_adapter();
        let exact = layer.forward(x.clone(), &SitePrecision::FULL);
        (layer.forward(x.clone(), &three) - exact).square().mean().into_scalar().sqrt()
    };
    let (nearest, gptq) = (error(RoundingMethod::Nearest), error(RoundingMethod::Gptq));
    assert!(gptq < 0.9 * nearest, "{gptq} by gptq, {nearest} to the nearest");
}

#[test]
fn gradients_are_those_of_the_weight_that_multiplies() {
    skip_without_device!();
    for settings in [rotated(LinearSettings::default()), rotated(merged())] {
        let layer = layer::<Tracked>(settings, &QuantizedCache::default());
        for precision in precisions() {
            let x = tensor::<Tracked, 2>([5, D_IN], 3).require_grad();
            let weights = tensor::<Tracked, 2>([5, D_OUT], 8);
            let gradients = (layer.forward(x.clone(), &precision) * weights.clone()).sum().backward();
            let got = values(&x.grad(&gradients).expect("a gradient"));
            let effective = layer.effective_weight(&precision).expect("a weight");
            let expected = weights.matmul(effective.transpose());
            assert_close(&got, &values(&expected), 5e-5, &format!("{precision:?}"));
            if let Some(width) = precision.adapter {
                assert!(layer.bank().get(width).expect("it is there").a.val().grad(&gradients).is_some());
            }
        }
    }
}

#[test]
fn steps_are_learned_behind_the_rotation() {
    skip_without_device!();
    let settings =
        rotated(LinearSettings { weight: "per-channel".parse().expect("a quantiser"), ..Default::default() });
    let config = LoraConfig::new(2, 4.0).expect("a rank").with_scales(WeightScales::Learned);
    let x = tensor::<Plain, 2>([4, D_IN], 4);
    let three = SitePrecision::uniform(width(3));
    let [fake, packed] = [Execution::FakeQuantized, Execution::Packed].map(|execution| {
        let settings = LinearSettings { execution, ..settings };
        let mut layer = layer::<Plain>(settings, &QuantizedCache::default());
        layer.init_adapter(width(3), &config, 1).expect("it starts");
        layer
    });
    let (got, expected) = (packed.forward(x.clone(), &three), fake.forward(x.clone(), &three));
    assert_close(&values(&got), &values(&expected), 5e-5, "a step in codes");
    let step = fake.learned_step(&three).expect("a step").step.val();
    let nearest = fake.rounding_at(&three.without_adapter()).expect("it fits").scales(&fake.weight()).expect("scales");
    // It is one of the rotated weight, within a factor of the scale that its quantiser finds.
    let ratios = values(&step).iter().zip(&nearest).map(|(step, scale)| step / scale).collect::<Vec<_>>();
    assert!(ratios.iter().all(|ratio| (0.4..=1.01).contains(ratio)), "{ratios:?}");
}

#[test]
fn what_does_not_fit_is_refused() {
    skip_without_device!();
    let settings = rotated(LinearSettings::default());
    let mut float = layer::<Plain>(settings, &QuantizedCache::default());
    let four = SitePrecision::uniform(BitWidth::B4);
    let codes = float.rounding_at(&four).expect("it fits").pack(&float.weight(), ScaleFormat::F32).expect("it packs");
    let packed = float.clone().with_packed_weights(PackedWeights::Fixed(codes)).expect("it fits");
    assert!(packed.check(&four.with_rotation(ROTATED)).is_ok());
    for got in [Rotation::None, Rotation::Hadamard(3)] {
        let error = packed.check(&four.with_rotation(got)).unwrap_err();
        assert!(matches!(error, Error::PackedRotation { got: found, expected: ROTATED } if found == got), "{error}");
    }
    let error = SwitchableEmbedding::<Plain>::new(tensor([5, 4], 1), &QuantizedCache::default())
        .check(&SitePrecision::FULL.with_rotation(ROTATED))
        .unwrap_err();
    assert!(error.to_string().contains("expected rotation `none`"), "{error}");
    // An adapter repairs what one rotation leaves.
    float.set_trained_for(BitWidth::B4, LinearSettings::default().quantisation());
    let error = float.check(&four).unwrap_err().to_string();
    assert!(error.contains("rotation") && error.contains("hadamard"), "{error}");
    float.set_trained_for(BitWidth::FULL, LinearSettings::default().quantisation());
    assert!(float.check(&SitePrecision::uniform(BitWidth::FULL)).is_ok(), "nothing is rotated");
}

#[test]
fn a_precision_says_its_rotation() {
    skip_without_device!();
    let [plain, turned] = [LinearSettings::default(), rotated(LinearSettings::default())]
        .map(|settings| layer::<Plain>(settings, &QuantizedCache::default()));
    let four = SitePrecision::uniform(BitWidth::B4);
    let said = turned.explicit(&four);
    assert_eq!((said.rotation, turned.implicit(&said)), (Some(ROTATED), four));
    assert_eq!(plain.explicit(&four).rotation, None);
    assert_eq!(plain.implicit(&said).rotation, Some(ROTATED));
    // Without a rotation in a layer that has one, and the other way round.
    let x = tensor::<Plain, 2>([4, D_IN], 4);
    let at = |layer: &SwitchableLinear<Plain>, precision| values(&layer.forward(x.clone(), &precision));
    let none = four.with_rotation(Rotation::None);
    assert_eq!(turned.explicit(&none).rotation, Some(Rotation::None));
    assert_eq!(at(&turned, none), at(&plain, four));
    assert_eq!(at(&plain, four.with_rotation(ROTATED)), at(&turned, four));
    let json = serde_json::to_string(&said).expect("json");
    assert!(json.ends_with(r#""rotation":"hadamard"}"#), "{json}");
    assert_eq!(serde_json::from_str::<SitePrecision>(&json).expect("a precision"), said);
}
