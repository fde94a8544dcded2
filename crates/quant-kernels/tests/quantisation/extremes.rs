//! The ends of the numbers, and blocks that are nearly all 0.

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    spec::{formats::format::Format, gradient_rule::GradientRule, quant_spec::QuantSpec},
    tensor::{
        fake_quantize::fake_quantize,
        params::choose_params,
        quantize::{dequantize, quantize},
        reference,
    },
};

use crate::support::{
    Other, Plain, Tracked, assert_same_bits, granularities, spec, tensor, values, widths_and_formats,
};

const DIMS: [usize; 2] = [7, 5];

/// Values by every path, which must agree to the bit.
fn by_every_path<B: QuantBackend>(x: &[f32], bits: quant_kernels::BitWidth, spec: &QuantSpec) -> Vec<f32> {
    let input = || tensor::<B, 2>(x, DIMS);
    let fake = values(&fake_quantize(input(), bits, spec, GradientRule::Identity).expect("valid input"));
    let what = format!("{spec} {bits} bits");
    let clipped = fake_quantize(input(), bits, spec, GradientRule::Clipped).expect("valid input");
    assert_same_bits(&values(&clipped), &fake, &format!("clipped, {what}"));
    let plain = reference::fake_quantize(input(), bits, spec, GradientRule::Identity).expect("valid input");
    assert_same_bits(&values(&plain), &fake, &format!("reference, {what}"));
    let params = choose_params(&input(), bits, spec).expect("valid input");
    let composed = dequantize(quantize(input(), &params), &params);
    assert_same_bits(&values(&composed), &fake, &format!("composed, {what}"));
    fake
}

fn the_largest_numbers_stay_finite<B: QuantBackend>() {
    let (largest, count) = (f32::MAX, DIMS[0] * DIMS[1]);
    let mixed = (0..count).map(|at| [largest, -largest, 0.0, largest * 0.7, 1.0][at * 3 % 5]).collect();
    let edge = (0..count).map(|at| if at % 2 == 0 { largest } else { largest.next_down() }).collect();
    for x in [vec![largest; count], vec![-largest; count], mixed, edge] {
        for granularity in granularities() {
            for (bits, format) in widths_and_formats() {
                let spec = spec(granularity, format);
                let y = by_every_path::<B>(&x, bits, &spec);
                for (x, y) in x.iter().zip(&y) {
                    assert!(y.is_finite(), "{spec} {bits} bits: {x:e} became {y:e}");
                    // The outermost numbers are levels; an asymmetric range is moved by up to half a level.
                    let kept = format == Format::Asymmetric || x.abs() < largest || (y / x - 1.0).abs() < 1e-6;
                    assert!(kept, "{spec} {bits} bits: {x:e} became {y:e}");
                }
            }
        }
    }
}

#[test]
fn the_largest_numbers_stay_finite_at_every_width_format_and_granularity() {
    the_largest_numbers_stay_finite::<Plain>();
    the_largest_numbers_stay_finite::<Other>();
    the_largest_numbers_stay_finite::<Tracked>();
}

fn the_range_of_a_block_with_one_value_is_that_value<B: QuantBackend>(range: &str) {
    for value in [0.3_f32, -0.3, 1e-20] {
        let mut x = vec![0.0; DIMS[0] * DIMS[1]];
        x[2 * DIMS[1] + 3] = value;
        for granularity in granularities() {
            for (bits, format) in widths_and_formats() {
                let spec = spec(granularity, format).with_range(range.parse().expect("valid input"));
                let y = by_every_path::<B>(&x, bits, &spec);
                for (x, y) in x.iter().zip(&y) {
                    assert!((y - x).abs() <= x.abs() * 1e-6, "{spec} {bits} bits: {x:e} became {y:e}");
                }
            }
        }
    }
}

#[test]
fn a_block_that_is_not_zero_never_gets_a_range_of_zero() {
    for range in ["percentile:60", "percentile:50.5", "mse", "min-max"] {
        the_range_of_a_block_with_one_value_is_that_value::<Plain>(range);
    }
    the_range_of_a_block_with_one_value_is_that_value::<Other>("percentile:60");
    the_range_of_a_block_with_one_value_is_that_value::<Tracked>("percentile:60");
}

#[test]
fn a_mostly_zero_column_keeps_its_values_beside_others() {
    // The middle column is 0 but for one value; the others follow their percentile.
    let x = [0.1, 0.0, -0.2, 0.3, 0.0, 0.4, 0.5, 0.3, -0.6, 0.7, 0.0, 0.8];
    for format in [Format::Symmetric, Format::Asymmetric] {
        let spec = QuantSpec { format, .."per-channel,symmetric,percentile:60".parse().unwrap() };
        let params = choose_params(&tensor::<Plain, 2>(&x, [4, 3]), quant_kernels::BitWidth::B8, &spec).unwrap();
        let high = format.levels(quant_kernels::BitWidth::B8).unwrap().high as f32;
        let scale = values(&params.scale());
        assert_eq!(scale[1], 0.3 / high, "{format}");
        assert!(scale[0] < 0.7 / high && scale[2] < 1.4 / high, "{format}: nothing is clipped");
    }
}
