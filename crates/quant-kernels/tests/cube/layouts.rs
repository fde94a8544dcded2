//! Tensors that do not lie in memory as their shape says.

use burn::{
    backend::{Flex, flex::FlexDevice},
    tensor::Tensor,
};
use burn_cubecl::CubeRuntime;

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    spec::{bit_width::BitWidth, gradient_rule::GradientRule, quant_spec::QuantSpec},
    tensor::fake_quantize::fake_quantize,
};

use crate::{
    Gpu,
    cases::{Values, assert_same, on, specs},
    devices::on_every_gpu,
};

fn views<B: QuantBackend>(x: &Tensor<B, 3>) -> Vec<Tensor<B, 3>> {
    let [a, b, c] = x.dims();
    vec![
        x.clone().swap_dims(1, 2),
        x.clone().swap_dims(0, 2),
        x.clone().narrow(1, 1, b - 2),
        x.clone().narrow(2, 1, c - 2),
        x.clone().slice([0..a, 0..1, 0..c]).expand([a, b, c]),
    ]
}

fn quantised<B: QuantBackend>(x: Tensor<B, 3>, bits: BitWidth, spec: &QuantSpec) -> burn::tensor::TensorData {
    fake_quantize(x, bits, spec, GradientRule::Identity).unwrap().into_data()
}

fn every_view<R: CubeRuntime>(device: &R::Device) {
    for (bits, spec) in specs().filter(|(bits, _)| bits.bits() == 4) {
        let data = Values::Noise.generate([4, 50, 37], bits);
        let got = views(&on::<Gpu<R>>(&data, device));
        let expected = views(&on::<Flex>(&data, &FlexDevice));
        for (view, (got, expected)) in got.into_iter().zip(expected).enumerate() {
            assert_same(&quantised(got, bits, &spec), &quantised(expected, bits, &spec), &(view, bits, spec));
        }
    }
}

#[test]
fn views_equal_the_reference() {
    on_every_gpu!(every_view);
}
