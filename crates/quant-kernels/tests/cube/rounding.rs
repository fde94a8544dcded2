//! Rounding half to even, on every number that has a half and on those too large for one.

use burn::tensor::{Tensor, TensorData};
use burn_cubecl::CubeRuntime;

use quant_kernels::{
    backends::{primitive_params::PrimitiveParams, quant_backend::QuantBackend},
    spec::{bit_width::BitWidth, gradient_rule::GradientRule, quant_spec::QuantSpec, quantizer::Quantizer},
};

use crate::{
    Gpu,
    cases::on,
    devices::on_every_gpu,
    params::{primitive, tensor},
};

/// With scale 1, a level is a rounded value.
fn halves<R: CubeRuntime>(device: &R::Device) {
    let quantizer = Quantizer::new(BitWidth::B16, QuantSpec::default(), GradientRule::Identity).unwrap();
    let halves = (-70_000..=70_000).map(|half| half as f32 / 2.0);
    let around = [0.5_f32, 1.5, 2.5, 32766.5, 8_388_607.5, 8_388_608.0, 1e30, f32::MAX];
    let around = around.into_iter().flat_map(|x| [x.next_down(), x, x.next_up().min(f32::MAX)]);
    let mut values: Vec<f32> = around.flat_map(|x| [x, -x]).collect();
    values.push(-0.0);
    values.extend(halves);
    let shape = [1, 1, values.len()];

    let scale = Tensor::<Gpu<R>, 3>::ones([1, 1, 1], device);
    let params = PrimitiveParams { scale: primitive(scale), zero_point: None };
    let x = on::<Gpu<R>>(&TensorData::new(values.clone(), shape), device);
    let got = <Gpu<R> as QuantBackend>::fake_quantize_by(primitive(x), &params, &quantizer);
    let got = tensor::<Gpu<R>>(got).into_data().to_vec::<f32>().unwrap();
    for (got, x) in got.into_iter().zip(values) {
        let expected = x.round_ties_even().clamp(-32767.0, 32767.0);
        assert_eq!(got.to_bits(), expected.to_bits(), "{x:e} is rounded to {got:e}, expected {expected:e}");
    }
}

#[test]
fn halves_are_rounded_to_even_and_zeros_keep_their_sign() {
    on_every_gpu!(halves);
}
