use burn::tensor::DType;
use burn_cubecl::{CubeRuntime, ops::into_data_sync};

use crate::{
    cube::resident_weight::{ResidentWeight, dequantize_on_device},
    devices::on_every_gpu,
    packed::{nested::NestedTensor, packed_spec::PackedSpec, packed_tensor::PackedTensor, scales::ScaleFormat},
    spec::{
        bit_width::BitWidth,
        formats::format::Format,
        granularity::{Granularity, GroupSize},
    },
};

const GRANULARITIES: [Option<usize>; 4] = [None, Some(0), Some(32), Some(64)];
const SHAPES: [[usize; 2]; 5] = [[1, 1], [33, 17], [96, 48], [130, 5], [31, 65]];

/// Per tensor, per channel, or per group of so many rows.
fn granularity(rows: Option<usize>) -> Granularity {
    match rows {
        None => Granularity::PerTensor,
        Some(0) => Granularity::PerChannel,
        Some(rows) => Granularity::PerGroup(GroupSize::new(rows).unwrap()),
    }
}

fn packed(bits: u8, shape: [usize; 2], granularity: Granularity, format: Format) -> PackedTensor {
    let bits = BitWidth::new(bits).unwrap();
    let spec = PackedSpec { shape, bits, format, granularity, scale_format: ScaleFormat::F16 };
    let count = shape[0] * shape[1];
    let weights: Vec<f32> = (0..count).map(|i| ((i * 37 + i / 7) % 101) as f32 / 50.0 - 1.0).collect();
    let params: usize = spec.scale_shape().unwrap().iter().product();
    let high = f32::from((1_u16 << (bits.bits() - 1)) - 1);
    let scales: Vec<f32> = (0..params).map(|i| (1.0 + (i % 5) as f32 / 7.0) / high).collect();
    let zero_points: Vec<u8> = if format.has_zero_points() {
        (0..params).map(|i| (i % (1 << bits.bits())) as u8).collect()
    } else {
        Vec::new()
    };
    PackedTensor::from_weights(spec, &weights, &scales, &zero_points).unwrap()
}

fn widened<R: CubeRuntime>(weight: &PackedTensor, bits: BitWidth, device: &R::Device) -> Vec<f32> {
    let values = dequantize_on_device::<R>(weight, bits.bits(), device, DType::F32);
    assert_eq!(values.meta.shape().as_slice(), weight.shape());
    into_data_sync::<R>(values).into_vec().unwrap()
}

fn every_width_shape_and_granularity<R: CubeRuntime>(device: &R::Device) {
    for bits in 2..=8 {
        for shape in SHAPES {
            for rows in GRANULARITIES {
                for format in [Format::Symmetric, Format::Asymmetric] {
                    let weight = packed(bits, shape, granularity(rows), format);
                    let got = widened::<R>(&weight, weight.bits(), device);
                    assert_eq!(got, weight.dequantize(), "{:?}", weight.spec());
                }
            }
        }
    }
}

#[test]
fn values_on_the_device_are_those_of_the_cpu() {
    on_every_gpu!(every_width_shape_and_granularity);
}

fn every_cut<R: CubeRuntime>(device: &R::Device) {
    for rows in GRANULARITIES {
        // Every code there is.
        let shape = [256, 20];
        let spec = packed(8, shape, granularity(rows), Format::Symmetric).spec();
        let codes: Vec<u8> = (0..256 * 20).map(|i| (i / 20).max(1) as u8).collect();
        let params: usize = spec.scale_shape().unwrap().iter().product();
        let scales: Vec<f32> = (0..params).map(|i| 0.01 + i as f32 * 1e-4).collect();
        let nested = NestedTensor::new(PackedTensor::from_codes(spec, &codes, &scales, &[]).unwrap()).unwrap();
        for bits in 2..=8 {
            let bits = BitWidth::new(bits).unwrap();
            let got = widened::<R>(nested.tensor(), bits, device);
            assert_eq!(got, nested.dequantize(bits).unwrap(), "{bits:?}, {rows:?}");
        }
        assert_eq!(nested.tensor().device_copies().len(), 1, "the 8-bit codes serve every width");
    }
}

#[test]
fn nested_weights_are_cut_on_the_device_as_on_the_cpu() {
    on_every_gpu!(every_cut);
}

fn one_upload<R: CubeRuntime>(device: &R::Device) {
    let weight = packed(4, [96, 48], Granularity::PerChannel, Format::Symmetric);
    assert_eq!(weight.device_copies().len(), 0, "nothing is uploaded before it is used");
    let first = ResidentWeight::<R>::of(&weight, device);
    // Memory that is referred to from elsewhere is not written to.
    assert!(!first.words.can_mut());
    let clone = weight.clone();
    drop(weight);
    let unmade = || -> ResidentWeight<R> { unreachable!("there is a copy") };
    let copies = clone.device_copies();
    let second = copies.get_or_make(|copy: &ResidentWeight<R>| copy.device == *device, unmade);
    assert_eq!(second.words.meta.num_elements() * 4, clone.codes().len());
    assert_eq!(copies.len(), 1);
    // With the last clone of the weights goes the copy that they keep: `first` is all that is left.
    drop((second, clone));
    assert!(first.words.can_mut());
}

#[test]
fn a_weight_is_uploaded_once_and_leaves_the_device_with_its_last_clone() {
    on_every_gpu!(one_upload);
}
