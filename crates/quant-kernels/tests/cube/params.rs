//! `choose_params`, and values by given parameters.

use burn::{
    backend::{Flex, flex::FlexDevice},
    tensor::{Tensor, TensorPrimitive, backend::Backend},
};
use burn_cubecl::CubeRuntime;

use quant_kernels::{
    backends::{primitive_params::PrimitiveParams, quant_backend::QuantBackend},
    spec::{bit_width::BitWidth, gradient_rule::GradientRule, quant_spec::QuantSpec, quantizer::Quantizer},
    tensor::{params::choose_params, reference},
};

use crate::{
    Gpu,
    cases::{SHAPES, Values, assert_same, on, specs},
    devices::on_every_gpu,
};

pub(crate) fn primitive<B: Backend, const D: usize>(x: Tensor<B, D>) -> B::FloatTensorPrimitive {
    x.into_primitive().tensor()
}

pub(crate) fn tensor<B: Backend>(x: B::FloatTensorPrimitive) -> Tensor<B, 3> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

fn check<R: CubeRuntime>(shape: [usize; 3], values: Values, bits: BitWidth, spec: QuantSpec, device: &R::Device) {
    let case = (shape, values, bits, spec);
    let data = values.generate(shape, bits);
    let got = choose_params(&on::<Gpu<R>>(&data, device), bits, &spec).unwrap();
    let expected = reference::choose_params(&on::<Flex>(&data, &FlexDevice), bits, &spec).unwrap();
    let scale = expected.scale().into_data();
    assert_same(&got.scale().into_data(), &scale, &case);
    assert_eq!(got.zero_point().is_some(), expected.zero_point().is_some());
    if let (Some(got), Some(expected)) = (got.zero_point(), expected.zero_point()) {
        // A zero point under a scale of NaN means nothing, and a zero of either sign is the same.
        let broken = Tensor::<Flex, 3>::from_data(scale, &FlexDevice).is_nan();
        let got = Tensor::<Flex, 3>::from_data(got.into_data(), &FlexDevice);
        let [got, expected] = [got, expected].map(|z| z.mask_fill(broken.clone(), 0.0) + 0.0);
        assert_same(&got.into_data(), &expected.into_data(), &case);
    }
}

fn every_case<R: CubeRuntime>(device: &R::Device) {
    for values in Values::ALL {
        for (bits, spec) in specs().filter(|(bits, _)| [1, 2, 3, 8, 13, 16].contains(&bits.bits())) {
            for shape in SHAPES {
                check::<R>(shape, values, bits, spec, device);
            }
        }
    }
}

/// Scales of other values, which clamp some.
fn given_params<R: CubeRuntime>(device: &R::Device) {
    for (bits, spec) in specs().filter(|(bits, _)| [1, 2, 4, 8].contains(&bits.bits())) {
        for shape in SHAPES {
            let quantizer = Quantizer::new(bits, spec, GradientRule::Clipped).unwrap();
            let data = Values::Noise.generate(shape, bits);
            let x = on::<Flex>(&data, &FlexDevice);
            let narrow = primitive(x.clone() * 0.3);
            let params = reference_params(narrow, &quantizer);
            let on_gpu = |param: <Flex as burn::tensor::backend::BackendTypes>::FloatTensorPrimitive| {
                primitive(on::<Gpu<R>>(&tensor::<Flex>(param).into_data(), device))
            };
            let got = <Gpu<R> as QuantBackend>::fake_quantize_by(
                primitive(on::<Gpu<R>>(&data, device)),
                &PrimitiveParams {
                    scale: on_gpu(params.scale.clone()),
                    zero_point: params.zero_point.clone().map(on_gpu),
                },
                &quantizer,
            );
            let expected = plain_by(x, params, &quantizer);
            assert_same(&tensor::<Gpu<R>>(got).into_data(), &expected.into_data(), &(shape, bits, spec));
        }
    }
}

pub(crate) fn reference_params(
    x: <Flex as burn::tensor::backend::BackendTypes>::FloatTensorPrimitive,
    quantizer: &Quantizer,
) -> PrimitiveParams<Flex> {
    <Flex as QuantBackend>::choose_params(x, quantizer)
}

/// The formula, with scales and zero points spread over the values by hand.
fn plain_by(x: Tensor<Flex, 3>, params: PrimitiveParams<Flex>, quantizer: &Quantizer) -> Tensor<Flex, 3> {
    let dims = x.dims();
    let scale = spread(tensor::<Flex>(params.scale), dims);
    let zero_point = params.zero_point.map(|zero_point| spread(tensor::<Flex>(zero_point), dims));
    let levels = (x / scale.clone()).round();
    let levels = match &zero_point {
        Some(zero_point) => levels + zero_point.clone(),
        None => levels,
    };
    let levels = levels.clamp(quantizer.levels().low as f32, quantizer.levels().high as f32);
    match zero_point {
        Some(zero_point) => (levels - zero_point) * scale,
        None => levels * scale,
    }
}

/// A parameter for each value.
pub(crate) fn spread(param: Tensor<Flex, 3>, dims: [usize; 3]) -> Tensor<Flex, 3> {
    let [outer, groups, columns] = param.dims();
    let values = param.into_data().to_vec::<f32>().unwrap();
    // Of the sizes that give as many groups, the one tests use is found by `rows`.
    let size = |rows: usize| [1, 3, 8, 64, 1000, rows].into_iter().find(|size| rows.div_ceil(*size) == groups);
    let size = if groups == dims[1] { 1 } else { size(dims[1]).unwrap() };
    let mut all = Vec::new();
    for o in 0..dims[0] {
        for r in 0..dims[1] {
            for c in 0..dims[2] {
                let [o, g, c] = [o.min(outer - 1), (r / size).min(groups - 1), c.min(columns - 1)];
                all.push(values[(o * groups + g) * columns + c]);
            }
        }
    }
    Tensor::from_data(burn::tensor::TensorData::new(all, dims), &FlexDevice)
}

#[test]
fn scales_and_zero_points_equal_the_reference() {
    on_every_gpu!(every_case);
}

#[test]
fn values_by_given_scales_equal_the_formula() {
    on_every_gpu!(given_params);
}
