//! `fake_quantize`.

use burn::{
    backend::{Flex, flex::FlexDevice},
    tensor::Tensor,
};
use burn_cubecl::CubeRuntime;

use quant_kernels::{
    spec::{
        bit_width::BitWidth,
        gradient_rule::GradientRule,
        quant_spec::QuantSpec,
        range_estimator::{Percentile, RangeEstimator},
    },
    tensor::{fake_quantize::fake_quantize, reference},
};

use crate::{
    Gpu,
    cases::{SHAPES, Values, assert_same, on, specs},
    devices::on_every_gpu,
};

fn check<R: CubeRuntime>(shape: [usize; 3], values: Values, bits: BitWidth, spec: QuantSpec, device: &R::Device) {
    let data = values.generate(shape, bits);
    let rule = GradientRule::Identity;
    let got = fake_quantize(on::<Gpu<R>>(&data, device), bits, &spec, rule).unwrap();
    let expected = reference::fake_quantize(on::<Flex>(&data, &FlexDevice), bits, &spec, rule).unwrap();
    assert_same(&got.into_data(), &expected.into_data(), &(shape, values, bits, spec));
}

fn every_width<R: CubeRuntime>(device: &R::Device) {
    for (bits, spec) in specs() {
        for shape in SHAPES {
            check::<R>(shape, Values::Noise, bits, spec, device);
        }
    }
}

fn every_kind_of_values<R: CubeRuntime>(device: &R::Device) {
    for values in Values::ALL {
        for (bits, spec) in specs().filter(|(bits, _)| [1, 2, 4, 8, 16].contains(&bits.bits())) {
            for shape in SHAPES {
                check::<R>(shape, values, bits, spec, device);
            }
        }
    }
}

fn every_estimator<R: CubeRuntime>(device: &R::Device) {
    for (bits, spec) in specs().filter(|(bits, _)| [2, 5].contains(&bits.bits())) {
        for range in [RangeEstimator::Percentile(Percentile::new(99.0).unwrap()), RangeEstimator::Mse] {
            // The estimators themselves are plain tensor operations, whose sums depend on the
            // backend; what is held here is what becomes of the values under the scales they give.
            let spec = spec.with_range(range);
            let data = Values::Noise.generate([2, 33, 20], bits);
            let x = on::<Gpu<R>>(&data, device);
            let got = fake_quantize(x.clone(), bits, &spec, GradientRule::Identity).unwrap();
            let expected = reference::fake_quantize(x, bits, &spec, GradientRule::Identity).unwrap();
            assert_same(&got.into_data(), &expected.into_data(), &(bits, spec));
        }
    }
}

/// A tensor that takes two stages of more than one cube, and more scales than one cube has units.
fn a_large_tensor<R: CubeRuntime>(device: &R::Device) {
    let shape = [1, 1500, 771];
    for (bits, spec) in specs().filter(|(bits, _)| bits.bits() == 4) {
        check::<R>(shape, Values::Noise, bits, spec, device);
        check::<R>(shape, Values::Nan, bits, spec, device);
    }
}

fn ranks_one_two_and_four<R: CubeRuntime>(device: &R::Device) {
    for (bits, spec) in specs().filter(|(bits, _)| bits.bits() == 3) {
        let data = Values::Noise.generate([6, 10, 8], bits);
        let rule = GradientRule::Identity;
        let [x, y] =
            [on::<Gpu<R>>(&data, device).reshape([2, 3, 10, 8]), on::<Gpu<R>>(&data, device).reshape([2, 3, 10, 8])];
        let expected: Tensor<Flex, 4> = on::<Flex>(&data, &FlexDevice).reshape([2, 3, 10, 8]);
        let expected = reference::fake_quantize(expected, bits, &spec, rule).unwrap();
        let got = fake_quantize(x, bits, &spec, rule).unwrap();
        assert_same(&got.into_data(), &expected.into_data(), &(bits, spec, 4));

        let expected: Tensor<Flex, 2> = on::<Flex>(&data, &FlexDevice).reshape([60, 8]);
        let expected = reference::fake_quantize(expected, bits, &spec, rule).unwrap();
        let got = fake_quantize(y.reshape([60, 8]), bits, &spec, rule).unwrap();
        assert_same(&got.into_data(), &expected.into_data(), &(bits, spec, 2));

        if spec.check(bits, 1).is_ok() {
            let expected: Tensor<Flex, 1> = on::<Flex>(&data, &FlexDevice).reshape([480]);
            let expected = reference::fake_quantize(expected, bits, &spec, rule).unwrap();
            let x: Tensor<Gpu<R>, 1> = on::<Gpu<R>>(&data, device).reshape([480]);
            let got = fake_quantize(x, bits, &spec, rule).unwrap();
            assert_same(&got.into_data(), &expected.into_data(), &(bits, spec, 1));
        }
    }
}

fn nothing_at_all<R: CubeRuntime>(device: &R::Device) {
    for (bits, spec) in specs().filter(|(bits, _)| bits.bits() == 4) {
        for shape in [[0, 3, 4], [2, 0, 4], [2, 3, 0]] {
            let x = Tensor::<Gpu<R>, 3>::zeros(shape, device);
            assert_eq!(fake_quantize(x, bits, &spec, GradientRule::Identity).unwrap().dims(), shape);
        }
    }
}

#[test]
fn every_width_granularity_mapping_and_shape_equals_the_reference() {
    on_every_gpu!(every_width);
}

#[test]
fn every_kind_of_values_equals_the_reference() {
    on_every_gpu!(every_kind_of_values);
}

#[test]
fn every_range_estimator_equals_the_reference() {
    on_every_gpu!(every_estimator);
}

#[test]
fn tensors_that_take_many_cubes_equal_the_reference() {
    on_every_gpu!(a_large_tensor);
}

#[test]
fn other_ranks_equal_the_reference() {
    on_every_gpu!(ranks_one_two_and_four);
}

#[test]
fn empty_tensors_stay_empty() {
    on_every_gpu!(nothing_at_all);
}
