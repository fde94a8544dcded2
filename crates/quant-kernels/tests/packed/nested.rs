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

use super::cases::{Case, Numbers, bits, granularities, widths};

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
