//! NaN and infinities under scales that were chosen before.

use burn::tensor::{Tensor, TensorPrimitive, backend::Backend, ops::FloatTensor};

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    spec::{gradient_rule::GradientRule, quantizer::Quantizer},
    tensor::{
        params::choose_params,
        quantize::{dequantize, quantize},
    },
};

use crate::support::{Other, Plain, Tracked, granularities, numbers, spec, tensor, values, widths_and_formats};

const DIMS: [usize; 2] = [70, 9];

fn primitive<B: Backend>(x: Tensor<B, 2>) -> FloatTensor<B> {
    x.into_primitive().tensor()
}

fn broken_values_under_given_scales<B: QuantBackend>() {
    let clean = numbers(DIMS[0] * DIMS[1], 81);
    let mut broken = clean.clone();
    for at in [0, 100, 337, 629] {
        broken[at] = f32::NAN;
    }
    broken[5] = f32::INFINITY;
    broken[6] = f32::NEG_INFINITY;
    // What an infinity is clipped to.
    let mut outermost = broken.clone();
    outermost[5] = 1e30;
    outermost[6] = -1e30;
    for granularity in granularities() {
        for (bits, format) in widths_and_formats() {
            let spec = spec(granularity, format);
            let quantizer = Quantizer::new(bits, spec, GradientRule::Identity).expect("valid input");
            let params = B::choose_params(primitive(tensor::<B, 2>(&clean, DIMS)), &quantizer);
            let by_kernel = |x: &[f32]| {
                let y = B::fake_quantize_by(primitive(tensor::<B, 2>(x, DIMS)), &params, &quantizer);
                values(&Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(y)))
            };
            let params = choose_params(&tensor::<B, 2>(&clean, DIMS), bits, &spec).expect("valid input");
            let levels = values(&quantize(tensor::<B, 2>(&broken, DIMS), &params));
            let composed = values(&dequantize(quantize(tensor::<B, 2>(&broken, DIMS), &params), &params));
            let (y, clipped) = (by_kernel(&broken), by_kernel(&outermost));
            for (at, x) in broken.iter().enumerate() {
                let what = format!("{spec} {bits} bits: {x} became {} (composed {})", y[at], composed[at]);
                assert_eq!([y[at], composed[at], levels[at]].map(f32::is_nan), [x.is_nan(); 3], "{what}");
                let same = y[at].to_bits() == composed[at].to_bits() && y[at].to_bits() == clipped[at].to_bits();
                assert!(x.is_nan() || same, "{what}");
            }
        }
    }
}

#[test]
fn a_nan_stays_one_and_an_infinity_is_clipped_under_given_scales() {
    broken_values_under_given_scales::<Plain>();
    broken_values_under_given_scales::<Other>();
    broken_values_under_given_scales::<Tracked>();
}
