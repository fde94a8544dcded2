//! Flex and ndarray agree to the last bit.

use quant_kernels::{
    spec::{
        bit_width::BitWidth, gradient_rule::GradientRule, granularity::Granularity, range_estimator::RangeEstimator,
    },
    tensor::{fake_quantize::fake_quantize, learned_step::LearnedStep},
};

use crate::support::{
    Other, Plain, assert_same_bits, granularities, numbers, spec, tensor, values, widths_and_formats,
    widths_and_mappings,
};

const DIMS: [usize; 2] = [37, 23];

#[test]
fn two_backends_give_the_same_bits() {
    let x = numbers(DIMS[0] * DIMS[1], 11);
    let ranges = ["min-max", "percentile:97.3"].map(|text| text.parse::<RangeEstimator>().unwrap());
    for range in ranges {
        for granularity in granularities() {
            for (bits, format) in widths_and_mappings() {
                let spec = spec(granularity, format).with_range(range);
                let rule = GradientRule::Identity;
                let flex = fake_quantize(tensor::<Plain, 2>(&x, DIMS), bits, &spec, rule).unwrap();
                let ndarray = fake_quantize(tensor::<Other, 2>(&x, DIMS), bits, &spec, rule).unwrap();
                assert_same_bits(&values(&flex), &values(&ndarray), &format!("{spec} {bits} bits"));
            }
        }
    }
}

#[test]
fn two_backends_find_ranges_of_the_same_error() {
    // The search adds squares in an order, and flex in a precision, of its own: of two ranges that are equal but for that
    // either may be found.
    let x = numbers(DIMS[0] * DIMS[1], 12);
    let error = |y: Vec<f32>| y.iter().zip(&x).map(|(y, x)| f64::from(y - x).powi(2)).sum::<f64>();
    for granularity in granularities() {
        for (bits, format) in widths_and_formats() {
            let spec = spec(granularity, format).with_range(RangeEstimator::Mse);
            let rule = GradientRule::Identity;
            let flex = fake_quantize(tensor::<Plain, 2>(&x, DIMS), bits, &spec, rule).unwrap();
            let ndarray = fake_quantize(tensor::<Other, 2>(&x, DIMS), bits, &spec, rule).unwrap();
            let (flex, ndarray) = (error(values(&flex)), error(values(&ndarray)));
            let scale = flex.max(ndarray).max(1e-6);
            assert!((flex - ndarray).abs() < 1e-5 * scale, "{spec} {bits} bits: {flex} is not {ndarray}");
        }
    }
}

#[test]
fn two_backends_learn_from_the_same_step() {
    let x = numbers(DIMS[0] * DIMS[1], 13);
    let flex = LearnedStep::new(&tensor::<Plain, 2>(&x, DIMS), BitWidth::B4, Granularity::PerTensor).unwrap();
    let ndarray = LearnedStep::new(&tensor::<Other, 2>(&x, DIMS), BitWidth::B4, Granularity::PerTensor).unwrap();
    let (flex, ndarray) = (values(&flex.step.val())[0], values(&ndarray.step.val())[0]);
    assert!((flex / ndarray - 1.0).abs() < 1e-6, "{flex} is not {ndarray}");
}
