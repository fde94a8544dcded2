//! Products of bf16 against sums of f64.

use half::bf16;

use quant_kernels::{
    cpu::instruction_set::InstructionSet,
    packed::{
        half_weight::HalfWeight,
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

const ROWS: [usize; 6] = [0, 1, 5, 9, 13, 40];

fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| bf16::from_f32(*x).to_f32()).collect()
}

/// The product in f64, and a bound on the error of a sum of `d_in` products in f32.
fn reference(x: &[f32], w: &[f32], [rows, d_in, d_out]: [usize; 3]) -> Vec<(f64, f64)> {
    let places = (0..rows).flat_map(|row| (0..d_out).map(move |column| (row, column)));
    let of_place = |(row, column)| {
        let terms = (0..d_in).map(|k| f64::from(x[row * d_in + k]) * f64::from(w[k * d_out + column]));
        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term: f64| (sum + term, size + term.abs()));
        (sum, size * (d_in as f64 + 4.0) * 0.5 * f64::from(f32::EPSILON))
    };
    places.map(of_place).collect()
}

#[track_caller]
fn assert_within(got: &[f32], expected: &[(f64, f64)], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (at, (got, (expected, bound))) in got.iter().zip(expected).enumerate() {
        assert!((f64::from(*got) - expected).abs() <= *bound, "{what}, {at}: {got} for {expected} ± {bound}");
    }
}

fn halves(instructions: InstructionSet) -> Product<'static> {
    Product { activations: ActivationBits::BF16, instructions, ..Product::default() }
}

#[test]
fn nothing_but_activations_is_rounded_beside_codes_on_any_instruction_set() {
    let mut numbers = Numbers::new(31);
    for shape in SHAPES {
        for spec in specs(shape).filter(|spec| spec.scale_format == ScaleFormat::F32) {
            let case = Case::new(spec, &mut numbers);
            let rows = if shape[0] > 500 { 13 } else { 40 };
            let x = numbers.floats(rows * shape[0]);
            let expected = reference(&rounded(&x), &case.values(), [rows, shape[0], shape[1]]);
            for instructions in InstructionSet::available() {
                for rows in ROWS.into_iter().filter(|r| *r <= rows) {
                    let got = case.packed.matmul(&x[..rows * shape[0]], rows, &halves(instructions));
                    let what = format!("{spec:?} {rows} rows, {instructions:?}");
                    assert_within(&got, &expected[..rows * shape[1]], &what);
                }
            }
        }
    }
}

#[test]
fn nested_weights_and_tables_take_activations_in_bf16() {
    let mut numbers = Numbers::new(32);
    let shape = [100, 50];
    let of = |format, bits| PackedSpec {
        shape,
        bits,
        format,
        granularity: Granularity::PerChannel,
        scale_format: ScaleFormat::F32,
    };
    let eight = Case::new(of(Format::Symmetric, BitWidth::B8), &mut numbers).packed;
    let weights = numbers.floats(100 * 50);
    let table = PackedTensor::from_weights(of(Format::Nf4, BitWidth::B4), &weights, &[1.0; 50], &[]).unwrap();
    let nested = quant_kernels::NestedTensor::new(eight).unwrap();
    let x = numbers.floats(20 * 100);
    let views = BitWidth::quantised().filter(|bits| (2..=8).contains(&bits.bits()));
    for view in views.map(|bits| nested.at(bits).unwrap()).chain([table.view()]) {
        let expected = reference(&rounded(&x), &view.dequantize(), [20, 100, 50]);
        for instructions in InstructionSet::available() {
            assert_within(&view.matmul(&x, 20, &halves(instructions)), &expected, &format!("{instructions:?}"));
        }
    }
}

#[test]
fn a_weight_in_bf16_is_multiplied_both_ways_on_every_instruction_set() {
    let mut numbers = Numbers::new(33);
    for shape @ [d_in, d_out] in SHAPES {
        let values = numbers.floats(d_in * d_out);
        let weight = HalfWeight::new(&values, shape);
        let w = rounded(&values);
        assert_eq!((weight.shape(), bits(&weight.values())), (shape, bits(&w)));
        let transposed: Vec<f32> = (0..d_out)
            .flat_map(|column| (0..d_in).map(move |row| (row, column)))
            .map(|(r, c)| w[r * d_out + c])
            .collect();
        let (x, g) = (numbers.floats(40 * d_in), numbers.floats(40 * d_out));
        for instructions in InstructionSet::available() {
            for rows in ROWS {
                let (x, g, what) =
                    (&x[..rows * d_in], &g[..rows * d_out], format!("{shape:?} {rows} {instructions:?}"));
                let product = Product { instructions, ..Product::default() };
                let there = weight.matmul(x, rows, &product);
                assert_within(&there, &reference(&rounded(x), &w, [rows, d_in, d_out]), &what);
                let back = weight.matmul_transposed(g, rows, &product);
                assert_within(&back, &reference(&rounded(g), &transposed, [rows, d_out, d_in]), &what);
            }
        }
    }
}

#[test]
fn what_is_added_to_a_product_is_added_in_f32() {
    let mut numbers = Numbers::new(34);
    let (rows, d_in, d_out, rank) = (13, 33, 17, 3);
    let spec = specs([d_in, d_out]).next().unwrap();
    let case = Case::new(spec, &mut numbers);
    let weight = HalfWeight::new(&numbers.floats(d_in * d_out), [d_in, d_out]);
    let [x, bias, down, up, addend] =
        [rows * d_in, d_out, rows * rank, rank * d_out, rows * d_out].map(|len| numbers.floats(len));
    let low_rank = Some(LowRankTerm { down: &down, up: &up, rank, scaling: 0.5 });
    let function = OutputFunction::GeluTanh;
    let epilogue = Epilogue { bias: Some(&bias), low_rank, addend: Some(&addend), function };
    for instructions in InstructionSet::available() {
        let (plain, more) = (halves(instructions), Product { epilogue, ..halves(instructions) });
        let both = |product: &Product<'_>| [case.packed.matmul(&x, rows, product), weight.matmul(&x, rows, product)];
        for (y, got) in both(&plain).into_iter().zip(both(&more)) {
            for (at, (y, got)) in y.iter().zip(&got).enumerate() {
                let (row, column) = (at / d_out, at % d_out);
                let adapter: f64 =
                    (0..rank).map(|k| f64::from(down[row * rank + k]) * f64::from(up[k * d_out + column]) * 0.5).sum();
                let sum = f64::from(*y) + f64::from(bias[column]) + adapter + f64::from(addend[at]);
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (sum + 0.044_715 * sum.powi(3));
                let expected = 0.5 * sum * (1.0 + inner.tanh());
                assert!((f64::from(*got) - expected).abs() < 1e-5, "{instructions:?}, {at}: {got} for {expected}");
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_in_its_row() {
    let mut numbers = Numbers::new(35);
    let spec = specs([33, 17]).next().unwrap();
    let case = Case::new(spec, &mut numbers);
    let weight = HalfWeight::new(&case.values(), [33, 17]);
    let mut x = numbers.floats(13 * 33);
    x[0] = f32::NAN;
    x[33 + 5] = f32::INFINITY;
    x[2 * 33 + 7] = f32::MAX; // nearer to 2¹²⁸ than to the largest number of bf16
    for instructions in InstructionSet::available() {
        for y in [case.packed.matmul(&x, 13, &halves(instructions)), weight.matmul(&x, 13, &halves(instructions))] {
            assert!(y[..17].iter().all(|y| y.is_nan()), "{instructions:?}");
            assert!(y[17..3 * 17].iter().all(|y| !y.is_finite()), "{instructions:?}");
            assert!(y[3 * 17..].iter().all(|y| y.is_finite()), "{instructions:?}");
        }
    }
}

#[test]
#[should_panic(expected = "do not fill a matrix of shape [2, 3]")]
fn activations_of_another_size_are_refused() {
    HalfWeight::new(&[0.0; 12], [3, 4]).matmul(&[0.0; 5], 2, &Product::default());
}
