//! Calibrated codes against plain double-precision loops.

use burn::backend::{Flex, flex::FlexDevice};
use burn::tensor::{Tensor, TensorData};

use super::{cholesky::cholesky, codes::Calibrated, input_moments::InputMoments};
use crate::{
    error::Error,
    packed::{coded::Coded, nested::NestedTensor, scales::ScaleFormat},
    spec::{bit_width::BitWidth, quant_spec::QuantSpec, rounding_method::RoundingMethod},
    tensor::rounding::Rounding,
};

/// Numbers between −1 and 1 that a seed decides.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Moments of inputs that hang together and differ in size.
fn moments(d_in: usize, rows: usize, seed: u64) -> InputMoments {
    let raw = numbers(rows * d_in, seed);
    let x: Vec<f64> = (0..rows * d_in)
        .map(|at| {
            let (row, column) = (at / d_in, at % d_in);
            let shared = f64::from(raw[row * d_in]);
            (f64::from(raw[at]) + 0.7 * shared) * (0.2 + (column * 7 % 11) as f64 / 5.0)
        })
        .collect();
    let mut second = vec![0.0_f32; d_in * d_in];
    for i in 0..d_in {
        for j in 0..d_in {
            let sum: f64 = (0..rows).map(|row| x[row * d_in + i] * x[row * d_in + j]).sum();
            second[i * d_in + j] = (sum / rows as f64) as f32;
        }
    }
    InputMoments::new(second, vec![0.0; d_in], vec![1.0; d_in], rows as u64).unwrap()
}

fn coded(weights: &[f32], [d_in, d_out]: [usize; 2], calibrated: Calibrated<'_>) -> Coded {
    try_coded(weights, [d_in, d_out], calibrated).unwrap()
}

fn try_coded(weights: &[f32], shape: [usize; 2], calibrated: Calibrated<'_>) -> crate::Result<Coded> {
    let weight = Tensor::<Flex, 2>::from_data(TensorData::new(weights.to_vec(), shape), &FlexDevice);
    Rounding::Calibrated(calibrated).code(&weight, ScaleFormat::F32)
}

/// `tr((W − Ŵ)ᵀ H (W − Ŵ))`.
fn output_error(weights: &[f32], values: &[f32], d_out: usize, moments: &InputMoments) -> f64 {
    let d_in = moments.d_in();
    let error = |row: usize, column: usize| f64::from(weights[row * d_out + column] - values[row * d_out + column]);
    let mut sum = 0.0;
    for i in 0..d_in {
        for j in 0..d_in {
            let h = f64::from(moments.second()[i * d_in + j]);
            sum += (0..d_out).map(|column| h * error(i, column) * error(j, column)).sum::<f64>();
        }
    }
    sum
}

/// The inverse of a matrix by elimination.
fn inverse(mut a: Vec<f64>, n: usize) -> Vec<f64> {
    let mut inverse: Vec<f64> = (0..n * n).map(|at| f64::from(u8::from(at / n == at % n))).collect();
    for pivot in 0..n {
        let by = a[pivot * n + pivot];
        for column in 0..n {
            a[pivot * n + column] /= by;
            inverse[pivot * n + column] /= by;
        }
        for row in (0..n).filter(|&row| row != pivot) {
            let factor = a[row * n + pivot];
            for column in 0..n {
                a[row * n + column] -= factor * a[pivot * n + column];
                inverse[row * n + column] -= factor * inverse[pivot * n + column];
            }
        }
    }
    inverse
}

/// GPTQ as its paper writes it, under the scales that were found: after each input the inverse of the rest, and all later weights moved.
fn textbook(weights: &[f32], shape: [usize; 2], moments: &InputMoments, rounded: &Coded) -> Vec<f32> {
    let [d_in, d_out] = shape;
    let mean = moments.importance().map(f64::from).sum::<f64>() / d_in as f64;
    let h = |i: usize, j: usize| {
        let both = f64::from(moments.second()[i * d_in + j]) + f64::from(moments.second()[j * d_in + i]);
        both / 2.0 + if i == j { 0.01 * mean } else { 0.0 }
    };
    let diagonal: Vec<f32> = moments.importance().collect();
    let mut order: Vec<usize> = (0..d_in).collect();
    order.sort_by(|&a, &b| diagonal[a].total_cmp(&diagonal[b]));
    order.reverse();
    let mut w: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
    let mut values = vec![0.0; w.len()];
    let (spec, scales, zeros) = (rounded.spec(), rounded.scales(), rounded.zero_points().to_vec());
    let book = spec.code_book().unwrap();
    for (done, &input) in order.iter().enumerate() {
        let rest = &order[done..];
        let n = rest.len();
        let of_rest = inverse((0..n * n).map(|at| h(rest[at / n], rest[at % n])).collect(), n);
        for column in 0..d_out {
            let index = spec.scale_index(input, column);
            let zero = zeros.get(index).copied().map_or(0.0, f32::from);
            let level = book.nearest(w[input * d_out + column] as f32 / scales[index], zero);
            let value = book.value(level, zero) * scales[index];
            values[input * d_out + column] = value;
            let error = (w[input * d_out + column] - f64::from(value)) / of_rest[0];
            for (place, &later) in rest.iter().enumerate().skip(1) {
                w[later * d_out + column] -= error * of_rest[place];
            }
        }
    }
    values
}

#[test]
fn gptq_is_that_of_its_paper() {
    for (spec, shape) in [
        ("per-tensor", [40, 5]),
        ("per-channel", [64, 70]),
        ("per-channel,asymmetric,mse", [33, 3]),
        ("per-group:32,asymmetric", [70, 4]),
        ("per-channel,symmetric,importance", [32, 2]),
        ("per-channel", [1, 1]),
        ("per-channel,nf4", [40, 3]),
    ] {
        let spec: QuantSpec = spec.parse().unwrap();
        for bits in [BitWidth::B2, BitWidth::B3, BitWidth::B4, BitWidth::B8] {
            if spec.format.levels(bits).is_err() {
                continue;
            }
            let weights = numbers(shape[0] * shape[1], 3);
            let moments = moments(shape[0], 60, 11);
            let how = Calibrated { bits, spec, method: RoundingMethod::Gptq, moments: Some(&moments) };
            let rounded = coded(&weights, shape, how);
            let expected = textbook(&weights, shape, &moments, &rounded);
            assert_eq!(rounded.to_floats(), expected, "{spec} at {bits}");
        }
    }
}

#[test]
fn ranges_that_are_searched_leave_room_for_what_feedback_adds() {
    let (shape, bits) = ([96, 8], BitWidth::B2);
    let (weights, moments) = (numbers(96 * 8, 15), moments(96, 150, 4));
    for granularity in ["per-tensor", "per-channel", "per-group:32"] {
        for format in ["symmetric", "asymmetric"] {
            let error = |range: &str, method| {
                let spec = format!("{granularity},{format},{range}").parse().unwrap();
                let how = Calibrated { bits, spec, method, moments: Some(&moments) };
                output_error(&weights, &coded(&weights, shape, how).to_floats(), 8, &moments)
            };
            for range in ["mse", "importance"] {
                let (found, nearest) = (error(range, RoundingMethod::Gptq), error(range, RoundingMethod::Nearest));
                assert!(found < 0.8 * nearest, "{granularity},{format},{range}: {found} of {nearest}");
                let as_wide_as_all = error("min-max", RoundingMethod::Gptq);
                assert!(found < 1.1 * as_wide_as_all, "{granularity},{format},{range}: {found} of {as_wide_as_all}");
            }
        }
    }
}

#[test]
fn a_range_beyond_all_finite_numbers_is_cut_to_them() {
    let moments = moments(32, 60, 3);
    for scale in [f32::MAX, f32::MIN_POSITIVE / 64.0] {
        let weights: Vec<f32> = numbers(32 * 2, 8).into_iter().map(|w| w * scale).collect();
        for format in ["symmetric", "asymmetric"] {
            let spec = format!("per-channel,{format},importance").parse().unwrap();
            let how = Calibrated { bits: BitWidth::B2, spec, method: RoundingMethod::Gptq, moments: Some(&moments) };
            assert!(
                coded(&weights, [32, 2], how).to_floats().iter().all(|value| value.is_finite()),
                "{format} {scale}"
            );
        }
    }
}

#[test]
fn blocks_of_inputs_and_of_outputs_fit_together() {
    // Three panels of inputs, two blocks of outputs: beyond what the textbook's loops do in good time.
    let shape = [300, 70];
    let (weights, moments) = (numbers(300 * 70, 5), moments(300, 400, 7));
    let spec: QuantSpec = "per-channel".parse().unwrap();
    let how = Calibrated { bits: BitWidth::B3, spec, method: RoundingMethod::Gptq, moments: Some(&moments) };
    let error = |values: &[f32]| output_error(&weights, values, 70, &moments);
    let gptq = coded(&weights, shape, how).to_floats();
    let nearest = coded(&weights, shape, Calibrated { method: RoundingMethod::Nearest, ..how }).to_floats();
    assert!(error(&gptq) < 0.6 * error(&nearest), "{} of {}", error(&gptq), error(&nearest));
    // Outputs do not depend on each other.
    let alone: Vec<f32> = weights.iter().skip(69).step_by(70).copied().collect();
    let of_last: Vec<f32> = gptq.iter().skip(69).step_by(70).copied().collect();
    assert_eq!(coded(&alone, [300, 1], how).to_floats(), of_last);
}

#[test]
fn a_factor_times_its_transpose_is_the_matrix() {
    let n = 290;
    let moments = moments(n, 600, 1);
    let entry = |row: usize, column: usize| {
        f64::from(moments.second()[row.max(column) * n + row.min(column)]) + f64::from(u8::from(row == column)) * 0.01
    };
    let panels = cholesky(n, entry).unwrap();
    let l = |row: usize, column: usize| {
        let panel = &panels[column / 128];
        if row < column { 0.0 } else { panel.rows_from(row)[column - panel.start] }
    };
    for (row, column) in [(0, 0), (130, 2), (289, 289), (289, 0), (200, 140), (128, 127), (260, 257)] {
        let product: f64 = (0..n).map(|inner| l(row, inner) * l(column, inner)).sum();
        assert!((product - entry(row, column)).abs() < 1e-12, "{row}, {column}: {product}");
    }
    assert!(cholesky(2, |row, column| if row == column { 1.0 } else { 2.0 }).is_none());
}

#[test]
fn importance_never_errs_more_than_the_squared_error_by_its_own_measure() {
    let shape = [96, 6];
    let (weights, moments) = (numbers(96 * 6, 9), moments(96, 200, 2));
    let importance: Vec<f32> = moments.importance().collect();
    let weighted = |values: &[f32]| -> f64 {
        let squares = weights.iter().zip(values).map(|(w, v)| f64::from(w - v).powi(2));
        squares.enumerate().map(|(at, square)| square * f64::from(importance[at / 6])).sum()
    };
    for granularity in ["per-tensor", "per-channel", "per-group:32"] {
        for format in ["symmetric", "asymmetric"] {
            for bits in [BitWidth::B2, BitWidth::B3, BitWidth::B4, BitWidth::B6] {
                let of_range = |range: &str| {
                    let spec = format!("{granularity},{format},{range}").parse().unwrap();
                    let method = RoundingMethod::Nearest;
                    weighted(
                        &coded(&weights, shape, Calibrated { bits, spec, method, moments: Some(&moments) }).to_floats(),
                    )
                };
                assert!(of_range("importance") <= of_range("mse"), "{granularity},{format} at {bits}");
            }
        }
    }
}

#[test]
fn hqq_lowers_the_sparse_error_that_it_is_for() {
    let shape = [64, 8];
    // A few large weights in every column, as trained layers have them.
    let weights: Vec<f32> =
        numbers(64 * 8, 21).into_iter().enumerate().map(|(at, w)| if at % 61 == 0 { 6.0 * w } else { w }).collect();
    let sparse =
        |values: &[f32]| -> f64 { weights.iter().zip(values).map(|(w, v)| f64::from((w - v).abs().powf(0.7))).sum() };
    for spec in ["per-channel", "per-channel,asymmetric", "per-group:32,asymmetric"] {
        let spec: QuantSpec = spec.parse().unwrap();
        let of = |method| {
            sparse(&coded(&weights, shape, Calibrated { bits: BitWidth::B3, spec, method, moments: None }).to_floats())
        };
        assert!(of(RoundingMethod::Hqq) < 0.97 * of(RoundingMethod::Nearest), "{spec}");
    }
}

#[test]
fn inputs_that_are_always_0_leave_rounding_to_the_nearest() {
    let weights = numbers(34 * 2, 4);
    let silent = InputMoments::new(vec![0.0; 34 * 34], vec![0.0; 34], vec![0.0; 34], 5).unwrap();
    let spec = QuantSpec::default();
    let how = Calibrated { bits: BitWidth::B3, spec, method: RoundingMethod::Gptq, moments: Some(&silent) };
    let nearest = Calibrated { method: RoundingMethod::Nearest, ..how };
    assert_eq!(coded(&weights, [34, 2], how).to_floats(), coded(&weights, [34, 2], nearest).to_floats());
}

#[test]
fn what_cannot_be_rounded_is_refused() {
    let spec: QuantSpec = "per-channel".parse().unwrap();
    let gptq = Calibrated { bits: BitWidth::B3, spec, method: RoundingMethod::Gptq, moments: None };
    let weights = numbers(64, 1);
    assert_eq!(try_coded(&weights, [32, 2], gptq).unwrap_err(), Error::Uncalibrated { what: "rounding `gptq`" });
    let importance = spec.with_range("importance".parse().unwrap());
    let by_range = Calibrated { spec: importance, method: RoundingMethod::Nearest, ..gptq };
    assert_eq!(try_coded(&weights, [32, 2], by_range).unwrap_err(), Error::Uncalibrated { what: "range `importance`" });
    let (of_three, of_all) = (moments(3, 10, 1), moments(32, 50, 1));
    let others = Calibrated { moments: Some(&of_three), ..gptq };
    assert_eq!(try_coded(&weights, [32, 2], others).unwrap_err(), Error::MomentsOfInputs { got: 3, expected: 32 });
    let with_nan = [&[f32::NAN], &weights[1..]].concat();
    let calibrated = Calibrated { moments: Some(&of_all), ..gptq };
    assert!(matches!(try_coded(&with_nan, [32, 2], calibrated), Err(Error::PackedWeight { row: 0, column: 0, .. })));
    // Not the moments of anything: a negative direction that no damping lifts.
    let wrong = InputMoments::new(vec![1.0, 9.0, 9.0, 1.0], vec![0.0; 2], vec![1.0; 2], 3).unwrap();
    let wrong = Calibrated { moments: Some(&wrong), ..gptq };
    assert!(matches!(try_coded(&weights[..4], [2, 2], wrong), Err(Error::Moments { .. })));
    assert!(coded(&[], [0, 3], Calibrated { moments: None, method: RoundingMethod::Hqq, ..gptq }).codes().is_empty());
}

#[test]
fn nested_codes_are_those_that_one_tensor_of_8_bits_holds() {
    let shape = [34, 5];
    let weights = numbers(34 * 5, 6);
    for spec in ["per-tensor", "per-channel", "per-channel,symmetric,mse", "per-group:32"] {
        let spec: QuantSpec = spec.parse().unwrap();
        let of = |bits, method| coded(&weights, shape, Calibrated { bits, spec, method, moments: None });
        let nested = NestedTensor::new(of(BitWidth::B8, RoundingMethod::Nearest).pack()).unwrap();
        for bits in (2..=8).map(|bits| BitWidth::new(bits).unwrap()) {
            let got = of(bits, RoundingMethod::Nested);
            assert_eq!(got.to_floats(), nested.dequantize(bits).unwrap(), "{spec} at {bits}");
            assert_eq!(got.pack().dequantize(), nested.slice_to(bits).unwrap().dequantize(), "{spec} at {bits}");
        }
    }
    // Scales that f16 does not hold are f32, as with every rounding.
    let tiny: Vec<f32> = weights.iter().map(|weight| weight * 1e-4).collect();
    let tensor = Tensor::<Flex, 2>::from_data(TensorData::new(tiny, shape), &FlexDevice);
    let how = Calibrated {
        bits: BitWidth::B8,
        spec: "per-channel".parse().unwrap(),
        method: RoundingMethod::Nested,
        moments: None,
    };
    let coded = Rounding::Calibrated(how).code(&tensor, ScaleFormat::F16).unwrap();
    assert_eq!(coded.spec().scale_format, ScaleFormat::F32);
    let asymmetric = "per-channel,asymmetric".parse().unwrap();
    let how = Calibrated { bits: BitWidth::B4, spec: asymmetric, method: RoundingMethod::Nested, moments: None };
    assert!(matches!(try_coded(&weights, shape, how), Err(Error::NestedSource { .. })));
}
