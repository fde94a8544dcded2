//! 8-bit weights that serve lower widths.

use quant_kernels::{
    cpu::instruction_set::InstructionSet,
    error::Error,
    packed::{
        nested::NestedTensor,
        packed_spec::PackedSpec,
        packed_tensor::PackedTensor,
        product::{activations::ActivationBits, options::Product},
        scales::ScaleFormat,
    },
    spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity},
};

use super::cases::{Case, Numbers, bits, granularities, scale_index, widths};

fn spec(shape: [usize; 2], granularity: Granularity) -> PackedSpec {
    let scale_format = ScaleFormat::F16;
    PackedSpec { shape, bits: BitWidth::B8, format: Format::Symmetric, granularity, scale_format }
}

#[test]
fn every_level_is_cut_as_the_formula_says() {
    let codes: Vec<u8> = (1..=255).collect();
    let packed = PackedTensor::from_codes(spec([1, 255], Granularity::PerTensor), &codes, &[0.5], &[]).unwrap();
    let nested = NestedTensor::new(packed).unwrap();
    for width in widths() {
        let slice = nested.slice_to(width).unwrap();
        let step = f64::from(1 << (8 - width.bits()));
        let high = f64::from((1 << (width.bits() - 1)) - 1);
        for (column, level) in (-127..=127).enumerate() {
            let expected = (f64::from(level) / step).round_ties_even().clamp(-high, high);
            assert_eq!(slice.level(0, column), expected as i32, "{width} bits of {level}");
        }
        assert_eq!(bits(&slice.scales()), bits(&[0.5 * step as f32]));
    }
}

#[test]
fn products_and_values_are_those_of_the_slice_bit_for_bit() {
    let mut numbers = Numbers::new(5);
    for granularity in granularities() {
        for shape in [[1, 1], [100, 50], [129, 33]] {
            let nested = NestedTensor::new(Case::new(spec(shape, granularity), &mut numbers).packed).unwrap();
            for width in widths() {
                let slice = nested.slice_to(width).unwrap();
                assert_eq!(bits(&nested.dequantize(width).unwrap()), bits(&slice.dequantize()));
                for rows in [1, 2, 3, 7, 20] {
                    let x = numbers.floats(rows * shape[0]);
                    for instructions in InstructionSet::available() {
                        for activations in [ActivationBits::FULL, ActivationBits::new(BitWidth::B8).unwrap()] {
                            let product = Product { activations, instructions, ..Product::default() };
                            let got = nested.matmul(&x, rows, width, &product).unwrap();
                            let expected = slice.matmul(&x, rows, &product);
                            let mut written = vec![f32::NAN; got.len()];
                            nested.at(width).unwrap().matmul_into(&x, rows, &product, &mut written);
                            assert_eq!(bits(&written), bits(&got));
                            assert_eq!(
                                bits(&got),
                                bits(&expected),
                                "{granularity} {shape:?} {width} {rows} {product:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn only_symmetric_weights_of_8_bits_are_cut() {
    let pack = |spec: PackedSpec, scale: f32, zeros: &[u8]| {
        NestedTensor::new(PackedTensor::from_codes(spec, &[3], &[scale], zeros).unwrap())
    };
    let symmetric = spec([1, 1], Granularity::PerTensor);
    let asymmetric = PackedSpec { format: Format::Asymmetric, ..symmetric };
    let error = pack(asymmetric, 1.0, &[0]).unwrap_err();
    assert_eq!(error, Error::NestedSource { format: Format::Asymmetric, bits: BitWidth::B8 });
    assert!(pack(PackedSpec { bits: BitWidth::B4, ..symmetric }, 1.0, &[]).is_err());
    assert!(matches!(pack(symmetric, 1024.0, &[]), Err(Error::PackedScale { index: 0, .. })));
    let nested = pack(symmetric, 1.0, &[]).unwrap();
    for width in [BitWidth::B1, BitWidth::B16] {
        assert_eq!(nested.slice_to(width).unwrap_err(), Error::PackedBits { bits: width });
        assert!(nested.matmul(&[1.0], 1, width, &Product::default()).is_err());
    }
}

/// Scales of a width around those that its highest bits have, an eighth to four times as large.
fn own_scales(nested: &NestedTensor, bits: BitWidth, numbers: &mut Numbers) -> Vec<f32> {
    let cut = f32::from(1_u16 << (8 - bits.bits()));
    nested.tensor().scales().into_iter().map(|scale| scale * cut * 2_f32.powf(numbers.float() * 2.4 - 0.4)).collect()
}

/// Weights with scales of their own at every width below 8.
fn with_own_scales(spec: PackedSpec, own: ScaleFormat, numbers: &mut Numbers) -> (Case, NestedTensor) {
    let case = Case::new(spec, numbers);
    let mut nested = NestedTensor::new(case.packed.clone()).unwrap();
    for bits in widths().filter(|bits| *bits < BitWidth::B8) {
        let scales = own_scales(&nested, bits, numbers);
        nested = nested.with_scales(bits, own, &scales).unwrap();
    }
    (case, nested)
}

#[test]
fn every_level_is_scaled_as_the_formula_says() {
    let codes: Vec<u8> = (0..=255).collect();
    let spec = PackedSpec { scale_format: ScaleFormat::F32, ..spec([1, 255], Granularity::PerTensor) };
    let packed = PackedTensor::from_codes(spec, &codes[1..], &[0.5], &[]).unwrap();
    let mut numbers = Numbers::new(6);
    for width in widths().filter(|width| *width < BitWidth::B8) {
        let nested = NestedTensor::new(packed.clone()).unwrap();
        let mut scales: Vec<f32> = (0..200).flat_map(|_| own_scales(&nested, width, &mut numbers)).collect();
        // Those of the highest bits, where half of the levels would lie in the middle between two; one of which all is 0.
        scales.extend([0.5 * f32::from(1_u16 << (8 - width.bits())), 0.5, 1e9]);
        let shift = if width.bits() == 7 { 2 } else { 1 };
        let high = (1 << (width.bits() - 1)) - 1;
        for scale in scales {
            if 0.5 / scale >= f32::from(1_u16 << shift) {
                continue;
            }
            let slice = nested.clone().with_scales(width, ScaleFormat::F32, &[scale]).unwrap().slice_to(width).unwrap();
            let ratio = 2 * (f64::from(0.5 / scale) * 2_f64.powi(14 - shift)).floor() as i64 + 1;
            for (column, level) in (-127_i64..=127).enumerate() {
                let product = level * (1 << shift) * ratio;
                let expected = ((product + (1 << 14)) >> 15).clamp(-high, high);
                assert_eq!(i64::from(slice.level(0, column)), expected, "{width} bits of {level} by {scale}");
                assert_eq!(slice.level(0, column), -slice.level(0, 254 - column), "opposite levels");
                assert_ne!((product + (1 << 14)) % (1 << 15), 0, "a level in the middle between two");
            }
            assert_eq!(bits(&slice.scales()), bits(&[scale]));
        }
    }
}

#[test]
fn products_by_own_scales_are_those_of_the_slice_bit_for_bit() {
    let mut numbers = Numbers::new(7);
    let few = |rows: &[usize]| if cfg!(miri) { vec![2] } else { rows.to_vec() };
    for granularity in granularities() {
        for (own, shape) in [ScaleFormat::F16, ScaleFormat::F32]
            .into_iter()
            .flat_map(|own| [[1, 1], [100, 50], [129, 33], [0, 5], [5, 0]].map(move |shape| (own, shape)))
        {
            let (_, nested) = with_own_scales(spec(shape, granularity), own, &mut numbers);
            for width in widths() {
                let slice = nested.slice_to(width).unwrap();
                assert_eq!(slice.scale_format(), if width == BitWidth::B8 { ScaleFormat::F16 } else { own });
                assert_eq!(bits(&slice.scales()), bits(&nested.scales(width).unwrap().0));
                assert_eq!(bits(&nested.dequantize(width).unwrap()), bits(&slice.dequantize()), "{shape:?} {width}");
                for rows in few(&[1, 2, 3, 4, 5, 8, 9, 12, 13, 17]) {
                    let x = numbers.floats(rows * shape[0]);
                    for instructions in InstructionSet::available() {
                        for activations in [ActivationBits::FULL, ActivationBits::new(BitWidth::B8).unwrap()] {
                            let product = Product { activations, instructions, ..Product::default() };
                            let got = nested.matmul(&x, rows, width, &product).unwrap();
                            let expected = slice.matmul(&x, rows, &product);
                            let what = format!("{granularity} {shape:?} {width} {rows} {product:?}");
                            assert_eq!(bits(&got), bits(&expected), "{what}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "70 000 rows")]
fn columns_longer_than_a_sum_of_integers_are_scaled_throughout() {
    let mut numbers = Numbers::new(8);
    let (_, nested) = with_own_scales(spec([70_000, 17], Granularity::PerChannel), ScaleFormat::F32, &mut numbers);
    for rows in [1, 6] {
        let x = numbers.floats(rows * 70_000);
        for instructions in InstructionSet::available() {
            let activations = ActivationBits::new(BitWidth::B8).unwrap();
            let product = Product { activations, instructions, ..Product::default() };
            let got = nested.matmul(&x, rows, BitWidth::B3, &product).unwrap();
            assert_eq!(bits(&got), bits(&nested.slice_to(BitWidth::B3).unwrap().matmul(&x, rows, &product)));
        }
    }
}

#[test]
fn values_by_own_scales_are_within_half_a_step_of_each_rounding() {
    let mut numbers = Numbers::new(9);
    for granularity in granularities() {
        let shape = [129, 33];
        let (case, nested) = with_own_scales(spec(shape, granularity), ScaleFormat::F32, &mut numbers);
        for width in widths().filter(|width| *width < BitWidth::B8) {
            let (values, (scales, _)) = (nested.dequantize(width).unwrap(), nested.scales(width).unwrap());
            let high = (1 << (width.bits() - 1)) - 1;
            let mut counted = 0;
            for (at, (value, weight)) in values.iter().zip(&case.weights).enumerate() {
                let index = scale_index(&case.spec, at / shape[1], at % shape[1]);
                let (own, eight) = (scales[index], case.packed.scales()[index]);
                let bound = 0.516 * own + 0.501 * eight;
                let range = (high as f32 * own).min(127.0 * eight);
                if weight.abs() > range {
                    let is_clipped = value.signum() == weight.signum() && (range - value.abs()).abs() <= bound;
                    assert!(is_clipped || range < bound, "{width} bits: {weight} is {value}, past {range}");
                    continue;
                }
                counted += 1;
                assert!((value - weight).abs() <= bound, "{width} bits: {weight} is {value}, by {own} and {eight}");
            }
            assert!(counted > values.len() / 5, "{width} bits: {counted} values inside of both ranges");
        }
    }
}

#[test]
fn one_scale_serves_all_and_a_width_has_one_set_of_scales() {
    let nested = NestedTensor::new(Case::new(spec([40, 3], Granularity::PerChannel), &mut Numbers::new(10)).packed);
    let nested = nested.unwrap().with_scales(BitWidth::B4, ScaleFormat::F32, &[1.5]).unwrap();
    assert_eq!(nested.scales(BitWidth::B4).unwrap(), (vec![1.5; 3], ScaleFormat::F32));
    assert_eq!(nested.bytes(), nested.tensor().bytes() + 12);
    let again = nested.clone().with_scales(BitWidth::B4, ScaleFormat::F16, &[1.0, 2.0, 3.0]).unwrap();
    assert_eq!(again.scales(BitWidth::B4).unwrap(), (vec![1.0, 2.0, 3.0], ScaleFormat::F16));
    assert_eq!(again.own_widths().collect::<Vec<_>>(), [BitWidth::B4]);
    // The others are as they were.
    let bare = NestedTensor::new(nested.tensor().clone()).unwrap();
    for width in widths().filter(|width| *width != BitWidth::B4) {
        assert_eq!(bits(&again.dequantize(width).unwrap()), bits(&bare.dequantize(width).unwrap()), "{width} bits");
    }
}

#[test]
fn own_scales_that_cannot_be_are_refused() {
    let packed = PackedTensor::from_codes(spec([1, 2], Granularity::PerChannel), &[3, 200], &[1.0, 1.0], &[]).unwrap();
    let with = |bits: u8, format, scales: [f32; 2]| {
        NestedTensor::new(packed.clone()).unwrap().with_scales(BitWidth::new(bits).unwrap(), format, &scales)
    };
    let f32s = ScaleFormat::F32;
    for bits in [1, 8, 16] {
        assert!(matches!(with(bits, f32s, [9.0, 9.0]), Err(Error::PackedBits { .. })), "{bits}");
    }
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(matches!(with(4, f32s, [1e3, scale]), Err(Error::PackedScale { index: 1, .. })), "{scale}");
    }
    let large = with(4, ScaleFormat::F16, [9.0, 1e6]).unwrap();
    assert_eq!(large.scales(BitWidth::B4).unwrap(), (vec![9.0, 1e6], f32s));
    for (bits, least) in [(2, 0.5), (5, 0.5), (6, 0.5), (7, 0.25)] {
        let error = with(bits, f32s, [9.0, least]).unwrap_err();
        let expected = Error::NestedScale { bits: BitWidth::new(bits).unwrap(), index: 1, got: least, above: least };
        assert_eq!(error, expected);
        assert!(with(bits, f32s, [9.0, least * 1.000_001]).is_ok(), "{bits}");
    }
}
