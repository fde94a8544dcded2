//! What the layer computes.

use burn::tensor::Tensor;

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    spec::{bit_width::BitWidth, quant_spec::QuantSpec},
    tensor::fake_quantize::fake_quantize,
};
use switchable_lora::{
    error::Error,
    linear_settings::{BasePolicy, LinearSettings},
    lora_config::WeightScales,
    placement::Placement,
    quantized_cache::QuantizedCache,
    site_precision::SitePrecision,
    switchable_linear::SwitchableLinear,
};

use crate::support::{
    D_IN, D_OUT, Plain, Tracked, WIDTHS, assert_close, assert_panics, layer, merged, pair, precisions,
    skip_without_device, tensor, values,
};

/// The formulas at the top of the module, one product after another.
fn formula<B: QuantBackend>(x: &Tensor<B, 2>, settings: &LinearSettings, precision: SitePrecision) -> Tensor<B, 2> {
    let weight = tensor::<B, 2>([D_IN, D_OUT], 1);
    let bias = tensor::<B, 1>([D_OUT], 2).unsqueeze::<2>();
    let quantised = |x, bits, spec: &QuantSpec| fake_quantize(x, bits, spec, settings.gradient).expect("valid options");
    let activations = quantised(x.clone(), precision.activations, &settings.activation);
    let added = precision.adapter.map(|width| {
        let pair = pair::<B>(width);
        let scale = pair.alpha() / pair.rank() as f64;
        (pair.a.val(), pair.b.val() * scale)
    });
    match (settings.placement, added) {
        (Placement::Merged, Some((a, b))) => {
            activations.matmul(quantised(weight + a.matmul(b), precision.weights, &settings.weight)) + bias
        }
        (_, added) => {
            let y = activations.matmul(quantised(weight, precision.weights, &settings.weight)) + bias;
            match added {
                Some((a, b)) => y + x.clone().matmul(a).matmul(b),
                None => y,
            }
        }
    }
}

fn check_against_formula<B: QuantBackend>(settings: LinearSettings) {
    let layer = layer::<B>(settings, &QuantizedCache::default());
    let x = tensor::<B, 2>([5, D_IN], 3);
    for precision in precisions() {
        let expected = values(&formula(&x, &settings, precision));
        let got = values(&layer.forward(x.clone(), &precision));
        assert_close(&got, &expected, 2e-5, &format!("{settings:?} {precision:?}"));
    }
}

#[test]
fn every_precision_and_placement_equals_its_formula() {
    skip_without_device!();
    for base in [BasePolicy::Frozen, BasePolicy::Trainable] {
        for settings in [LinearSettings::default(), merged()] {
            for weight in ["per-tensor", "per-channel,asymmetric", "per-group:5"] {
                let settings = LinearSettings { base, weight: weight.parse().unwrap(), ..settings };
                check_against_formula::<Plain>(settings);
                check_against_formula::<Tracked>(settings);
            }
        }
    }
}

#[test]
fn residual_equals_merged_at_full_precision() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let (residual, merged) = (layer::<Plain>(LinearSettings::default(), &cache), layer::<Plain>(merged(), &cache));
    let x = tensor::<Plain, 2>([5, D_IN], 4);
    for adapter in WIDTHS {
        let precision = SitePrecision::FULL.with_adapter(adapter);
        let (a, b) = (residual.forward(x.clone(), &precision), merged.forward(x.clone(), &precision));
        assert_eq!(values(&a), values(&b));
        let merged_weight = residual.weight() + pair::<Plain>(adapter).product();
        let by_hand = x.clone().matmul(merged_weight) + tensor::<Plain, 1>([D_OUT], 2).unsqueeze();
        assert_close(&values(&a), &values(&by_hand), 1e-5, &format!("{adapter} bits"));
    }
}

#[test]
fn the_placements_differ_where_the_weight_is_quantised() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let x = tensor::<Plain, 2>([5, D_IN], 5);
    let precision = SitePrecision::uniform(BitWidth::B2);
    let residual = layer::<Plain>(LinearSettings::default(), &cache).forward(x.clone(), &precision);
    let merged = layer::<Plain>(merged(), &cache).forward(x, &precision);
    assert!((residual - merged).abs().max().into_scalar() > 0.05);
}

#[test]
fn a_layer_merged_with_its_adapter_computes_what_merged_placement_does() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let x = tensor::<Plain, 2>([5, D_IN], 5);
    let layer = layer::<Plain>(merged(), &cache);
    for width in WIDTHS {
        let precision = SitePrecision::uniform(width);
        let alone = layer.merged_with(width).unwrap();
        let expected = values(&layer.forward(x.clone(), &precision));
        assert_close(
            &values(&alone.forward(x.clone(), &precision.without_adapter())),
            &expected,
            1e-5,
            &format!("{width} bits"),
        );
        assert_eq!(alone.keeps_quantized(width, WeightScales::Found), !width.is_full());
    }
    assert!(layer.merged_with(BitWidth::B3).is_err());
}

#[test]
fn inputs_of_any_rank_give_the_rows_of_the_matrix() {
    skip_without_device!();
    let layer = layer::<Plain>(LinearSettings::default(), &QuantizedCache::default());
    let precision = SitePrecision::uniform(BitWidth::B4).with_activations(BitWidth::B8);
    let flat = tensor::<Plain, 2>([6, D_IN], 6);
    let expected = values(&layer.forward(flat.clone(), &precision));
    let three = layer.forward(flat.clone().reshape([2, 3, D_IN]), &precision);
    assert_eq!(three.dims(), [2, 3, D_OUT]);
    assert_eq!(values(&three), expected);
    let four = layer.forward(flat.clone().reshape([1, 3, 2, D_IN]), &precision);
    assert_eq!(values(&four), expected);
    let row: Tensor<Plain, 1> = layer.forward(flat.slice([2..3, 0..D_IN]).reshape([D_IN]), &precision);
    assert_eq!(row.dims(), [D_OUT]);
    assert_close(&values(&row), &expected[2 * D_OUT..3 * D_OUT], 1e-6, "a row");
}

#[test]
fn the_order_of_switching_does_not_matter() {
    skip_without_device!();
    let x = tensor::<Plain, 2>([5, D_IN], 7);
    let all = precisions();
    let fresh = |precision| {
        let layer = layer::<Plain>(LinearSettings::default(), &QuantizedCache::disabled());
        values(&layer.forward(x.clone(), precision))
    };
    let expected: Vec<_> = all.iter().map(fresh).collect();
    let layer = layer::<Plain>(LinearSettings::default(), &QuantizedCache::default());
    // Forwards, backwards, and in steps that jump about.
    let forwards = 0..all.len();
    let jumping = (0..all.len()).map(|index| index * 7 % all.len());
    for index in forwards.clone().chain(forwards.rev()).chain(jumping) {
        assert_eq!(values(&layer.forward(x.clone(), &all[index])), expected[index], "{:?}", all[index]);
    }
}

#[test]
fn a_layer_without_bias_or_adapters_is_a_product() {
    skip_without_device!();
    let weight = tensor::<Plain, 2>([D_IN, D_OUT], 8);
    let cache = QuantizedCache::default();
    let layer = SwitchableLinear::new(weight.clone(), None, LinearSettings::default(), &cache);
    let x = tensor::<Plain, 2>([3, D_IN], 9);
    assert!(layer.bias().is_none() && layer.bank().is_empty());
    assert_eq!(values(&layer.forward(x.clone(), &SitePrecision::FULL)), values(&x.matmul(weight)));
}

#[test]
fn check_says_beforehand_what_forward_would_refuse() {
    skip_without_device!();
    let mut layer = layer::<Plain>(LinearSettings::default(), &QuantizedCache::default());
    for precision in precisions() {
        layer.check(&precision).unwrap();
    }
    let missing = layer.check(&SitePrecision::uniform(BitWidth::B3)).unwrap_err();
    assert_eq!(missing.to_string(), "no adapter for 3 bits, available: 2, 4, 8, 32");
    for precision in
        [SitePrecision::FULL.with_weights(BitWidth::B1), SitePrecision::FULL.with_activations(BitWidth::B1)]
    {
        assert!(matches!(layer.check(&precision), Err(Error::Quantisation(_))), "{precision:?}");
    }
    assert!(layer.remove_adapter(BitWidth::B2).is_some());
    assert!(layer.check(&SitePrecision::uniform(BitWidth::B2)).is_err());
}

#[test]
fn a_missing_adapter_panics_with_what_there_is() {
    skip_without_device!();
    let layer = layer::<Plain>(LinearSettings::default(), &QuantizedCache::default());
    assert_panics("no adapter for 3 bits, available: 2, 4, 8, 32", || {
        let _ = layer.forward(tensor::<Plain, 2>([1, D_IN], 1), &SitePrecision::uniform(BitWidth::B3));
    });
}

#[test]
fn an_input_of_another_width_panics() {
    skip_without_device!();
    let layer = layer::<Plain>(LinearSettings::default(), &QuantizedCache::default());
    assert_panics("an input of shape [4, 11] does not end in 12", || {
        let _ = layer.forward(tensor::<Plain, 2>([4, 11], 1), &SitePrecision::FULL);
    });
}

#[test]
fn a_bias_of_another_width_panics() {
    skip_without_device!();
    let (weight, bias) = (tensor::<Plain, 2>([D_IN, D_OUT], 1), tensor([5], 1));
    assert_panics("a bias of 5 elements does not fit a weight of shape [12, 7]", || {
        let _ = SwitchableLinear::new(weight, Some(bias), LinearSettings::default(), &QuantizedCache::default());
    });
}
