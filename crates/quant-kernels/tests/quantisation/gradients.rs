//! What the straight-through estimator lets through.

use burn::tensor::{Tensor, backend::AutodiffBackend};

use quant_kernels::{
    spec::{
        bit_width::BitWidth, formats::format::Format, gradient_rule::GradientRule, granularity::Granularity,
        quant_spec::QuantSpec,
    },
    tensor::{
        fake_quantize::fake_quantize,
        params::choose_params,
        quantize::{dequantize, quantize},
    },
};

use crate::{
    scalar_reference::scale_index,
    support::{Plain, Tracked, assert_same_bits, granularities, numbers, spec, tensor, values, widths_and_mappings},
};

const DIMS: [usize; 2] = [11, 6];

/// A different weight on every output, so that a gradient in the wrong place shows.
fn weights() -> Tensor<Tracked, 2> {
    let weights: Vec<f32> = (0..DIMS[0] * DIMS[1]).map(|index| 1.0 + index as f32).collect();
    tensor(&weights, DIMS)
}

fn gradient_of(x: &Tensor<Tracked, 2>, y: Tensor<Tracked, 2>) -> Vec<f32> {
    let gradients = (y * weights()).sum().backward();
    values::<<Tracked as AutodiffBackend>::InnerBackend, 2>(&x.grad(&gradients).expect("x was to get a gradient"))
}

#[test]
fn recording_gradients_does_not_change_a_bit_of_the_result() {
    // −0.001 becomes −0, whose sign a sum with +0 would lose.
    let mut x = numbers(DIMS[0] * DIMS[1], 31);
    x[..4].copy_from_slice(&[-0.001, 0.0, -0.0, 2.0]);
    for granularity in granularities() {
        for (bits, format) in widths_and_mappings() {
            for rule in [GradientRule::Identity, GradientRule::Clipped] {
                let spec = spec(granularity, format);
                let plain = fake_quantize(tensor::<Plain, 2>(&x, DIMS), bits, &spec, rule).unwrap();
                let tracked = tensor::<Tracked, 2>(&x, DIMS).require_grad();
                let params = choose_params(&tracked, bits, &spec).unwrap();
                let composed = dequantize(quantize(tracked.clone(), &params), &params);
                let tracked = fake_quantize(tracked, bits, &spec, rule).unwrap();
                let what = format!("{spec} {bits} bits");
                assert_same_bits(&values(&tracked), &values(&plain), &what);
                assert_same_bits(&values(&composed), &values(&plain), &what);
            }
        }
    }
}

#[test]
fn the_identity_rule_passes_every_gradient_unchanged() {
    let x = numbers(DIMS[0] * DIMS[1], 32);
    for granularity in granularities() {
        for (bits, format) in widths_and_mappings() {
            let x = tensor::<Tracked, 2>(&x, DIMS).require_grad();
            let y = fake_quantize(x.clone(), bits, &spec(granularity, format), GradientRule::Identity).unwrap();
            assert_eq!(gradient_of(&x, y), values(&weights()), "{granularity} {format} {bits} bits");
        }
    }
}

#[test]
fn the_clipped_rule_stops_gradients_exactly_where_levels_were_clamped() {
    let x = numbers(DIMS[0] * DIMS[1], 33);
    let mut stopped = 0;
    for granularity in granularities() {
        for format in [Format::Symmetric, Format::Asymmetric] {
            let spec = spec(granularity, format).with_range("percentile:80".parse().unwrap());
            let tracked = tensor::<Tracked, 2>(&x, DIMS).require_grad();
            let params = choose_params(&tracked, BitWidth::B4, &spec).unwrap();
            let y = fake_quantize(tracked.clone(), BitWidth::B4, &spec, GradientRule::Clipped).unwrap();

            // A value was clamped where it is more than half a step from what it became.
            let scales = values(&params.scale());
            let scale_of = |index| scales[scale_index(granularity, [1, DIMS[0], DIMS[1]], index)];
            let expected: Vec<f32> = values(&(y.clone() - tracked.clone()))
                .iter()
                .zip(values(&weights()))
                .enumerate()
                .map(|(index, (error, weight))| if error.abs() > scale_of(index) * 0.5001 { 0.0 } else { weight })
                .collect();
            stopped += expected.iter().filter(|&&gradient| gradient == 0.0).count();
            assert_eq!(gradient_of(&tracked, y), expected, "{spec}");
        }
    }
    assert!(stopped > 50, "only {stopped} values were clamped, which tests little");
}

#[test]
fn the_clipped_rule_stops_nothing_when_nothing_is_clamped() {
    let x = numbers(DIMS[0] * DIMS[1], 34);
    for (bits, format) in widths_and_mappings().filter(|(bits, _)| *bits > BitWidth::B1) {
        let x = tensor::<Tracked, 2>(&x, DIMS).require_grad();
        let spec = spec(Granularity::PerChannel, format);
        let y = fake_quantize(x.clone(), bits, &spec, GradientRule::Clipped).unwrap();
        let gradient = gradient_of(&x, y);
        let stopped = gradient.iter().filter(|&&gradient| gradient == 0.0).count();
        // An asymmetric zero point is itself rounded, which may push an outermost value over.
        let allowed = if format == Format::Symmetric { 0 } else { DIMS[1] };
        assert!(stopped <= allowed, "{format} {bits} bits: {stopped} gradients stopped");
    }
}

#[test]
fn gradients_reach_through_to_what_made_the_input() {
    let x = tensor::<Tracked, 2>(&numbers(DIMS[0] * DIMS[1], 35), DIMS).require_grad();
    let y = fake_quantize(x.clone() * 3.0, BitWidth::B4, &QuantSpec::default(), GradientRule::Identity).unwrap();
    let expected: Vec<f32> = values(&weights()).iter().map(|weight| weight * 3.0).collect();
    assert_eq!(gradient_of(&x, y), expected);
}

#[test]
fn parameters_are_constants() {
    // Were the scale a function of x, the gradient of its largest value would differ.
    let x = tensor::<Tracked, 2>(&numbers(DIMS[0] * DIMS[1], 36), DIMS).require_grad();
    let params = choose_params(&x, BitWidth::B4, &QuantSpec::default()).unwrap();
    assert!(!params.scale().is_require_grad());
    let loss = params.scale().sum() + (x.clone() * 2.0).sum();
    let gradient = values(&x.grad(&loss.backward()).unwrap());
    assert!(gradient.iter().all(|&gradient| gradient == 2.0));
}
