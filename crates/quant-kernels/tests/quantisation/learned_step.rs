//! LSQ against the closed forms of the paper (arXiv:1902.08153, equations 1 to 5).

use burn::{
    module::AutodiffModule,
    optim::{GradientsParams, Optimizer, SgdConfig},
    tensor::Tensor,
};

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    error::Error,
    spec::{bit_width::BitWidth, granularity::Granularity},
    tensor::{learned_step::LearnedStep, reference},
};

use crate::{
    scalar_reference::{scale_index, sharing},
    support::{Other, Plain, Tracked, granularities, numbers, tensor, values},
};

const DIMS: [usize; 2] = [10, 4];

fn learnable() -> impl Iterator<Item = Granularity> {
    granularities().into_iter().filter(|granularity| *granularity != Granularity::PerToken)
}

fn close(got: f32, expected: f64, what: &str) {
    let tolerance = 1e-5 * expected.abs().max(1e-3);
    assert!((f64::from(got) - expected).abs() <= tolerance, "{what}: {got} is not {expected}");
}

#[test]
fn steps_start_at_twice_the_mean_magnitude_over_the_root_of_the_highest_level() {
    let x = numbers(DIMS[0] * DIMS[1], 51);
    for granularity in learnable() {
        for bits in [BitWidth::B2, BitWidth::B4, BitWidth::B8] {
            let highest = f64::from((1 << (bits.bits() - 1)) - 1);
            let step = LearnedStep::new(&tensor::<Plain, 2>(&x, DIMS), bits, granularity).unwrap();
            let blocks = sharing(&x, [1, DIMS[0], DIMS[1]], granularity);
            for (step, block) in values(&step.step.val()).iter().zip(blocks.values()) {
                let mean = block.iter().map(|x| f64::from(x.abs())).sum::<f64>() / block.len() as f64;
                close(*step, 2.0 * mean / highest.sqrt(), &format!("{granularity} {bits} bits"));
            }
        }
    }
}

#[test]
fn forward_and_both_gradients_equal_the_closed_forms() {
    let mut x = numbers(DIMS[0] * DIMS[1], 52);
    x[3] = 9.0;
    x[14] = -7.5;
    // A different weight on every output stands for the gradient that arrives from above.
    let arriving: Vec<f32> = (0..x.len()).map(|index| 0.25 + (index % 7) as f32).collect();
    for granularity in learnable() {
        for bits in [BitWidth::B2, BitWidth::B3, BitWidth::B4, BitWidth::B8] {
            let what = format!("{granularity} {bits} bits");
            let highest = f64::from((1 << (bits.bits() - 1)) - 1);
            let input = tensor::<Tracked, 2>(&x, DIMS).require_grad();
            let learned = LearnedStep::new(&input, bits, granularity).unwrap();
            let y = learned.forward(input.clone());
            let gradients = (y.clone() * tensor(&arriving, DIMS)).sum().backward();
            let steps = values(&learned.step.val());
            let x_gradient = values(&input.grad(&gradients).unwrap());
            let step_gradient = values(&learned.step.grad(&gradients).unwrap());

            let mut expected_step_gradient = vec![0.0; steps.len()];
            for (index, (&x, &arriving)) in x.iter().zip(&arriving).enumerate() {
                let owner = scale_index(granularity, [1, DIMS[0], DIMS[1]], index);
                let ratio = f64::from(x) / f64::from(steps[owner]);
                let inside = ratio.abs() < highest;
                let level = ratio.clamp(-highest, highest).round_ties_even();
                close(values(&y)[index], level * f64::from(steps[owner]), &format!("output of {what}"));
                let passes = if inside { f64::from(arriving) } else { 0.0 };
                close(x_gradient[index], passes, &format!("gradient of x, {what}"));
                let slope = if inside { level - ratio } else { highest.copysign(ratio) };
                expected_step_gradient[owner] += slope * f64::from(arriving);
            }
            // The last group is scaled as the whole ones are.
            let sharing = match granularity {
                Granularity::PerTensor | Granularity::PerToken => DIMS[0] * DIMS[1],
                Granularity::PerChannel => DIMS[0],
                Granularity::PerGroup(size) => size.get().min(DIMS[0]),
            };
            let factor = (sharing as f64 * highest).sqrt().recip();
            for (got, expected) in step_gradient.iter().zip(expected_step_gradient) {
                let tolerance = 1e-4 * (1.0 + (expected * factor).abs());
                assert!(
                    (f64::from(*got) - expected * factor).abs() < tolerance,
                    "gradient of the step, {what}: {got} is not {}",
                    expected * factor
                );
            }
        }
    }
}

#[test]
fn training_the_step_reduces_the_error() {
    let x = tensor::<Tracked, 2>(&numbers(64 * 8, 53), [64, 8]);
    let mut learned = LearnedStep::new(&x, BitWidth::B3, Granularity::PerChannel).unwrap();
    // A poor start.
    learned.step = learned.step.map(|step| (step * 3.0).set_require_grad(false).require_grad());
    let loss = |learned: &LearnedStep<Tracked>| (learned.forward(x.clone()) - x.clone()).square().mean();
    let before = loss(&learned).into_scalar();
    let mut optimizer = SgdConfig::new().init();
    for _ in 0..400 {
        let gradients = GradientsParams::from_grads(loss(&learned).backward(), &learned);
        learned = optimizer.step(5.0, learned, gradients);
    }
    let after = loss(&learned).into_scalar();
    assert!(after < before * 0.5, "{before} only fell to {after}");

    // The trained quantiser without gradients gives the same numbers.
    let valid: LearnedStep<Plain> = learned.valid();
    assert_eq!(values(&valid.forward(x.clone().inner())), values(&learned.forward(x)));
}

#[test]
fn steps_serve_activations_of_any_rank() {
    let sample = tensor::<Plain, 2>(&numbers(12, 54), [3, 4]);
    let batch = tensor::<Plain, 3>(&numbers(24, 55), [2, 3, 4]);
    let rows: Tensor<Plain, 2> = batch.clone().reshape([6, 4]);
    for granularity in [Granularity::PerTensor, Granularity::PerChannel] {
        let step = LearnedStep::new(&sample, BitWidth::B4, granularity).unwrap();
        assert_eq!(values(&step.forward(batch.clone())), values(&step.forward(rows.clone())));
    }
}

#[test]
fn silent_and_empty_samples_start_at_one() {
    for dims in [[2, 3], [0, 3]] {
        let silent = tensor::<Plain, 2>(&vec![0.0; dims[0] * dims[1]], dims);
        let step = LearnedStep::new(&silent, BitWidth::B4, Granularity::PerChannel).unwrap();
        assert_eq!(values(&step.step.val()), [1.0; 3]);
        assert_eq!(values(&step.forward(silent.clone())), values(&silent));
    }
}

fn a_step_of_zero_makes_no_number<B: QuantBackend>() {
    let x = [0.7, 0.0, -0.3, 0.2];
    for granularity in learnable() {
        for bits in [BitWidth::B2, BitWidth::B4, BitWidth::B8, BitWidth::B16] {
            let mut learned = LearnedStep::new(&tensor::<B, 2>(&x, [2, 2]), bits, granularity).expect("valid input");
            for zero in [0.0, -0.0] {
                learned.step = learned.step.map(|step| step.zeros_like() + zero);
                for y in [
                    learned.forward(tensor::<B, 2>(&x, [2, 2])),
                    reference::learned_step(tensor::<B, 2>(&x, [2, 2]), &learned),
                ] {
                    assert!(values(&y).iter().all(|y| y.is_nan()), "{granularity} {bits} bits: {:?}", values(&y));
                }
            }
        }
    }
}

#[test]
fn a_step_that_became_zero_shows_as_nan_on_every_backend() {
    a_step_of_zero_makes_no_number::<Plain>();
    a_step_of_zero_makes_no_number::<Other>();
    a_step_of_zero_makes_no_number::<Tracked>();
}

#[test]
fn steps_start_as_finite_numbers_at_the_ends_of_f32_and_as_nan_where_values_are_broken() {
    for granularity in learnable() {
        for bits in [BitWidth::B2, BitWidth::B3, BitWidth::B8] {
            let x = tensor::<Plain, 2>(&[f32::MAX; 40], DIMS);
            let learned = LearnedStep::new(&x, bits, granularity).unwrap();
            let y = values(&learned.forward(x));
            assert!(y.iter().all(|y| y.is_finite() && *y > 0.0), "{granularity} {bits} bits: {y:?}");
            for broken in [f32::NAN, f32::INFINITY] {
                let mut x = vec![1.0; 40];
                x[0] = broken;
                let step = LearnedStep::new(&tensor::<Plain, 2>(&x, DIMS), bits, granularity).unwrap();
                assert!(values(&step.step.val())[0].is_nan(), "{granularity} {bits} bits");
            }
        }
    }
}

#[test]
fn steps_that_cannot_be_learned_are_errors() {
    let x = tensor::<Plain, 2>(&[1.0], [1, 1]);
    let new = |bits, granularity| LearnedStep::new(&x, bits, granularity).map(|_| ()).unwrap_err();
    let granularity = Granularity::PerToken;
    assert_eq!(new(BitWidth::B4, granularity), Error::LearnedStep { granularity });
    assert_eq!(new(BitWidth::FULL, Granularity::PerTensor), Error::FullPrecision);
    assert_eq!(new(BitWidth::B1, Granularity::PerTensor), Error::TooFewBits { bits: BitWidth::B1 });
}

#[test]
#[should_panic(expected = "per-channel steps of shape [1, 4] do not fit a tensor of shape [3, 5]")]
fn steps_of_other_channels_panic() {
    let step = LearnedStep::new(&tensor::<Plain, 2>(&[1.0; 12], [3, 4]), BitWidth::B4, Granularity::PerChannel);
    let _ = step.unwrap().forward(tensor::<Plain, 2>(&[1.0; 15], [3, 5]));
}

#[test]
fn steps_that_are_given_quantise_as_those_that_were_found() {
    let x = tensor::<Tracked, 2>(&numbers(DIMS[0] * DIMS[1], 57), DIMS);
    for granularity in learnable() {
        for bits in [BitWidth::B2, BitWidth::B3, BitWidth::B4, BitWidth::B8] {
            let found = LearnedStep::new(&x, bits, granularity).unwrap();
            let given = LearnedStep::from_steps(found.step.val(), bits, granularity).unwrap();
            assert_eq!((given.bits(), given.granularity()), (bits, granularity));
            assert_eq!(values(&given.forward(x.clone())), values(&found.forward(x.clone())));
            // It is a parameter of its own, trained whatever the steps came from.
            let gradients = given.forward(x.clone()).sum().backward();
            assert!(given.step.grad(&gradients).is_some() && found.step.grad(&gradients).is_none());
            assert!(given.fits(DIMS));
            assert_eq!(given.fits([DIMS[0], DIMS[1] + 1]), granularity == Granularity::PerTensor);
        }
    }
    let one = tensor::<Plain, 2>(&[1.0], [1, 1]);
    let of = |bits, granularity| LearnedStep::from_steps(one.clone(), bits, granularity).unwrap_err();
    assert!(matches!(of(BitWidth::B4, Granularity::PerToken), Error::LearnedStep { .. }));
    assert!(matches!(of(BitWidth::FULL, Granularity::PerTensor), Error::FullPrecision));
    assert!(matches!(of(BitWidth::new(1).unwrap(), Granularity::PerTensor), Error::TooFewBits { .. }));
    for got in [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let steps = tensor::<Plain, 2>(&[0.5, -0.25, got], [1, 3]);
        let error = LearnedStep::from_steps(steps, BitWidth::B4, Granularity::PerChannel).unwrap_err();
        assert_eq!(error.to_string(), format!("learned step 2 is {got}, expected a finite number other than 0"));
    }
}
