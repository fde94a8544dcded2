//! Kernels against the plain tensor operations and the scalar reference, in every layout that a tensor may have.

use burn::tensor::{Tensor, backend::Backend};

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    spec::gradient_rule::GradientRule,
    tensor::{fake_quantize::fake_quantize, params::choose_params, reference},
};

use crate::{
    scalar_reference::{self, sharing},
    support::{Other, Plain, assert_same_bits, granularities, numbers, spec, tensor, values, widths_and_mappings},
};

const DIMS: [usize; 3] = [3, 37, 23];

/// A tensor of the shape `[3, 37, 23]` in each layout: contiguous, the last two dimensions
/// exchanged, all exchanged, and a part of a larger one.
fn layouts<B: Backend>(x: &[f32]) -> Vec<(&'static str, Tensor<B, 3>)> {
    let [outer, rows, columns] = DIMS;
    let padded = numbers((outer + 1) * (rows + 2) * (columns + 5), 77);
    vec![
        ("contiguous", tensor::<B, 3>(x, DIMS)),
        ("rows and columns exchanged", tensor::<B, 3>(x, [outer, columns, rows]).swap_dims(1, 2)),
        ("all exchanged", tensor::<B, 3>(x, [columns, rows, outer]).swap_dims(0, 2)),
        (
            "part of a larger one",
            tensor::<B, 3>(&padded, [outer + 1, rows + 2, columns + 5]).slice([
                1..outer + 1,
                1..rows + 1,
                4..columns + 4,
            ]),
        ),
        (
            "whole rows of a larger one",
            tensor::<B, 3>(&padded, [outer + 1, rows + 2, columns + 5]).slice([0..outer, 0..rows, 0..columns]),
        ),
    ]
}

fn agree<B: QuantBackend>(range: &str, widths: &[u8]) {
    let x = numbers(DIMS.iter().product(), 41);
    let percent = range.strip_prefix("percentile:").map(|percent| percent.parse::<f64>().expect("a percentile"));
    let range = range.parse().expect("a range estimator");
    for granularity in granularities() {
        for (bits, format) in widths_and_mappings().filter(|(bits, _)| widths.contains(&bits.bits())) {
            let spec = spec(granularity, format).with_range(range);
            for (layout, x) in layouts::<B>(&x) {
                let what = format!("{layout}, {spec}, {bits} bits");
                let rule = GradientRule::Identity;
                let kernel = fake_quantize(x.clone(), bits, &spec, rule).expect("valid options");
                let plain = reference::fake_quantize(x.clone(), bits, &spec, rule).expect("valid options");
                assert_same_bits(&values(&kernel), &values(&plain), &what);
                let kernel = choose_params(&x, bits, &spec).expect("valid options");
                let plain = reference::choose_params(&x, bits, &spec).expect("valid options");
                assert_eq!(kernel.scale().dims(), plain.scale().dims());
                assert_same_bits(&values(&kernel.scale()), &values(&plain.scale()), &what);
                // A zero point of −0 is one of 0.
                let zero_points = [kernel.zero_point(), plain.zero_point()].map(|z| z.map(|z| values(&z)));
                assert_eq!(zero_points[0], zero_points[1], "{what}");
                // Percentiles have no kernel of their own, so that both sides are the same operations.
                let levels = format.levels(bits).expect("a width of the format");
                let blocks = sharing(&values(&x), DIMS, granularity);
                let expected = blocks.values().map(|block| match percent {
                    Some(percent) => scalar_reference::percentile(block, percent, format, levels),
                    None => scalar_reference::min_max(block, format, levels),
                });
                let (scales, zeros): (Vec<f32>, Vec<Option<f32>>) = expected.unzip();
                assert_same_bits(&values(&kernel.scale()), &scales, &format!("scales of {what}"));
                assert_eq!(zero_points[0], zeros.into_iter().collect::<Option<Vec<f32>>>(), "zero points of {what}");
            }
        }
    }
}

#[test]
fn kernels_on_flex_equal_plain_operations_bit_for_bit() {
    agree::<Plain>("min-max", &[1, 2, 3, 4, 5, 6, 7, 8, 16]);
    agree::<Plain>("percentile:97", &[3, 8]);
}

#[test]
fn kernels_on_ndarray_equal_plain_operations_bit_for_bit() {
    agree::<Other>("min-max", &[1, 2, 4, 8, 16]);
    agree::<Other>("percentile:97", &[3]);
}
