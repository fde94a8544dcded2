//! Tensors of 16 bits.

use burn::{
    backend::{Flex, flex::FlexDevice},
    tensor::{DType, FloatDType, Tensor, backend::Backend},
};
use burn_cubecl::CubeRuntime;

use quant_kernels::{
    spec::gradient_rule::GradientRule,
    tensor::{fake_quantize::fake_quantize, reference},
};

use crate::{
    Gpu,
    cases::{Values, assert_same, on, specs},
    devices::on_every_gpu,
};

fn computed_in_f32<R: CubeRuntime>(device: &R::Device) {
    for (dtype, float) in [(DType::F16, FloatDType::F16), (DType::BF16, FloatDType::BF16)] {
        if !Gpu::<R>::dtype_usage(device, dtype).contains(burn::tensor::backend::DTypeUsage::Storage) {
            println!("not run: the device has no {dtype:?}");
            continue;
        }
        for (bits, spec) in specs().filter(|(bits, _)| [2, 4, 8].contains(&bits.bits())) {
            for shape in [[2, 33, 31], [1, 300, 40]] {
                let data = Values::Noise.generate(shape, bits);
                let x: Tensor<Gpu<R>, 3> = on::<Gpu<R>>(&data, device).cast(float);
                let got = fake_quantize(x, bits, &spec, GradientRule::Identity).unwrap();
                assert_eq!(got.dtype(), dtype);
                let rounded = on::<Flex>(&data, &FlexDevice).cast(float).cast(FloatDType::F32);
                let expected = reference::fake_quantize(rounded, bits, &spec, GradientRule::Identity).unwrap();
                let expected = expected.cast(float).cast(FloatDType::F32);
                let got = got.into_data().convert::<f32>();
                assert_same(&got, &expected.into_data(), &(dtype, shape, bits, spec));
            }
        }
    }
}

#[test]
fn sixteen_bit_tensors_are_computed_in_f32_and_rounded_once() {
    on_every_gpu!(computed_in_f32);
}
