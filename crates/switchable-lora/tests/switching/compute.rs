//! Products of bf16.

use burn::{module::AutodiffModule as _, tensor::Tensor};

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    packed::{product::epilogue::OutputFunction, scales::ScaleFormat},
    spec::{bit_width::BitWidth, quant_spec::QuantSpec},
    tensor::rounding::Rounding,
};
use switchable_lora::{
    linear_settings::{BasePolicy, Compute, Execution, LinearSettings},
    packed_weights::PackedWeights,
    placement::Placement,
    quantized_cache::QuantizedCache,
    site_precision::SitePrecision,
    switchable_linear::SwitchableLinear,
};

use crate::support::{
    D_IN, D_OUT, Plain, Tracked, WIDTHS, device, layer, merged, pair, precisions, skip_without_device, tensor, values,
};

/// What factors of 8 bits of mantissa may change in sums of `D_IN` products of numbers around 1.
const OF_BF16: f32 = 0.05;

fn with(compute: Compute, settings: LinearSettings) -> LinearSettings {
    LinearSettings { compute, ..settings }
}

fn both<B: QuantBackend>(settings: LinearSettings) -> [SwitchableLinear<B>; 2] {
    [Compute::F32, Compute::Bf16].map(|compute| layer(with(compute, settings), &QuantizedCache::default()))
}

/// Whether two layers give other bits, which are close all the same.
#[track_caller]
fn differ(got: &[f32], expected: &[f32], what: &str) -> bool {
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= OF_BF16 * expected.abs().max(1.0), "{what}: {got} for {expected}");
    }
    got != expected
}

/// Whether products of a precision are of bf16 where there are any: inputs stay floats, and no adapter is in the codes
/// of a layer that has the weight in floats.
fn is_taken(precision: &SitePrecision, settings: &LinearSettings) -> bool {
    let in_codes = settings.placement == Placement::Merged && precision.adapter.is_some();
    let from_floats = in_codes && settings.execution == Execution::FakeQuantized && !precision.weights.is_full();
    precision.activations.is_full() && !from_floats
}

#[test]
fn products_of_bf16_are_close_to_those_of_f32_and_are_taken_where_inputs_stay_floats() {
    skip_without_device!();
    // More rows than kernels read in registers.
    let x = tensor::<Plain, 3>([2, 9, D_IN], 9);
    for execution in [Execution::FakeQuantized, Execution::Packed] {
        for settings in [LinearSettings::default(), merged()] {
            let settings = LinearSettings { execution, ..settings };
            let [plain, half] = both::<Plain>(settings);
            for precision in precisions() {
                for function in [OutputFunction::Identity, OutputFunction::GeluTanh] {
                    let [expected, got] =
                        [&plain, &half].map(|layer| values(&layer.forward_then(x.clone(), &precision, function)));
                    let what = format!("{settings:?} {precision:?} {function:?}");
                    let taken = Plain::multiplies_bf16() && is_taken(&precision, &settings);
                    assert_eq!(differ(&got, &expected, &what), taken, "{what}");
                }
            }
        }
    }
}

#[test]
fn gradients_through_products_of_bf16_are_close_to_those_of_f32() {
    skip_without_device!();
    let [plain, half] = both::<Tracked>(LinearSettings::default());
    for weights in WIDTHS {
        let precision = SitePrecision { weights, adapter: Some(BitWidth::B4), ..SitePrecision::FULL };
        let [expected, got] = [&plain, &half].map(|layer| {
            let x = tensor::<Tracked, 2>([9, D_IN], 3).require_grad();
            let gradients = layer.forward(x.clone(), &precision).square().mean().backward();
            let pair = layer.bank().get(BitWidth::B4).expect("it is there");
            let of = |tensor: Tensor<Tracked, 2>| values(&tensor.grad(&gradients).expect("it is recorded"));
            assert!(layer.weight().grad(&gradients).is_none(), "the base is frozen");
            [of(x), of(pair.a.val()), of(pair.b.val())]
        });
        for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let what = format!("{weights:?}, gradient {at}");
            assert_eq!(differ(got, expected, &what), Tracked::multiplies_bf16(), "{what}");
        }
    }
}

#[test]
fn weights_that_are_trained_are_multiplied_in_f32() {
    skip_without_device!();
    let [plain, half] = both::<Tracked>(LinearSettings { base: BasePolicy::Trainable, ..LinearSettings::default() });
    for precision in precisions() {
        let [expected, got] = [&plain, &half].map(|layer| {
            let x = tensor::<Tracked, 2>([9, D_IN], 3).require_grad();
            let gradients = layer.forward(x.clone(), &precision).square().sum().backward();
            [values(&x.grad(&gradients).unwrap()), values(&layer.weight().grad(&gradients).unwrap())]
        });
        assert_eq!(got, expected, "{precision:?}");
    }
}

#[test]
fn what_is_kept_in_bf16_belongs_to_its_weight() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let half = layer::<Tracked>(with(Compute::Bf16, LinearSettings::default()), &cache);
    let (x, four) = (tensor::<Tracked, 2>([9, D_IN], 3), SitePrecision::uniform(BitWidth::B4).without_adapter());
    let before = values(&half.forward(x.clone(), &four));
    let misses = cache.statistics().misses;
    assert_eq!(values(&half.forward(x.clone(), &four)), before);
    // The copy that is evaluated between steps finds what training keeps.
    assert_eq!(values(&half.valid().forward(x.clone().inner(), &four)), before);
    // Floats are kept for each backend anew.
    let again = u64::from(!Tracked::multiplies_bf16());
    assert_eq!(cache.statistics().misses, misses + again);
    let other = half.with_parameters(tensor([D_IN, D_OUT], 77), Some(tensor([D_OUT], 2)));
    assert_ne!(values(&other.forward(x, &four)), before);
}

#[test]
fn packed_weights_take_adapters_beside_products_of_bf16() {
    skip_without_device!();
    let x = tensor::<Plain, 2>([9, D_IN], 9);
    let rounding = Rounding::Nearest { bits: BitWidth::B4, spec: QuantSpec::default() };
    let outputs = [Compute::F32, Compute::Bf16].map(|compute| {
        let codes = rounding.pack(&tensor::<Plain, 2>([D_IN, D_OUT], 1), ScaleFormat::F32).expect("it fits");
        let weights = PackedWeights::Fixed(codes);
        let settings = with(compute, LinearSettings::default());
        let (cache, device) = (QuantizedCache::default(), device());
        let mut layer = SwitchableLinear::<Plain>::from_packed(weights, None, settings, &cache, &device);
        layer.insert_adapter(BitWidth::B4, pair(BitWidth::B4)).expect("it fits");
        values(&layer.forward(x.clone(), &SitePrecision::uniform(BitWidth::B4)))
    });
    assert_eq!(differ(&outputs[1], &outputs[0], "packed"), Plain::multiplies_bf16());
}
