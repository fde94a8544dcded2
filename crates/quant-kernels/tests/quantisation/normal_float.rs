//! NF4: values by hand, on every backend, with gradients, and what it is for.

use burn::{backend::flex::FlexDevice, tensor::Tensor};

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    error::Error,
    spec::{
        bit_width::BitWidth, formats::format::Format, gradient_rule::GradientRule, granularity::Granularity,
        quant_spec::QuantSpec,
    },
    tensor::{
        distortion::Distortion,
        fake_quantize::fake_quantize,
        params::choose_params,
        quantize::{dequantize, quantize},
        reference,
    },
};

use crate::support::{Other, Plain, Tracked, assert_same_bits, granularities, numbers, spec, tensor, values};

/// The entries that arXiv:2305.14314 lists.
const ENTRIES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];
const DIMS: [usize; 2] = [23, 18];

/// The value of a block's element by the definition: the entry at the least distance.
fn by_hand(x: f32, scale: f32) -> f32 {
    let ratio = f64::from(x / scale);
    let distance = |entry: &f32| (f64::from(*entry) - ratio).abs();
    let nearest = ENTRIES.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).expect("there are entries");
    nearest * scale
}

fn quantised<B: QuantBackend>(x: &[f32], spec: &QuantSpec) -> Vec<f32> {
    values(&fake_quantize(tensor::<B, 2>(x, DIMS), BitWidth::B4, spec, GradientRule::Identity).expect("4 bits fit"))
}

/// Normal numbers by Box and Muller's transform.
fn normal(count: usize) -> Vec<f32> {
    let uniform = |seed| numbers(count, seed).into_iter().map(|x| f64::from((x * 1e4).rem_euclid(1.0)).max(1e-9));
    uniform(1)
        .zip(uniform(2))
        .map(|(a, b)| ((-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32)
        .collect()
}

#[test]
fn every_granularity_and_backend_gives_the_nearest_entries() {
    let x = numbers(DIMS[0] * DIMS[1], 5);
    for granularity in granularities() {
        let spec = spec(granularity, Format::Nf4);
        let params = choose_params(&tensor::<Plain, 2>(&x, DIMS), BitWidth::B4, &spec).unwrap();
        assert!(params.zero_point().is_none());
        let ones = Tensor::<Plain, 2>::ones(DIMS, &FlexDevice);
        // The scale of each element: entry 15 is 1.
        let scales = values(&dequantize(ones * 15.0, &params));
        let expected: Vec<f32> = x.iter().zip(&scales).map(|(x, scale)| by_hand(*x, *scale)).collect();
        let what = granularity.to_string();
        assert_same_bits(&quantised::<Plain>(&x, &spec), &expected, &what);
        assert_same_bits(&quantised::<Other>(&x, &spec), &expected, &what);
        assert_same_bits(&quantised::<Tracked>(&x, &spec), &expected, &what);
        let plain = reference::fake_quantize(tensor::<Plain, 2>(&x, DIMS), BitWidth::B4, &spec, GradientRule::Identity);
        assert_same_bits(&values(&plain.unwrap()), &expected, &what);
        let codes = quantize(tensor::<Plain, 2>(&x, DIMS), &params);
        assert!(values(&codes).iter().all(|code| (0.0..=15.0).contains(code) && code.fract() == 0.0));
        assert_same_bits(&values(&dequantize(codes, &params)), &expected, &what);
    }
}

#[test]
fn the_scale_is_the_largest_magnitude_which_is_kept() {
    let y = quantised::<Plain>(
        &[[0.3, -2.5].as_slice(), &[0.0; 23 * 18 - 2]].concat(),
        &spec(Granularity::PerTensor, Format::Nf4),
    );
    assert_eq!(y[..3], [0.079_580_3 * 2.5, -2.5, 0.0]);
}

#[test]
fn blocks_of_zeros_stay_zeros_and_broken_blocks_become_nan() {
    let mut x = vec![0.0; DIMS[0] * DIMS[1]];
    x[1] = f32::NAN;
    x[2] = f32::INFINITY;
    let spec = spec(Granularity::PerChannel, Format::Nf4);
    for y in [quantised::<Plain>(&x, &spec), quantised::<Other>(&x, &spec)] {
        for (at, y) in y.iter().enumerate() {
            assert_eq!(y.is_nan(), [1, 2].contains(&(at % DIMS[1])), "element {at} is {y}");
            assert!(y.is_nan() || *y == 0.0);
        }
    }
}

#[test]
fn normal_weights_lose_less_than_at_4_evenly_spaced_bits() {
    let x = Tensor::<Plain, 1>::from_floats(normal(64 * 256).as_slice(), &FlexDevice);
    let x = x.reshape([64, 256]);
    for granularity in [Granularity::PerChannel, Granularity::per_group(32).unwrap(), Granularity::PerToken] {
        let sqnr = |format| {
            let y = fake_quantize(x.clone(), BitWidth::B4, &spec(granularity, format), GradientRule::Identity).unwrap();
            Distortion::between(&x, &y).sqnr_db
        };
        let (nf4, uniform) = (sqnr(Format::Nf4), sqnr(Format::Symmetric));
        assert!(nf4 > uniform + 0.5, "{granularity}: {nf4} dB, evenly spaced {uniform} dB");
    }
}

#[test]
fn the_clipped_gradient_is_0_beyond_the_table() {
    let spec: QuantSpec = "per-tensor,nf4,percentile:80".parse().unwrap();
    let x = numbers(DIMS[0] * DIMS[1], 9);
    let scale = values(&choose_params(&tensor::<Plain, 2>(&x, DIMS), BitWidth::B4, &spec).unwrap().scale())[0];
    let gradient = |quantise: fn(Tensor<Tracked, 2>, BitWidth, &QuantSpec, GradientRule) -> _| {
        let x = tensor::<Tracked, 2>(&x, DIMS).require_grad();
        let y: quant_kernels::Result<Tensor<Tracked, 2>> =
            quantise(x.clone(), BitWidth::B4, &spec, GradientRule::Clipped);
        values(&x.grad(&(y.unwrap() * 3.0).sum().backward()).unwrap())
    };
    let expected: Vec<f32> = x.iter().map(|x| if (x / scale).abs() <= 1.0 { 3.0 } else { 0.0 }).collect();
    assert!(expected.contains(&0.0) && expected.contains(&3.0));
    assert_eq!(gradient(fake_quantize), expected);
    assert_eq!(gradient(reference::fake_quantize), expected);
}

#[test]
fn other_widths_than_4_bits_are_refused() {
    let spec: QuantSpec = "per-channel,nf4".parse().unwrap();
    assert_eq!(spec.to_string(), "per-channel,nf4,min-max");
    assert_eq!(
        serde_json::to_string(&spec).unwrap(),
        r#"{"granularity":"per-channel","mapping":"nf4","range":"min-max"}"#
    );
    for bits in BitWidth::quantised().filter(|bits| *bits != BitWidth::B4) {
        let error = Error::FormatBits { format: Format::Nf4, bits, expected: 4 };
        assert_eq!(spec.check(bits, 2), Err(error.clone()));
        assert_eq!(error.to_string(), format!("the format nf4 has no codes of {bits} bits, expected 4"));
    }
    assert!(spec.check(BitWidth::B4, 2).is_ok() && spec.check(BitWidth::FULL, 2).is_ok());
}
