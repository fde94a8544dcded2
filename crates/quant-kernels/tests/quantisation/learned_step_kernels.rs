//! The kernels of learned steps against plain tensor operations and against exact sums.

use burn::{
    module::Param,
    tensor::{DType, Tensor, backend::Backend},
};

use quant_kernels::{
    backends::quant_backend::{QuantAutodiffBackend, QuantBackend},
    spec::{bit_width::BitWidth, granularity::Granularity},
    tensor::{learned_step::LearnedStep, reference},
};

use crate::{
    scalar_reference::scale_index,
    support::{Other, Plain, Tracked, assert_same_bits, granularities, numbers, tensor, values},
};

type OtherTracked = burn::backend::Autodiff<Other>;

const SHAPES: [[usize; 2]; 6] = [[1, 1], [1, 5], [7, 1], [10, 4], [37, 23], [301, 257]];
const WIDTHS: [BitWidth; 3] = [BitWidth::B2, BitWidth::B4, BitWidth::B16];

fn learnable() -> impl Iterator<Item = Granularity> {
    granularities().into_iter().filter(|granularity| *granularity != Granularity::PerToken)
}

/// Learned steps at which some values are clamped, of both signs.
fn steps<B: Backend>(x: &[f32], dims: [usize; 2], bits: BitWidth, granularity: Granularity) -> LearnedStep<B> {
    let mut learned = LearnedStep::new(&tensor::<B, 2>(x, dims), bits, granularity).expect("valid options");
    let mut steps = values(&learned.step.val());
    for (index, step) in steps.iter_mut().enumerate() {
        *step *= [0.3, 1.7, -0.8][index % 3];
    }
    let shape = learned.step.dims();
    learned.step = Param::from_tensor(tensor(&steps, shape));
    learned
}

/// The same values contiguous, transposed and as a part of a larger matrix.
fn layouts<B: Backend>(x: &[f32], [rows, columns]: [usize; 2]) -> [(&'static str, Tensor<B, 2>); 3] {
    let contiguous = tensor::<B, 2>(x, [rows, columns]);
    let turned = tensor::<B, 2>(&values(&contiguous.clone().transpose()), [columns, rows]);
    let around = Tensor::cat(vec![contiguous.clone(), contiguous.clone(), contiguous.clone()], 1);
    let part = around.slice([0..rows, columns..2 * columns]);
    [("contiguous", contiguous), ("transposed", turned.transpose()), ("a part", part)]
}

fn forward_equals_the_reference<B: QuantBackend>() {
    for dims in SHAPES {
        let mut x = numbers(dims[0] * dims[1], 61);
        // −0.001 becomes −0.
        for (value, special) in x.iter_mut().zip([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.001, -0.0]) {
            *value = special;
        }
        let clean = numbers(dims[0] * dims[1], 62);
        for granularity in learnable() {
            for bits in WIDTHS {
                let learned = steps::<B>(&clean, dims, bits, granularity);
                for (layout, x) in layouts::<B>(&x, dims) {
                    let expected = values(&reference::learned_step(x.clone(), &learned));
                    let what = format!("{granularity} {bits} bits {dims:?} {layout}");
                    assert_same_numbers(&values(&learned.forward(x)), &expected, &what);
                }
            }
        }
    }
}

/// Bit for bit, but for the payloads of NaN.
#[track_caller]
fn assert_same_numbers(got: &[f32], expected: &[f32], what: &str) {
    let plain = |values: &[f32]| values.iter().map(|x| if x.is_nan() { f32::NAN } else { *x }).collect::<Vec<_>>();
    assert_same_bits(&plain(got), &plain(expected), what);
}

#[test]
fn values_equal_those_of_plain_operations_bit_for_bit() {
    forward_equals_the_reference::<Plain>();
    forward_equals_the_reference::<Other>();
    forward_equals_the_reference::<Tracked>();
}

/// What the gradient of a step is made of.
#[derive(Clone, Copy, Default)]
struct Terms {
    count: usize,
    /// Σ g·∂y/∂s
    sum: f64,
    /// Σ |g|·(|⌊r⌉| + |r|)
    magnitude: f64,
}

/// Gradients of the loss Σ y·arriving: of `x`, of the steps.
fn gradients<B: QuantAutodiffBackend>(
    x: &Tensor<B, 2>,
    arriving: &[f32],
    learned: &LearnedStep<B>,
    forward: impl Fn(Tensor<B, 2>, &LearnedStep<B>) -> Tensor<B, 2>,
) -> [Vec<f32>; 2] {
    let x = x.clone().detach().require_grad();
    let y = forward(x.clone(), learned);
    let gradients = (y * tensor(arriving, x.dims())).sum().backward();
    let of_both = [x.grad(&gradients), learned.step.grad(&gradients)];
    of_both.map(|gradient| values(&gradient.expect("both were to get a gradient")))
}

fn backward_is_exact_but_for_one_rounding<B: QuantAutodiffBackend>() {
    for dims in SHAPES {
        let x = numbers(dims[0] * dims[1], 63);
        let arriving = numbers(x.len(), 64);
        for granularity in learnable() {
            for bits in WIDTHS {
                let learned = steps::<B>(&x, dims, bits, granularity);
                let step_values = values(&learned.step.val());
                let highest = ((1 << (bits.bits() - 1)) - 1) as f32;
                let mut terms = vec![Terms::default(); step_values.len()];
                let mut expected_of_x = Vec::new();
                for (index, (&x, &arriving)) in x.iter().zip(&arriving).enumerate() {
                    let owner = scale_index(granularity, [1, dims[0], dims[1]], index);
                    let ratio = x / step_values[owner];
                    let inside = ratio.abs() < highest;
                    let level = ratio.clamp(-highest, highest).round_ties_even();
                    let slope = f64::from(level) - if inside { f64::from(ratio) } else { 0.0 };
                    expected_of_x.push(if inside { arriving } else { 0.0 });
                    let terms = &mut terms[owner];
                    terms.count += 1;
                    terms.sum += slope * f64::from(arriving);
                    let ratio = f64::from(if inside { ratio } else { 0.0 });
                    terms.magnitude += f64::from(arriving).abs() * (f64::from(level).abs() + ratio.abs());
                }
                let sharing = match granularity {
                    Granularity::PerTensor | Granularity::PerToken => x.len(),
                    Granularity::PerChannel => dims[0],
                    Granularity::PerGroup(size) => size.get().min(dims[0]),
                };
                let factor = (sharing as f64 * f64::from(highest)).sqrt().recip();
                for (layout, input) in layouts::<B>(&x, dims) {
                    let what = format!("{granularity} {bits} bits {dims:?} {layout}");
                    let [of_x, of_step] = gradients(&input, &arriving, &learned, |x, learned| learned.forward(x));
                    assert_eq!(of_x, expected_of_x, "{what}");
                    let [_, plain] = gradients(&input, &arriving, &learned, reference::learned_step);
                    for ((got, plain), terms) in of_step.iter().zip(plain).zip(&terms) {
                        let exact = terms.sum * factor;
                        // One rounding to f32, and sums in f64 in some order, here and there.
                        let unit = 2f64.powi(-24);
                        let in_f64 = 2.0 * terms.count as f64 * 2f64.powi(-53) * terms.magnitude * factor;
                        let bound = unit * exact.abs() + in_f64;
                        assert!((f64::from(*got) - exact).abs() <= bound, "{what}: {got} is not {exact} ± {bound}");
                        // Plain operations subtract two sums in f32: a rounding for each addition, and
                        // six on the way to a term.
                        let bound = bound + (terms.count + 6) as f64 * unit * terms.magnitude * factor;
                        let off = (f64::from(*got) - f64::from(plain)).abs();
                        assert!(off <= bound, "{what}: {got} is not {plain} ± {bound} of plain operations");
                    }
                }
            }
        }
    }
}

#[test]
fn the_gradient_of_values_is_exact_and_that_of_steps_but_for_one_rounding() {
    backward_is_exact_but_for_one_rounding::<Tracked>();
    backward_is_exact_but_for_one_rounding::<OtherTracked>();
}

#[test]
fn without_a_kernel_the_gradients_are_the_same() {
    // Numbers of f64 run on plain operations.
    let (dims, bits) = ([37, 23], BitWidth::B3);
    let x = numbers(dims[0] * dims[1], 65);
    let arriving = numbers(x.len(), 66);
    for granularity in learnable() {
        let learned = steps::<Tracked>(&x, dims, bits, granularity);
        let [of_x, of_step] = gradients(&tensor(&x, dims), &arriving, &learned, |x, learned| learned.forward(x));
        let step = learned.step.val().cast(DType::F64).detach().require_grad();
        let mut wide = learned;
        wide.step = Param::from_tensor(step);
        let input = tensor::<Tracked, 2>(&x, dims).cast(DType::F64).detach().require_grad();
        let y = wide.forward(input.clone());
        let above = tensor::<Tracked, 2>(&arriving, dims).cast(DType::F64);
        let gradients = (y * above).sum().backward();
        let of_x_wide: Vec<f64> = input.grad(&gradients).unwrap().into_data().to_vec().unwrap();
        let of_step_wide: Vec<f64> = wide.step.grad(&gradients).unwrap().into_data().to_vec().unwrap();
        let of_x: Vec<f64> = of_x.into_iter().map(f64::from).collect();
        assert_eq!(of_x, of_x_wide, "{granularity}");
        // The f32 kernel rounds each ratio, of at most Q, before it is subtracted.
        let rounding = 3.0 * 2f64.powi(-24) * arriving.iter().map(|g| f64::from(g.abs())).sum::<f64>();
        for (got, expected) in of_step.iter().zip(of_step_wide) {
            let bound = rounding + 2f64.powi(-24) * expected.abs();
            assert!((f64::from(*got) - expected).abs() <= bound, "{granularity}: {got} is not {expected}");
        }
    }
}

#[test]
fn a_nan_shows_in_the_gradient_of_its_step_alone() {
    let x = tensor::<Tracked, 2>(&[f32::NAN, 1.0, 0.5, f32::INFINITY, 0.2, -0.1], [2, 3]);
    let clean = tensor::<Tracked, 2>(&[1.0; 6], [2, 3]);
    let learned = LearnedStep::new(&clean, BitWidth::B4, Granularity::PerChannel).unwrap();
    let [of_x, of_step] = gradients(&x, &[1.0; 6], &learned, |x, learned| learned.forward(x));
    assert_eq!(of_x, [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
    assert!(of_step[0].is_nan());
    assert!(of_step[1].is_finite() && of_step[2].is_finite());
}

#[test]
fn steps_learn_where_values_are_constants_and_values_where_steps_are() {
    let x = numbers(40, 67);
    let learned = steps::<Tracked>(&x, [10, 4], BitWidth::B4, Granularity::PerChannel);
    let arriving = vec![1.0; 40];
    let [of_x, of_step] = gradients(&tensor(&x, [10, 4]), &arriving, &learned, |x, learned| learned.forward(x));

    let constant = tensor::<Tracked, 2>(&x, [10, 4]);
    let alone = learned.forward(constant).sum().backward();
    assert_eq!(values(&learned.step.grad(&alone).unwrap()), of_step);

    let mut frozen = learned;
    frozen.step = frozen.step.set_require_grad(false);
    let input = tensor::<Tracked, 2>(&x, [10, 4]).require_grad();
    let alone = frozen.forward(input.clone()).sum().backward();
    assert_eq!(values(&input.grad(&alone).unwrap()), of_x);
    assert!(frozen.step.grad(&alone).is_none());
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let dims = [301, 257];
    let x = numbers(dims[0] * dims[1], 68);
    let arriving = numbers(x.len(), 69);
    for granularity in learnable() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let learned = steps::<Tracked>(&x, dims, BitWidth::B4, granularity);
            pool.install(|| gradients(&tensor(&x, dims), &arriving, &learned, |x, learned| learned.forward(x)))
        };
        let ([x_one, step_one], [x_many, step_many]) = (run(1), run(5));
        assert_same_bits(&x_many, &x_one, &format!("{granularity}"));
        assert_same_bits(&step_many, &step_one, &format!("{granularity}"));
    }
}
