//! Every width, granularity and mapping against the scalar reference.

use quant_kernels::{
    error::Error,
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
    scalar_reference,
    support::{Plain, assert_same_bits, granularities, numbers, spec, tensor, values, widths_and_mappings},
};

/// Shapes with one element, one row, one column, odd sizes and several matrices.
const SHAPES: [[usize; 3]; 6] = [[1, 1, 1], [1, 1, 7], [1, 9, 1], [1, 13, 5], [3, 7, 11], [2, 32, 17]];

#[test]
fn every_combination_equals_the_scalar_reference_bit_for_bit() {
    for (seed, dims) in SHAPES.into_iter().enumerate() {
        let x = numbers(dims.iter().product(), seed as u64 + 1);
        for granularity in granularities() {
            for (bits, format) in widths_and_mappings() {
                let what = format!("{dims:?} {granularity} {format} {bits} bits");
                let levels = format.levels(bits).unwrap();
                let (q, y) = scalar_reference::quantise(&x, dims, granularity, format, levels);

                let input = tensor::<Plain, 3>(&x, dims);
                let params = choose_params(&input, bits, &spec(granularity, format)).unwrap();
                assert_eq!(Ok(params.scale().dims()), granularity.param_shape(dims), "{what}");
                let got_levels = quantize(input.clone(), &params);
                assert_same_bits(&values(&got_levels), &q, &format!("levels of {what}"));
                let got = dequantize(got_levels, &params);
                assert_same_bits(&values(&got), &y, &format!("values of {what}"));
                let fake = fake_quantize(input, bits, &spec(granularity, format), GradientRule::Identity).unwrap();
                assert_same_bits(&values(&fake), &y, &format!("fake quantisation of {what}"));
            }
        }
    }
}

#[test]
fn full_precision_passes_through_unchanged() {
    let x = numbers(35, 3);
    for granularity in granularities() {
        for format in [Format::Symmetric, Format::Asymmetric] {
            let input = tensor::<Plain, 2>(&x, [5, 7]);
            let spec = spec(granularity, format);
            let y = fake_quantize(input.clone(), BitWidth::FULL, &spec, GradientRule::Clipped).unwrap();
            assert_same_bits(&values(&y), &x, "full precision");
            assert_eq!(choose_params(&input, BitWidth::FULL, &spec).unwrap_err(), Error::FullPrecision);
        }
    }
}

#[test]
fn empty_tensors_stay_empty() {
    for dims in [[0, 4], [4, 0], [0, 0]] {
        for granularity in granularities() {
            for format in [Format::Symmetric, Format::Asymmetric] {
                let input = tensor::<Plain, 2>(&[], dims);
                let spec = spec(granularity, format);
                let y = fake_quantize(input.clone(), BitWidth::B4, &spec, GradientRule::Identity).unwrap();
                assert_eq!(y.dims(), dims);
                let params = choose_params(&input, BitWidth::B4, &spec).unwrap();
                assert_eq!(Ok(params.scale().dims()), granularity.param_shape(dims));
                assert_eq!(params.zero_point().is_some(), format == Format::Asymmetric);
                assert_eq!(dequantize(quantize(input, &params), &params).dims(), dims);
            }
        }
    }
}

#[test]
fn values_that_are_all_zero_stay_zero() {
    // One zero row and one zero column among others.
    let mut x = numbers(30, 5);
    for index in (0..30).filter(|index| index / 6 == 2 || index % 6 == 3) {
        x[index] = 0.0;
    }
    for x in [x, vec![0.0; 30]] {
        for granularity in granularities() {
            for (bits, format) in widths_and_mappings() {
                let input = tensor::<Plain, 2>(&x, [5, 6]);
                let y = fake_quantize(input, bits, &spec(granularity, format), GradientRule::Identity).unwrap();
                for (index, (y, x)) in values(&y).iter().zip(&x).enumerate() {
                    assert!(y.is_finite(), "{granularity} {format} {bits} bits: {y} at {index}");
                    assert!(*x != 0.0 || *y == 0.0, "{granularity} {format} {bits} bits: 0 became {y}");
                }
            }
        }
    }
}

#[test]
fn numbers_at_the_ends_of_f32_do_not_overflow() {
    let smallest = f32::from_bits(1);
    let largest = f32::MAX;
    for x in [vec![largest, -largest, 1e38, 0.0], vec![smallest, -smallest, 3e-39, -1e-40]] {
        for (bits, format) in widths_and_mappings() {
            let input = tensor::<Plain, 1>(&x, [4]);
            let spec = spec(Granularity::PerTensor, format);
            let params = choose_params(&input, bits, &spec).unwrap();
            let q = quantize(input, &params);
            let y = values(&dequantize(q.clone(), &params));
            let q = values(&q);
            let levels = format.levels(bits).unwrap();
            assert!(
                q.iter().all(|&q| q.fract() == 0.0 && (levels.low as f32..=levels.high as f32).contains(&q)),
                "{format} {bits} bits: {x:?} became levels {q:?}"
            );
            let scale = values(&params.scale())[0];
            assert!(scale > 0.0 && scale.is_finite(), "{format} {bits} bits: scale {scale} of {x:?}");
            for (x, y) in x.iter().zip(&y) {
                let error = (f64::from(*x) - f64::from(*y)).abs();
                // The division, and the product back, round once each; so does the scale, of which a subnormal
                // one has few digits.
                let digit = f64::from(levels.high) * f64::from(smallest);
                let rounding = f64::from(x.abs()) * 3.0 * f64::from(f32::EPSILON) + digit;
                let bound = 1.001 * f64::from(scale) + rounding;
                assert!(y.is_finite() && error <= bound, "{format} {bits} bits: {x:e} became {y:e}");
            }
        }
    }
}

#[test]
fn halves_round_to_even_levels() {
    // The largest value fixes the scale at 1.
    let x = [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 125.5, 126.5];
    let input = tensor::<Plain, 1>(&x, [9]);
    let params = choose_params(&input, BitWidth::B8, &QuantSpec::default()).unwrap();
    let q = values(&quantize(input, &params));
    assert_eq!(q, [127.0, 0.0, 2.0, 2.0, 0.0, -2.0, -2.0, 126.0, 126.0]);
}

#[test]
fn a_single_value_of_either_sign_keeps_itself() {
    for x in [3.7, -3.7, 1e-30, -1e30] {
        for (bits, format) in widths_and_mappings() {
            let input = tensor::<Plain, 1>(&[x], [1]);
            let spec = spec(Granularity::PerTensor, format);
            let y = values(&fake_quantize(input, bits, &spec, GradientRule::Identity).unwrap())[0];
            assert!((y - x).abs() <= x.abs() * 1e-6, "{format} {bits} bits: {x} became {y}");
        }
    }
}

#[test]
fn combinations_that_do_not_exist_are_errors() {
    let vector = tensor::<Plain, 1>(&[1.0, 2.0], [2]);
    let symmetric = QuantSpec::default();
    let fake = |spec: &QuantSpec, bits| fake_quantize(vector.clone(), bits, spec, GradientRule::Identity);
    assert_eq!(fake(&symmetric, BitWidth::B1).unwrap_err(), Error::TooFewBits { bits: BitWidth::B1 });
    let granularity = Granularity::PerChannel;
    let channels = symmetric.with_granularity(granularity);
    assert_eq!(fake(&channels, BitWidth::B4).unwrap_err(), Error::Rank { granularity, rank: 1 });
}

#[test]
fn per_tensor_parameters_serve_any_shape() {
    let calibration = tensor::<Plain, 2>(&numbers(12, 8), [3, 4]);
    let params = choose_params(&calibration, BitWidth::B8, &QuantSpec::default()).unwrap();
    let x = tensor::<Plain, 2>(&numbers(10, 9), [5, 2]);
    assert_eq!(quantize(x, &params).dims(), [5, 2]);
}

#[test]
#[should_panic(expected = "per-channel scales of shape [1, 4] do not fit a tensor of shape [3, 5]")]
fn parameters_of_other_channels_panic() {
    let spec = QuantSpec::default().with_granularity(Granularity::PerChannel);
    let params = choose_params(&tensor::<Plain, 2>(&numbers(12, 8), [3, 4]), BitWidth::B8, &spec).unwrap();
    let _ = quantize(tensor::<Plain, 2>(&numbers(15, 9), [3, 5]), &params);
}
