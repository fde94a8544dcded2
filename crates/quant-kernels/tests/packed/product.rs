//! Products against sums of integers and of f64.

use quant_kernels::{
    cpu::instruction_set::InstructionSet,
    packed::{
        packed_spec::PackedSpec,
        packed_tensor::PackedTensor,
        product::{
            activations::ActivationBits,
            epilogue::{Epilogue, LowRankTerm, OutputFunction},
            options::Product,
        },
        scales::ScaleFormat,
    },
    spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity},
};

use super::cases::{Case, Numbers, SHAPES, bits, specs};

const ROWS: [usize; 6] = [0, 1, 2, 5, 13, 40];

fn activations(bits: u8) -> ActivationBits {
    ActivationBits::new(BitWidth::new(bits).unwrap()).unwrap()
}

/// The product by the formula: exact sums of each group, then floats in the order of the formula.
fn integer_reference(case: &Case, x: &[f32], rows: usize, activation_bits: u8) -> Vec<f32> {
    let [d_in, d_out] = case.spec.shape;
    let group = match case.spec.granularity {
        Granularity::PerGroup(rows) => rows.get(),
        _ => d_in.max(1),
    };
    let levels: Vec<i64> = (0..d_in * d_out)
        .map(|at| {
            let (row, column) = (at / d_out, at % d_out);
            i64::from(case.packed.level(row, column))
        })
        .collect();
    let scales = case.packed.scales();
    let mut y = Vec::new();
    for row in 0..rows {
        let x = &x[row * d_in..][..d_in];
        let high = f32::from((1u8 << (activation_bits - 1)) - 1);
        let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let scale = if largest == 0.0 { 1.0 } else { largest / high };
        let a: Vec<i64> = x.iter().map(|x| (x / scale).round_ties_even().clamp(-high, high) as i64).collect();
        for column in 0..d_out {
            let mut sum = 0.0_f32;
            for start in (0..d_in).step_by(group) {
                let index = super::cases::scale_index(&case.spec, start, column);
                let zero = case.zero_points.get(index).map_or(0, |zero| i64::from(*zero));
                let end = d_in.min(start + group);
                let dot: i64 = (start..end).map(|k| (levels[k * d_out + column] - zero) * a[k]).sum();
                sum += scales[index] * dot as f32;
            }
            y.push(sum * scale);
        }
    }
    y
}

#[test]
fn integer_products_are_exact_on_every_instruction_set() {
    let mut numbers = Numbers::new(11);
    for shape in SHAPES {
        for spec in specs(shape).filter(|spec| spec.scale_format == ScaleFormat::F16) {
            let case = Case::new(spec, &mut numbers);
            let rows = if shape[0] > 500 { 13 } else { 40 };
            let x = numbers.floats(rows * shape[0]);
            for activation_bits in if shape == [33, 17] { vec![2, 3, 5, 8] } else { vec![8] } {
                let expected = bits(&integer_reference(&case, &x, rows, activation_bits));
                for instructions in InstructionSet::available() {
                    let activations = activations(activation_bits);
                    let product = Product { activations, instructions, ..Product::default() };
                    for rows in ROWS.into_iter().filter(|r| *r <= rows) {
                        let got = case.packed.matmul(&x[..rows * shape[0]], rows, &product);
                        assert_eq!(bits(&got), expected[..rows * shape[1]], "{spec:?} {rows} rows, {instructions:?}");
                    }
                }
            }
        }
    }
}

/// The product of the dequantised weights in f64, and a bound on the error of a sum of `d_in`
/// products in f32: each of `d_in` sums and a few products rounds by at most half an ulp.
fn float_reference(case: &Case, x: &[f32], rows: usize) -> Vec<(f64, f64)> {
    let [d_in, d_out] = case.spec.shape;
    let w = case.values();
    let mut y = Vec::new();
    for row in 0..rows {
        for column in 0..d_out {
            let terms = (0..d_in).map(|k| f64::from(x[row * d_in + k]) * f64::from(w[k * d_out + column]));
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
            y.push((sum, size * (d_in as f64 + 4.0) * 0.5 * f64::from(f32::EPSILON)));
        }
    }
    y
}

#[test]
fn float_products_are_within_rounding_of_f64_on_every_instruction_set() {
    let mut numbers = Numbers::new(12);
    for shape in SHAPES {
        for spec in specs(shape).filter(|spec| spec.scale_format == ScaleFormat::F32) {
            let case = Case::new(spec, &mut numbers);
            let rows = if shape[0] > 500 { 13 } else { 40 };
            let x = numbers.floats(rows * shape[0]);
            let expected = float_reference(&case, &x, rows);
            for instructions in InstructionSet::available() {
                let product = Product { instructions, ..Product::default() };
                for rows in ROWS.into_iter().filter(|r| *r <= rows) {
                    let got = case.packed.matmul(&x[..rows * shape[0]], rows, &product);
                    assert_eq!(got.len(), rows * shape[1]);
                    for (at, (got, (expected, bound))) in got.iter().zip(&expected).enumerate() {
                        let error = (f64::from(*got) - expected).abs();
                        assert!(error <= *bound, "{spec:?} {rows} rows, {instructions:?}, {at}: {got} for {expected}");
                    }
                }
            }
        }
    }
}

fn small(shape: [usize; 2]) -> Case {
    let spec = PackedSpec {
        shape,
        bits: BitWidth::B4,
        format: Format::Symmetric,
        granularity: Granularity::PerChannel,
        scale_format: ScaleFormat::F32,
    };
    Case::new(spec, &mut Numbers::new(13))
}

#[test]
fn epilogues_do_what_they_say_and_the_same_on_every_instruction_set() {
    let case = small([40, 50]);
    let mut numbers = Numbers::new(14);
    for rows in [1, 13, 40] {
        let x = numbers.floats(rows * 40);
        let (bias, addend) = (numbers.floats(50), numbers.floats(rows * 50));
        let (down, up) = (numbers.floats(rows * 3), numbers.floats(3 * 50));
        let plain = Product { activations: activations(8), ..Product::default() };
        let base = case.packed.matmul(&x, rows, &plain);
        let low_rank = LowRankTerm { down: &down, up: &up, rank: 3, scaling: 0.5 };
        for function in [OutputFunction::Identity, OutputFunction::GeluTanh] {
            let epilogue = Epilogue { bias: Some(&bias), low_rank: Some(low_rank), addend: Some(&addend), function };
            let mut first = None;
            for instructions in InstructionSet::available() {
                let got = case.packed.matmul(&x, rows, &Product { epilogue, instructions, ..plain });
                for (at, got) in got.iter().enumerate() {
                    let (row, column) = (at / 50, at % 50);
                    let adapter: f64 =
                        (0..3).map(|r| f64::from(down[row * 3 + r]) * f64::from(up[r * 50 + column])).sum();
                    let z = f64::from(base[at]) + f64::from(bias[column]) + 0.5 * adapter + f64::from(addend[at]);
                    let expected = match function {
                        OutputFunction::Identity => z,
                        OutputFunction::GeluTanh => {
                            let inner = (2.0 / std::f64::consts::PI).sqrt() * (z + 0.044_715 * z.powi(3));
                            z / 2.0 * (1.0 + inner.tanh())
                        }
                    };
                    assert!((f64::from(*got) - expected).abs() < 3e-6, "{at}: {got} for {expected}");
                }
                let first = first.get_or_insert_with(|| bits(&got)).clone();
                assert_eq!(bits(&got), first, "{instructions:?}");
            }
        }
    }
}

#[test]
fn broken_rows_are_nan_and_spoil_no_other_row() {
    let case = small([40, 50]);
    for rows in [3, 13] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = Numbers::new(15).floats(rows * 40);
            x[40..80].fill(0.0);
            x[2 * 40 + 7] = bad;
            for activations in [activations(8), ActivationBits::FULL] {
                for instructions in InstructionSet::available() {
                    let product = Product { activations, instructions, ..Product::default() };
                    let y = case.packed.matmul(&x, rows, &product);
                    assert!(y[50..100].iter().all(|y| *y == 0.0), "a row of zeros");
                    assert!(y[..100].iter().chain(&y[150..]).all(|y| y.is_finite()));
                    if activations != ActivationBits::FULL {
                        assert!(y[100..150].iter().all(|y| y.is_nan()));
                    } else if bad.is_nan() {
                        assert!(y[100..150].iter().all(|y| y.is_nan()));
                    }
                }
            }
        }
    }
}

#[test]
fn one_thread_gives_the_same_bits_as_many() {
    let case = small([100, 50]);
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    for rows in [1, 40, 300] {
        let x = Numbers::new(16).floats(rows * 100);
        for activations in [activations(8), ActivationBits::FULL] {
            let product = Product { activations, ..Product::default() };
            let one = pool(1).install(|| case.packed.matmul(&x, rows, &product));
            let many = pool(5).install(|| case.packed.matmul(&x, rows, &product));
            assert_eq!(bits(&one), bits(&many), "{rows} rows, {activations:?}");
        }
    }
}

#[test]
fn the_longest_sums_do_not_overflow() {
    // Two segments: 65 536 rows whose sum is the largest there is, and a few more.
    let d_in = 65_536 + 40;
    let spec = PackedSpec {
        shape: [d_in, 1],
        bits: BitWidth::B8,
        format: Format::Asymmetric,
        granularity: Granularity::PerChannel,
        scale_format: ScaleFormat::F32,
    };
    for zero in [0, 255] {
        let packed = PackedTensor::from_codes(spec, &vec![255 - zero; d_in], &[1.0], &[zero]).unwrap();
        let x = vec![127.0; 5 * d_in];
        let segments = [65_536_i64, 40].map(|rows| rows * 127 * (255 - 2 * i64::from(zero)));
        let expected = segments[0] as f32 + segments[1] as f32;
        for instructions in InstructionSet::available() {
            for rows in [1, 5] {
                let product = Product { activations: activations(8), instructions, ..Product::default() };
                let y = packed.matmul(&x[..rows * d_in], rows, &product);
                assert_eq!(y, vec![expected; rows], "{instructions:?}");
            }
        }
    }
}

#[test]
fn only_2_to_8_bits_and_full_precision_are_activations() {
    let accepted: Vec<u8> = BitWidth::quantised()
        .chain([BitWidth::FULL])
        .filter(|bits| ActivationBits::new(*bits).is_ok())
        .map(BitWidth::bits)
        .collect();
    assert_eq!(accepted, [2, 3, 4, 5, 6, 7, 8, 32]);
}

#[test]
#[should_panic(expected = "79 activations do not fill a matrix of shape [2, 40]")]
fn missing_activations_are_a_panic() {
    small([40, 50]).packed.matmul(&[0.0; 79], 2, &Product::default());
}

#[test]
#[should_panic(expected = "49 values of the bias do not fill a matrix of shape [1, 50]")]
fn a_short_bias_is_a_panic() {
    let epilogue = Epilogue { bias: Some(&[0.0; 49]), ..Epilogue::default() };
    small([40, 50]).packed.matmul(&[0.0; 80], 2, &Product { epilogue, ..Product::default() });
}
