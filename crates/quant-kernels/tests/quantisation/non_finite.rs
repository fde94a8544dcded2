//! NaN and infinities spread over the values that share their scale, and no further.

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    spec::{bit_width::BitWidth, gradient_rule::GradientRule, range_estimator::RangeEstimator},
    tensor::{fake_quantize::fake_quantize, learned_step::LearnedStep},
};

use crate::{
    scalar_reference::scale_index,
    support::{Other, Plain, Tracked, granularities, numbers, spec, tensor, values, widths_and_mappings},
};

const DIMS: [usize; 2] = [9, 6];
const BROKEN: usize = 4 * 6 + 2;

fn spreads_over_its_block_only<B: QuantBackend>(range: RangeEstimator, widths: &[BitWidth]) {
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = numbers(DIMS[0] * DIMS[1], 21);
        x[BROKEN] = broken;
        for granularity in granularities() {
            let block = |index| scale_index(granularity, [1, DIMS[0], DIMS[1]], index);
            for (bits, format) in widths_and_mappings().filter(|(bits, _)| widths.contains(bits)) {
                for rule in [GradientRule::Identity, GradientRule::Clipped] {
                    let spec = spec(granularity, format).with_range(range);
                    let y = values(&fake_quantize(tensor::<B, 2>(&x, DIMS), bits, &spec, rule).expect("valid options"));
                    for (index, y) in y.iter().enumerate() {
                        let shares = block(index) == block(BROKEN);
                        assert_eq!(y.is_nan(), shares, "{broken} under {spec} at {bits} bits: element {index} is {y}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_broken_value_makes_its_block_nan_on_flex() {
    let all: Vec<_> = BitWidth::quantised().collect();
    spreads_over_its_block_only::<Plain>(RangeEstimator::MinMax, &all);
}

#[test]
fn a_broken_value_makes_its_block_nan_on_ndarray() {
    let all: Vec<_> = BitWidth::quantised().collect();
    spreads_over_its_block_only::<Other>(RangeEstimator::MinMax, &all);
}

#[test]
fn a_broken_value_makes_its_block_nan_with_gradients_recorded() {
    spreads_over_its_block_only::<Tracked>(RangeEstimator::MinMax, &[BitWidth::B4]);
}

#[test]
fn a_broken_value_makes_its_block_nan_under_every_range_estimator() {
    for range in ["percentile:60", "mse"] {
        let range = range.parse().unwrap();
        spreads_over_its_block_only::<Plain>(range, &[BitWidth::B3]);
        spreads_over_its_block_only::<Other>(range, &[BitWidth::B3]);
    }
}

#[test]
fn a_learned_step_passes_a_nan_on_and_clips_an_infinity() {
    let clean = tensor::<Plain, 2>(&[1.0, -2.0, 0.5, 1.5], [2, 2]);
    let step = LearnedStep::new(&clean, BitWidth::B4, quant_kernels::Granularity::PerTensor).unwrap();
    let largest = values(&step.step.val())[0] * 7.0;
    let broken = tensor::<Plain, 2>(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0], [2, 2]);
    let y = values(&step.forward(broken));
    assert_eq!((y[0], y[1], y[3]), (largest, -largest, 0.0));
    assert!(y[2].is_nan());
}
