//! Codes and values of packed weights.

use burn::{
    backend::{Flex, flex::FlexDevice},
    tensor::{Tensor, TensorData},
};

use quant_kernels::{
    error::Error,
    packed::{packed_spec::PackedSpec, packed_tensor::PackedTensor, scales::ScaleFormat},
    spec::{
        bit_width::BitWidth, formats::format::Format, gradient_rule::GradientRule, granularity::Granularity,
        quant_spec::QuantSpec,
    },
    tensor::{reference, rounding::Rounding},
};

use super::cases::{Case, Numbers, SHAPES, bits, specs};

const SPEC: PackedSpec = PackedSpec {
    shape: [2, 3],
    bits: BitWidth::B4,
    format: Format::Symmetric,
    granularity: Granularity::PerChannel,
    scale_format: ScaleFormat::F16,
};

#[test]
fn every_kind_of_weights_dequantises_to_what_the_formula_says() {
    let mut numbers = Numbers::new(1);
    for shape in SHAPES {
        for spec in specs(shape) {
            let case = Case::new(spec, &mut numbers);
            let expected = bits(&case.values());
            assert_eq!(bits(&case.packed.dequantize()), expected, "{spec:?}");
            let mut values = vec![f32::NAN; expected.len()];
            case.packed.dequantize_into(&mut values);
            assert_eq!(bits(&values), expected, "{spec:?}");
        }
    }
}

#[test]
fn levels_are_those_of_the_formula_and_pack_to_the_same_bytes() {
    let mut numbers = Numbers::new(2);
    for spec in specs([33, 17]) {
        let case = Case::new(spec, &mut numbers);
        let offset = match spec.format {
            Format::Symmetric => 1 << (spec.bits.bits() - 1),
            Format::Asymmetric | Format::Nf4 => 0,
        };
        let mut codes = Vec::new();
        for row in 0..33 {
            for column in 0..17 {
                let level = case.packed.level(row, column);
                assert_eq!(level, case.level(row, column), "{spec:?} at {row}, {column}");
                codes.push((level + offset) as u8);
            }
        }
        let again = PackedTensor::from_codes(spec, &codes, &case.packed.scales(), &case.zero_points).unwrap();
        assert_eq!(again.codes(), case.packed.codes(), "{spec:?}");
    }
}

#[test]
fn bytes_are_those_of_whole_tiles_and_scales() {
    let mut numbers = Numbers::new(3);
    for spec in specs([33, 17]) {
        let packed = Case::new(spec, &mut numbers).packed;
        let scales = packed.scales().len();
        let expected = 4 * 64 * usize::from(spec.bits.bits()) + scales * spec.scale_format.bytes();
        let zeros = if spec.format == Format::Asymmetric { scales } else { 0 };
        assert_eq!(packed.bytes(), expected + zeros, "{spec:?}");
    }
}

#[test]
fn codes_stand_where_the_format_says() {
    // The worked example of docs/FORMAT.md: 3 bits, u = 6 at row 5, column 2.
    let spec = PackedSpec { shape: [32, 16], bits: BitWidth::new(3).unwrap(), format: Format::Asymmetric, ..SPEC };
    let mut codes = [0; 512];
    codes[5 * 16 + 2] = 6;
    let packed = PackedTensor::from_codes(spec, &codes, &[1.0; 16], &[0; 16]).unwrap();
    let set: Vec<(usize, u8)> = packed.codes().iter().copied().enumerate().filter(|(_, byte)| *byte != 0).collect();
    assert_eq!(packed.codes().len(), 192);
    assert_eq!(set, [(9, 0b0000_1100)]);
    codes[5 * 16 + 2] = 0;
    codes[22 * 16 + 15] = 7;
    let packed = PackedTensor::from_codes(spec, &codes, &[1.0; 16], &[0; 16]).unwrap();
    let set: Vec<(usize, u8)> = packed.codes().iter().copied().enumerate().filter(|(_, byte)| *byte != 0).collect();
    assert_eq!(set, [(64 + 62, 0b0000_1100), (128 + 62, 0b0010_0000)]);
}

#[test]
fn padding_is_the_code_of_zero() {
    let spec = PackedSpec { shape: [1, 1], format: Format::Asymmetric, bits: BitWidth::B8, ..SPEC };
    let packed = PackedTensor::from_codes(spec, &[9], &[1.0], &[77]).unwrap();
    for (at, byte) in packed.codes().iter().enumerate() {
        let expected = match (at % 64 / 4, at / 64 * 4 + at % 4) {
            (0, 0) => 9,
            (0, _) => 77,
            _ => 128,
        };
        assert_eq!(*byte, expected, "byte {at}");
    }
}

#[test]
fn what_cannot_be_packed_is_an_error_with_its_place() {
    let pack = |spec: PackedSpec, weights: &[f32], scales: &[f32], zeros: &[u8]| {
        PackedTensor::from_weights(spec, weights, scales, zeros).unwrap_err()
    };
    let (weights, scales) = ([0.0; 6], [1.0; 3]);
    for width in [1, 9, 16, 32] {
        let width = BitWidth::new(width).unwrap();
        assert_eq!(pack(PackedSpec { bits: width, ..SPEC }, &weights, &scales, &[]), Error::PackedBits { bits: width });
    }
    for granularity in [Granularity::PerToken, Granularity::per_group(16).unwrap(), Granularity::per_group(33).unwrap()]
    {
        let error = pack(PackedSpec { granularity, ..SPEC }, &weights, &scales, &[]);
        assert_eq!(error, Error::PackedGranularity { granularity });
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut weights = weights;
        weights[4] = bad;
        assert!(matches!(pack(SPEC, &weights, &scales, &[]), Error::PackedWeight { row: 1, column: 1, .. }));
    }
    for bad in [f32::NAN, f32::INFINITY, 0.0, -1.0, 7e4, 1e-9] {
        assert!(matches!(pack(SPEC, &weights, &[1.0, 1.0, bad], &[]), Error::PackedScale { index: 2, .. }), "{bad}");
    }
    let asymmetric = PackedSpec { format: Format::Asymmetric, ..SPEC };
    let error = pack(asymmetric, &weights, &scales, &[15, 16, 0]);
    assert_eq!(error, Error::PackedZeroPoint { index: 1, got: 16, high: 15 });
    let error = PackedTensor::from_codes(SPEC, &[1, 1, 1, 1, 0, 1], &scales, &[]).unwrap_err();
    assert_eq!(error, Error::PackedCode { row: 1, column: 1, got: 0, low: 1, high: 15 });
    let error = PackedTensor::from_codes(asymmetric, &[0, 0, 0, 0, 0, 16], &scales, &[0; 3]).unwrap_err();
    assert_eq!(error, Error::PackedCode { row: 1, column: 2, got: 16, low: 0, high: 15 });
}

#[test]
#[should_panic(expected = "5 weights do not fill a matrix of shape [2, 3]")]
fn a_missing_weight_is_a_panic() {
    let _ = PackedTensor::from_weights(SPEC, &[0.0; 5], &[1.0; 3], &[]);
}

#[test]
#[should_panic(expected = "2 scales do not fill a matrix of shape [1, 3]")]
fn a_missing_scale_is_a_panic() {
    let _ = PackedTensor::from_weights(SPEC, &[0.0; 6], &[1.0; 2], &[]);
}

#[test]
#[should_panic(expected = "there is no [2, 0]")]
fn a_level_outside_is_a_panic() {
    let packed = PackedTensor::from_weights(SPEC, &[0.0; 6], &[1.0; 3], &[]).unwrap();
    packed.level(2, 0);
}

/// Weights packed by the scales that a quantiser finds, which the reference takes as well.
fn rounded(weights: &[f32], shape: [usize; 2], bits: BitWidth, spec: &QuantSpec) -> (PackedTensor, Vec<f32>) {
    let weights = Tensor::<Flex, 2>::from_data(TensorData::new(weights.to_vec(), shape), &FlexDevice);
    let packed = Rounding::Nearest { bits, spec: *spec }.pack(&weights, ScaleFormat::F16).unwrap();
    let expected = reference::fake_quantize(weights, bits, spec, GradientRule::Identity).unwrap();
    (packed, expected.into_data().to_vec().unwrap())
}

fn rounded_specs() -> impl Iterator<Item = (BitWidth, QuantSpec)> {
    specs([40, 17]).filter(|spec| spec.scale_format == ScaleFormat::F16).flat_map(|spec| {
        let quantizer = QuantSpec::default().with_granularity(spec.granularity);
        let nf4 = (spec.bits == BitWidth::B4).then(|| (spec.bits, quantizer.with_format(Format::Nf4)));
        [(spec.bits, quantizer.with_format(spec.format))].into_iter().chain(nf4)
    })
}

#[test]
#[cfg_attr(miri, ignore = "it needs burn's tensors")]
fn scales_that_f16_does_not_hold_are_f32_and_say_so() {
    let mut numbers = Numbers::new(6);
    let ordinary = numbers.floats(40 * 17);
    for (bits, spec) in rounded_specs() {
        let (packed, _) = rounded(&ordinary, [40, 17], bits, &spec);
        assert_eq!(packed.scale_format(), ScaleFormat::F16, "{spec} {bits} bits");
        for size in [1e-6, 1e-20, 1e9] {
            let weights: Vec<f32> = ordinary.iter().map(|x| x * size).collect();
            let (packed, expected) = rounded(&weights, [40, 17], bits, &spec);
            assert_eq!(packed.scale_format(), ScaleFormat::F32, "{spec} {bits} bits");
            assert!(
                packed.dequantize() == expected,
                "{spec} {bits} bits: other values than those of fake quantisation"
            );
        }
    }
}

#[test]
fn a_given_scale_that_f16_would_change_is_refused() {
    for scale in [8.9e-8, 5.9e-5, 7e4] {
        let scales = [1.0, scale, 1.0];
        let error = PackedTensor::from_weights(SPEC, &[0.0; 6], &scales, &[]).unwrap_err();
        assert!(matches!(error, Error::PackedScale { index: 1, .. }), "{error}");
        assert!(error.to_string().ends_with("6.1e-5 to 65504; use f32 scales"), "{error}");
        let spec = PackedSpec { scale_format: ScaleFormat::F32, ..SPEC };
        assert!(PackedTensor::from_weights(spec, &[0.0; 6], &scales, &[]).is_ok());
    }
}

#[test]
#[cfg_attr(miri, ignore = "it needs burn's tensors")]
fn the_largest_weights_are_finite_once_they_are_packed() {
    let weights: Vec<f32> = (0..40 * 17).map(|at| [f32::MAX, -f32::MAX, 0.0, 1.0][at * 3 % 4]).collect();
    for (bits, spec) in rounded_specs() {
        for weights in [&weights, &vec![f32::MAX; 40 * 17], &vec![-f32::MAX; 40 * 17]] {
            let (packed, expected) = rounded(weights, [40, 17], bits, &spec);
            let values = packed.dequantize();
            assert!(values == expected && values.iter().all(|x| x.is_finite()), "{spec} {bits} bits");
        }
    }
}
