//! Packed NF4: codes, products on every instruction set, and files.

use quant_kernels::{
    cpu::instruction_set::InstructionSet,
    error::Error,
    packed::{
        file::{reader::PackedFile, writer::PackedFileWriter},
        nested::NestedTensor,
        packed_spec::PackedSpec,
        packed_tensor::PackedTensor,
        product::{activations::ActivationBits, epilogue::Epilogue, options::Product},
        scales::ScaleFormat,
    },
    spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity},
};

use crate::cases::{Numbers, SHAPES, granularities};

fn spec(shape: [usize; 2], granularity: Granularity, scale_format: ScaleFormat) -> PackedSpec {
    PackedSpec { shape, bits: BitWidth::B4, format: Format::Nf4, granularity, scale_format }
}

fn packed(spec: PackedSpec) -> PackedTensor {
    let mut numbers = Numbers::new(11);
    let [rows, columns] = spec.scale_shape().unwrap();
    let scales: Vec<f32> = (0..rows * columns).map(|_| numbers.float().abs() + 0.5).collect();
    PackedTensor::from_weights(spec, &numbers.floats(spec.shape.iter().product()), &scales, &[]).unwrap()
}

#[test]
fn codes_give_the_nearest_entries_times_the_scales() {
    for shape in SHAPES {
        for granularity in granularities() {
            for scale_format in [ScaleFormat::F16, ScaleFormat::F32] {
                let packed = packed(spec(shape, granularity, scale_format));
                let scales = packed.scales();
                let values = packed.dequantize();
                for (at, value) in values.iter().enumerate() {
                    let (row, column) = (at / shape[1], at % shape[1]);
                    let index = match granularity {
                        Granularity::PerTensor => 0,
                        Granularity::PerGroup(size) => row / size.get() * shape[1] + column,
                        _ => column,
                    };
                    let level = packed.level(row, column);
                    let Ok(quant_kernels::spec::formats::code_book::CodeBook::Table(table)) = packed.spec().code_book()
                    else {
                        unreachable!()
                    };
                    let expected = table.entries()[level as usize] * scales[index];
                    assert_eq!(value.to_bits(), expected.to_bits(), "{shape:?} {granularity}");
                }
            }
        }
    }
    let one = spec([4, 1], Granularity::PerTensor, ScaleFormat::F32);
    let tensor = PackedTensor::from_weights(one, &[2.0, -2.0, 0.1, -0.6], &[2.0], &[]).unwrap();
    assert_eq!([0, 1, 2, 3].map(|row| tensor.level(row, 0)), [15, 0, 8, 4]);
}

#[test]
fn float_products_are_those_of_the_values_on_every_instruction_set() {
    for shape in [[33, 17], [100, 50], [768, 48]] {
        for granularity in granularities() {
            let packed = packed(spec(shape, granularity, ScaleFormat::F32));
            let (weights, [d_in, d_out]) = (packed.dequantize(), shape);
            for rows in [1, 4, 9, 40] {
                let x = Numbers::new(3).floats(rows * d_in);
                for instructions in InstructionSet::available() {
                    let product = Product { instructions, ..Product::default() };
                    let y = packed.matmul(&x, rows, &product);
                    for (at, y) in y.iter().enumerate() {
                        let (row, column) = (at / d_out, at % d_out);
                        let terms =
                            (0..d_in).map(|k| f64::from(x[row * d_in + k]) * f64::from(weights[k * d_out + column]));
                        let expected: f64 = terms.sum();
                        assert!(
                            (f64::from(*y) - expected).abs() < 1e-4,
                            "{instructions:?} {granularity}: {y}, {expected}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn files_give_back_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nf4.safetensors");
    let tensor = packed(spec([100, 50], Granularity::per_group(32).unwrap(), ScaleFormat::F16));
    let mut writer = PackedFileWriter::new();
    writer.packed("w", &tensor);
    writer.write(&path).unwrap();
    let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
    assert!(text.contains(r#"\"mapping\":\"nf4\""#) && !text.contains("w.zero_points"));
    let read = PackedFile::open(&path).unwrap().packed("w").unwrap();
    assert_eq!((read.spec(), read.codes(), read.dequantize()), (tensor.spec(), tensor.codes(), tensor.dequantize()));
}

#[test]
fn other_widths_and_cutting_are_refused() {
    for bits in [2, 3, 5, 6, 7, 8].map(|bits| BitWidth::new(bits).unwrap()) {
        let spec = PackedSpec { bits, ..spec([2, 2], Granularity::PerTensor, ScaleFormat::F32) };
        assert_eq!(spec.check(), Err(Error::FormatBits { format: Format::Nf4, bits, expected: 4 }));
    }
    let tensor = packed(spec([2, 2], Granularity::PerTensor, ScaleFormat::F32));
    assert!(matches!(NestedTensor::new(tensor), Err(Error::NestedSource { format: Format::Nf4, .. })));
}

#[test]
fn integer_products_are_not_taken() {
    let tensor = packed(spec([2, 2], Granularity::PerTensor, ScaleFormat::F32));
    let eight = ActivationBits::new(BitWidth::B8).unwrap();
    assert!(tensor.view().takes(ActivationBits::FULL) && !tensor.view().takes(eight));
}

#[test]
#[should_panic(expected = "nf4 weights are not multiplied by integers")]
fn integer_products_panic() {
    let tensor = packed(spec([2, 2], Granularity::PerTensor, ScaleFormat::F32));
    let activations = ActivationBits::new(BitWidth::B8).unwrap();
    tensor.matmul(&[1.0, 2.0], 1, &Product { activations, epilogue: Epilogue::default(), ..Product::default() });
}
