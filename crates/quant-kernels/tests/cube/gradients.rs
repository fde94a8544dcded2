//! Gradients, clipped and not.

use burn::{
    backend::{Autodiff, Flex, flex::FlexDevice},
    tensor::Tensor,
};
use burn_cubecl::CubeRuntime;

use quant_kernels::{
    backends::{primitive_params::PrimitiveParams, quant_backend::QuantBackend},
    spec::{
        gradient_rule::GradientRule,
        quant_spec::QuantSpec,
        quantizer::Quantizer,
        range_estimator::{Percentile, RangeEstimator},
    },
    tensor::fake_quantize::fake_quantize,
};

use crate::{
    Gpu,
    cases::{SHAPES, Values, assert_same, on, specs},
    devices::on_every_gpu,
    params::{primitive, reference_params, spread, tensor},
};

/// Scales of smaller values, so that many levels are clamped.
fn clipped_by_given_params<R: CubeRuntime>(device: &R::Device) {
    for (bits, spec) in specs().filter(|(bits, _)| [1, 2, 4, 8].contains(&bits.bits())) {
        for shape in SHAPES {
            for values in [Values::Noise, Values::Nan, Values::Ties] {
                let quantizer = Quantizer::new(bits, spec, GradientRule::Clipped).unwrap();
                let data = values.generate(shape, bits);
                let x = on::<Flex>(&data, &FlexDevice);
                let params = reference_params(primitive(x.clone() * 0.3), &quantizer);
                let gradient = Values::Positive.generate(shape, bits);
                let on_gpu = |param| primitive(on::<Gpu<R>>(&tensor::<Flex>(param).into_data(), device));
                let got = <Gpu<R> as QuantBackend>::pass_inside(
                    primitive(on::<Gpu<R>>(&data, device)),
                    &PrimitiveParams {
                        scale: on_gpu(params.scale.clone()),
                        zero_point: params.zero_point.clone().map(on_gpu),
                    },
                    primitive(on::<Gpu<R>>(&gradient, device)),
                    &quantizer,
                );
                let levels = (x / spread(tensor::<Flex>(params.scale), shape)).round();
                let levels = match params.zero_point {
                    Some(zero_point) => levels + spread(tensor::<Flex>(zero_point), shape),
                    None => levels,
                };
                let [low, high] = [quantizer.levels().low as f32, quantizer.levels().high as f32];
                let inside = levels.clone().greater_equal_elem(low).bool_and(levels.lower_equal_elem(high));
                let expected = on::<Flex>(&gradient, &FlexDevice).mask_fill(inside.bool_not(), 0.0);
                assert_same(&tensor::<Gpu<R>>(got).into_data(), &expected.into_data(), &(shape, bits, spec, values));
            }
        }
    }
}

/// The gradient of `Σ y²/2`, which is `y` where it passes.
fn both_rules_through_autodiff<R: CubeRuntime>(device: &R::Device) {
    let percentile = RangeEstimator::Percentile(Percentile::new(80.0).unwrap());
    for (bits, spec) in specs().filter(|(bits, _)| [2, 4].contains(&bits.bits())) {
        for range in [RangeEstimator::MinMax, percentile] {
            for rule in [GradientRule::Identity, GradientRule::Clipped] {
                let spec: QuantSpec = spec.with_range(range);
                let data = Values::Noise.generate([2, 20, 12], bits);
                let got = value_and_gradient::<Gpu<R>>(on(&data, device), bits, spec, rule);
                let expected = value_and_gradient::<Flex>(on(&data, &FlexDevice), bits, spec, rule);
                for (got, expected) in got.into_iter().zip(expected) {
                    assert_same(&got, &expected, &(bits, spec, rule));
                }
            }
        }
    }
}

fn value_and_gradient<B: QuantBackend>(
    x: Tensor<Autodiff<B>, 3>,
    bits: quant_kernels::BitWidth,
    spec: QuantSpec,
    rule: GradientRule,
) -> [burn::tensor::TensorData; 2] {
    let x = x.require_grad();
    let y = fake_quantize(x.clone(), bits, &spec, rule).unwrap();
    let value = y.clone().into_data();
    let gradients = (y.clone() * y * 0.5).sum().backward();
    [value, x.grad(&gradients).unwrap().into_data()]
}

#[test]
fn the_clipped_rule_passes_gradients_inside_the_levels() {
    on_every_gpu!(clipped_by_given_params);
}

#[test]
fn values_and_gradients_equal_those_of_the_cpu() {
    on_every_gpu!(both_rules_through_autodiff);
}
