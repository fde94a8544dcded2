//! Values of 16 bits: scales and rounding in f32, one rounding at the end, by every path.

use burn::tensor::{DType, Tensor, backend::Backend};

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    spec::{bit_width::BitWidth, gradient_rule::GradientRule, granularity::Granularity, quant_spec::QuantSpec},
    tensor::{
        fake_quantize::fake_quantize,
        learned_step::LearnedStep,
        params::choose_params,
        quantize::{dequantize, quantize},
        reference,
    },
};

use crate::support::{
    Plain, Tracked, assert_same_bits, granularities, numbers, spec, tensor, values, widths_and_formats,
};

const DIMS: [usize; 2] = [37, 9];
const RULES: [GradientRule; 2] = [GradientRule::Identity, GradientRule::Clipped];

fn in_f32<B: Backend>(x: Tensor<B, 2>) -> Vec<f32> {
    values(&x.cast(DType::F32))
}

fn half<B: Backend>(x: &[f32], dims: [usize; 2], dtype: DType) -> Tensor<B, 2> {
    tensor::<B, 2>(x, dims).cast(dtype)
}

fn largest(dtype: DType) -> f32 {
    if dtype == DType::F16 { 65504.0 } else { f32::from_bits(0x7f7f_0000) }
}

/// The values of f32 by the same scales, rounded to the type.
fn expected(x: &[f32], dims: [usize; 2], dtype: DType, bits: BitWidth, spec: &QuantSpec) -> Vec<f32> {
    let wide = tensor::<Plain, 2>(&in_f32(half::<Plain>(x, dims, dtype)), dims);
    let y = fake_quantize(wide, bits, spec, GradientRule::Identity).expect("valid input");
    let y: Vec<f32> = values(&y).into_iter().map(|y| y.clamp(-largest(dtype), largest(dtype))).collect();
    in_f32(half::<Plain>(&y, dims, dtype))
}

fn by_every_path<B: QuantBackend>(x: &[f32], dims: [usize; 2], dtype: DType, bits: BitWidth, spec: &QuantSpec) {
    let expected = expected(x, dims, dtype, bits, spec);
    for rule in RULES {
        let what = format!("{dtype:?} {spec} {bits} bits {rule:?}");
        let fake = fake_quantize(half::<B>(x, dims, dtype), bits, spec, rule).expect("valid input");
        assert_eq!(fake.dtype(), dtype);
        assert_same_bits(&in_f32(fake), &expected, &what);
        let plain = reference::fake_quantize(half::<B>(x, dims, dtype), bits, spec, rule).expect("valid input");
        assert_eq!(plain.dtype(), dtype);
        assert_same_bits(&in_f32(plain), &expected, &format!("reference, {what}"));
    }
    let params = choose_params(&half::<B>(x, dims, dtype), bits, spec).expect("valid input");
    assert_eq!(params.scale().dtype(), DType::F32);
    let composed = dequantize(quantize(half::<B>(x, dims, dtype), &params), &params);
    assert_eq!(composed.dtype(), dtype);
    assert_same_bits(&in_f32(composed), &expected, &format!("composed, {dtype:?} {spec} {bits} bits"));
}

#[test]
fn every_path_computes_in_f32_and_rounds_once() {
    let x = numbers(DIMS[0] * DIMS[1], 42);
    for dtype in [DType::F16, DType::BF16] {
        for granularity in granularities() {
            for (bits, format) in widths_and_formats() {
                let spec = spec(granularity, format);
                by_every_path::<Plain>(&x, DIMS, dtype, bits, &spec);
                if [1, 4, 8].contains(&bits.bits()) {
                    by_every_path::<Tracked>(&x, DIMS, dtype, bits, &spec);
                    by_every_path::<Plain>(&x, DIMS, dtype, bits, &spec.with_range("percentile:97".parse().unwrap()));
                }
            }
        }
        by_every_path::<Plain>(&x, DIMS, dtype, BitWidth::B3, &"per-channel,symmetric,mse".parse().unwrap());
    }
}

#[test]
fn a_level_between_two_numbers_of_bf16_is_the_same_under_both_gradient_rules() {
    let spec = QuantSpec::default();
    for rule in RULES {
        let y = fake_quantize(half::<Tracked>(&[1.0, 0.515_625], [1, 2], DType::BF16), BitWidth::B8, &spec, rule);
        // Level 65 of 127.
        assert_eq!(in_f32(y.unwrap()), [1.0, 0.511_718_75]);
    }
}

#[test]
fn the_smallest_and_the_largest_numbers_of_16_bits_stay_finite() {
    for dtype in [DType::F16, DType::BF16] {
        let top = largest(dtype);
        for x in [[3e-6, 0.0, -3e-6, 1e-7], [top, -top, 0.0, top], [top, top, 1.0, 0.0], [-top, -top, 0.0, -top]] {
            for granularity in granularities() {
                for (bits, format) in widths_and_formats() {
                    let spec = spec(granularity, format);
                    by_every_path::<Plain>(&x, [2, 2], dtype, bits, &spec);
                    let y = fake_quantize(half::<Plain>(&x, [2, 2], dtype), bits, &spec, GradientRule::Clipped);
                    let y = in_f32(y.unwrap());
                    assert!(y.iter().all(|y| y.is_finite()), "{dtype:?} {spec} {bits} bits: {x:?} became {y:?}");
                    assert!(y[0] != 0.0 || bits == BitWidth::B1, "{dtype:?} {spec} {bits} bits: {x:?} became {y:?}");
                }
            }
        }
    }
}

#[test]
fn learned_steps_of_16_bit_weights_are_f32() {
    // Their sum is past the largest number of f16.
    let x: Vec<f32> = numbers(300 * 4, 91).iter().map(|x| x * 1000.0).collect();
    for dtype in [DType::F16, DType::BF16] {
        for granularity in granularities().into_iter().filter(|granularity| *granularity != Granularity::PerToken) {
            for bits in [BitWidth::B2, BitWidth::B4, BitWidth::B8] {
                let what = format!("{dtype:?} {granularity} {bits} bits");
                let weight = half::<Plain>(&x, [300, 4], dtype);
                let wide = tensor::<Plain, 2>(&in_f32(weight.clone()), [300, 4]);
                let of_half = LearnedStep::new(&weight, bits, granularity).unwrap();
                let of_wide = LearnedStep::new(&wide, bits, granularity).unwrap();
                assert_same_bits(&values(&of_half.step.val()), &values(&of_wide.step.val()), &what);
                let expected = in_f32(of_wide.forward(wide).cast(dtype));
                assert_same_bits(&in_f32(of_half.forward(weight.clone())), &expected, &what);
                // Plain operations on flex round exactly −0.5 to 0, not to −0.
                assert_eq!(in_f32(reference::learned_step(weight, &of_half)), expected, "{what}");

                let tracked = half::<Tracked>(&x, [300, 4], dtype).require_grad();
                let learned = LearnedStep::new(&tracked, bits, granularity).unwrap();
                let y = learned.forward(tracked.clone());
                assert_eq!(y.dtype(), dtype);
                let gradients = y.sum().backward();
                assert_eq!(tracked.grad(&gradients).unwrap().dtype(), dtype);
                let of_step = values(&learned.step.grad(&gradients).unwrap());
                assert!(of_step.iter().all(|gradient| gradient.is_finite()), "{what}");
            }
        }
    }
}
