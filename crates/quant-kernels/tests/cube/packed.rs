//! Linear layers on packed weights, whose codes are kept and widened on the device.
//!
//! Against the plain operations of flex on weights that the CPU widened. Products are sums of at
//! most 130 terms of magnitude at most 1 in another order, and a bias, an adapter and GELU come on
//! top: outputs agree within 2e-5 of their magnitude, or of 1.

use burn::{
    backend::{Autodiff, Flex, flex::FlexDevice},
    tensor::{
        DType, FloatDType, Tensor, TensorData, TensorPrimitive,
        backend::{Backend, DTypeUsage},
    },
};
use burn_cubecl::CubeRuntime;
use half::{bf16, f16};

use quant_kernels::{
    backends::{linear_terms::LinearTerms, quant_backend::QuantBackend},
    packed::{
        nested::NestedTensor,
        packed_spec::PackedSpec,
        packed_tensor::PackedTensor,
        packed_view::PackedView,
        product::{activations::ActivationBits, epilogue::OutputFunction},
        scales::ScaleFormat,
    },
    spec::{
        bit_width::BitWidth,
        formats::format::Format,
        granularity::{Granularity, GroupSize},
    },
    tensor::packed_linear::packed_linear,
};
use test_support::numbers::numbers;

use crate::{Gpu, devices::on_every_gpu};

/// Flex without its kernel for packed products, which autodiff does not hand on.
type Plain = Autodiff<Flex>;

const TOLERANCE: f32 = 2e-5;
const RANK: usize = 3;

fn tensor<B: Backend, const D: usize>(dims: [usize; D], seed: u64, device: &B::Device) -> Tensor<B, D> {
    let data = TensorData::new(numbers(dims.iter().product(), seed), dims);
    Tensor::from_data(data, (device, DType::F32))
}

fn packed(shape: [usize; 2], bits: BitWidth, granularity: Granularity, format: Format) -> PackedTensor {
    let spec = PackedSpec { shape, bits, format, granularity, scale_format: ScaleFormat::F32 };
    let params: usize = spec.scale_shape().unwrap().iter().product();
    let levels = f32::from(1_u16 << bits.bits()) - 2.0;
    let scales: Vec<f32> = numbers(params, 3).iter().map(|noise| (2.0 + noise * 0.5) / levels).collect();
    let zero_points = match format {
        Format::Symmetric | Format::Nf4 => Vec::new(),
        Format::Asymmetric => vec![1 << (bits.bits() - 1); params],
    };
    PackedTensor::from_weights(spec, &numbers(shape[0] * shape[1], 5), &scales, &zero_points).unwrap()
}

/// What a layer adds to its product: nothing, or a bias, an adapter and GELU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Terms {
    None,
    All,
}

impl Terms {
    fn of<B: Backend>(self, [d_in, d_out]: [usize; 2], device: &B::Device) -> LinearTerms<B> {
        match self {
            Self::None => LinearTerms { bias: None, adapter: None, function: OutputFunction::Identity },
            Self::All => {
                let matrix = |dims, seed| (tensor::<B, 2>(dims, seed, device) * 0.3).into_primitive().tensor();
                LinearTerms {
                    bias: Some(tensor::<B, 1>([d_out], 11, device).into_primitive().tensor()),
                    adapter: Some((matrix([d_in, RANK], 12), matrix([RANK, d_out], 13), 1.5)),
                    function: OutputFunction::GeluTanh,
                }
            }
        }
    }
}

fn outputs<B: QuantBackend>(
    rows: usize,
    weight: PackedView<'_>,
    activations: ActivationBits,
    terms: Terms,
    device: &B::Device,
) -> Vec<f32> {
    let shape = weight.shape();
    // Small enough that no sum exceeds a few units.
    let x: Vec<f32> = numbers(rows * shape[0], 7).iter().map(|x| x * 0.3).collect();
    let x = Tensor::<B, 2>::from_data(TensorData::new(x, [rows, shape[0]]), device);
    let y = packed_linear(x, weight, activations, terms.of::<B>(shape, device));
    assert_eq!(y.dims(), [rows, shape[1]]);
    // What a device gives back of nothing need not be aligned.
    if rows * shape[1] == 0 { Vec::new() } else { y.into_data().into_vec().unwrap() }
}

fn assert_equal<R: CubeRuntime>(weight: PackedView<'_>, device: &R::Device, case: &dyn std::fmt::Debug) {
    for rows in [1, 5] {
        for activations in [ActivationBits::FULL, ActivationBits::new(BitWidth::B8).unwrap()] {
            for terms in [Terms::None, Terms::All] {
                let got = outputs::<Gpu<R>>(rows, weight, activations, terms, device);
                let expected = outputs::<Plain>(rows, weight, activations, terms, &FlexDevice);
                for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    let close = (got - expected).abs() <= TOLERANCE * expected.abs().max(1.0);
                    assert!(
                        close,
                        "{case:?}, {rows} rows, {activations:?}, {terms:?}: {index} is {got}, not {expected}"
                    );
                }
            }
        }
    }
}

fn widths() -> impl Iterator<Item = BitWidth> {
    (2..=8).map(|bits| BitWidth::new(bits).unwrap())
}

fn granularities() -> [Granularity; 3] {
    [Granularity::PerTensor, Granularity::PerChannel, Granularity::PerGroup(GroupSize::new(32).unwrap())]
}

fn every_width<R: CubeRuntime>(device: &R::Device) {
    for bits in widths() {
        for granularity in granularities() {
            for format in [Format::Symmetric, Format::Asymmetric] {
                let weight = packed([45, 33], bits, granularity, format);
                assert_equal::<R>(weight.view(), device, &weight.spec());
            }
        }
    }
}

#[test]
fn layers_of_every_width_equal_plain_operations() {
    on_every_gpu!(every_width);
}

fn odd_sizes<R: CubeRuntime>(device: &R::Device) {
    for shape in [[1, 1], [3, 50], [130, 7]] {
        for granularity in granularities() {
            let weight = packed(shape, BitWidth::B3, granularity, Format::Symmetric);
            assert_equal::<R>(weight.view(), device, &weight.spec());
        }
    }
}

#[test]
fn layers_of_odd_sizes_equal_plain_operations() {
    on_every_gpu!(odd_sizes);
}

fn every_cut<R: CubeRuntime>(device: &R::Device) {
    for granularity in granularities() {
        let nested = NestedTensor::new(packed([45, 33], BitWidth::B8, granularity, Format::Symmetric)).unwrap();
        let own = widths().filter(|bits| *bits < BitWidth::B8).fold(nested.clone(), |own, bits| {
            let (mut scales, format) = nested.scales(bits).unwrap();
            for scale in &mut scales {
                *scale *= 1.3;
            }
            own.with_scales(bits, format, &scales).unwrap()
        });
        for bits in widths() {
            assert_equal::<R>(nested.at(bits).unwrap(), device, &(bits, granularity));
            assert_equal::<R>(own.at(bits).unwrap(), device, &(bits, granularity, "own scales"));
        }
    }
}

#[test]
fn layers_of_nested_weights_equal_plain_operations() {
    on_every_gpu!(every_cut);
}

fn empty_sides<R: CubeRuntime>(device: &R::Device) {
    let none = |rows, shape| {
        let weight = packed(shape, BitWidth::B4, Granularity::PerTensor, Format::Symmetric);
        outputs::<Gpu<R>>(rows, weight.view(), ActivationBits::FULL, Terms::None, device)
    };
    assert!(none(0, [4, 3]).is_empty());
    assert!(none(2, [4, 0]).is_empty());
}

#[test]
fn layers_without_rows_or_outputs_give_nothing() {
    on_every_gpu!(empty_sides);
}

fn values<B: QuantBackend>(weight: &PackedTensor, device: &B::Device, dtype: FloatDType) -> TensorData {
    let values = B::dequantize_packed(weight.view(), device, dtype);
    let values = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(values));
    assert_eq!(values.dtype(), DType::from(dtype));
    values.into_data()
}

fn sixteen_bits<R: CubeRuntime>(device: &R::Device) {
    let weight = packed([70, 33], BitWidth::B5, Granularity::PerChannel, Format::Symmetric);
    for dtype in [FloatDType::F16, FloatDType::BF16] {
        if !Gpu::<R>::dtype_usage(device, dtype.into()).contains(DTypeUsage::Storage) {
            println!("not run: the device has no {dtype:?}");
            continue;
        }
        let got = values::<Gpu<R>>(&weight, device, dtype).convert::<f32>().into_vec::<f32>().unwrap();
        let rounded = weight.dequantize().into_iter().map(|value| match dtype {
            FloatDType::F16 => f16::from_f32(value).to_f32(),
            _ => bf16::from_f32(value).to_f32(),
        });
        assert_eq!(got, rounded.collect::<Vec<_>>(), "{dtype:?}");
    }
}

#[test]
fn weights_of_16_bits_are_computed_in_f32_and_rounded_once() {
    on_every_gpu!(sixteen_bits);
}

fn under_autodiff<R: CubeRuntime>(device: &R::Device) {
    let weight = packed([45, 33], BitWidth::B4, Granularity::PerChannel, Format::Symmetric);
    let got = values::<Autodiff<Gpu<R>>>(&weight, device, FloatDType::F32);
    assert_eq!(got.into_vec::<f32>().unwrap(), weight.dequantize());
    let x = tensor::<Autodiff<Gpu<R>>, 2>([2, 45], 7, device).require_grad();
    let terms = Terms::None.of(weight.shape(), device);
    let y = packed_linear(x.clone(), weight.view(), ActivationBits::FULL, terms);
    let gradient = x.grad(&y.sum().backward()).unwrap().into_data().into_vec::<f32>().unwrap();
    // That of Σ x·W is the sum of each row of W.
    let sums: Vec<f32> = weight.dequantize().chunks(33).map(|row| row.iter().sum()).collect();
    for (index, gradient) in gradient.iter().enumerate() {
        assert!((gradient - sums[index % 45]).abs() <= TOLERANCE * 33.0_f32.sqrt(), "{index}: {gradient}");
    }
}

#[test]
fn gradients_reach_the_input_of_a_packed_layer() {
    on_every_gpu!(under_autodiff);
}
