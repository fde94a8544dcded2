use burn::tensor::{DType, Int, Tensor, TensorData, TensorPrimitive};
use burn_cubecl::{CubeBackend, CubeRuntime};

use crate::{
    cube::{
        DeviceParams,
        unpack::{PackedShape, TILE_COLUMNS, TILE_ROWS, unpack},
    },
    devices::on_every_gpu,
    packed::{packed_spec::PackedSpec, packed_tensor::PackedTensor, scales::ScaleFormat},
    spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity},
};

type Backend<R> = CubeBackend<R, f32, i32, u32>;

/// Packs codes as the module says, word by word.
fn pack(codes: &[u32], shape: PackedShape) -> Vec<u32> {
    let PackedShape { rows, columns, bits, .. } = shape;
    let code = |row, column| if row < rows && column < columns { codes[row * columns + column] } else { 0 };
    let mut words = Vec::new();
    for first_column in (0..columns).step_by(TILE_COLUMNS) {
        for first_row in (0..rows).step_by(TILE_ROWS) {
            let mut left = bits;
            for width in [8, 4, 2, 1].into_iter().filter(|width| bits & width != 0) {
                left -= width;
                let per_byte = 8 / width;
                for vector in 0..width {
                    for column in first_column..first_column + TILE_COLUMNS {
                        let mut bytes = [0u8; 4];
                        for (j, byte) in bytes.iter_mut().enumerate() {
                            for i in 0..per_byte {
                                let row = first_row + 4 * (vector * per_byte + i) + j;
                                let bits_of_plane = (code(row, column) >> left) & ((1 << width) - 1);
                                *byte |= (bits_of_plane << (width * i)) as u8;
                            }
                        }
                        words.push(u32::from_le_bytes(bytes));
                    }
                }
            }
        }
    }
    words
}

fn noise(count: usize, seed: u32) -> Vec<u32> {
    let next = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(*state >> 8)
    };
    (0..count).scan(seed, |state, _| next(state)).collect()
}

fn floats<R: CubeRuntime>(values: &[f32], shape: [usize; 2], device: &R::Device) -> burn_cubecl::tensor::CubeTensor<R> {
    let data = TensorData::new(values.to_vec(), shape);
    Tensor::<Backend<R>, 2>::from_data(data, device).into_primitive().tensor()
}

fn check_shape<R: CubeRuntime>(shape: PackedShape, scales: [usize; 2], asymmetric: bool, device: &R::Device) {
    let PackedShape { rows, columns, bits, group, .. } = shape;
    let codes: Vec<u32> = noise(rows * columns, bits as u32).iter().map(|code| code & ((1 << bits) - 1)).collect();
    let count = scales[0] * scales[1];
    let scale: Vec<f32> = noise(count, 7).iter().map(|&noise| 1e-3 + noise as f32 * 1e-9).collect();
    let zero_point: Vec<f32> = noise(count, 9).iter().map(|&noise| (noise & ((1 << bits) - 1)) as f32).collect();
    let words: Vec<i32> = pack(&codes, shape).into_iter().map(u32::cast_signed).collect();
    assert_eq!(words.len(), shape.words());

    let words = Tensor::<Backend<R>, 1, Int>::from_ints(words.as_slice(), device).into_primitive();
    let params = DeviceParams {
        scale: floats::<R>(&scale, scales, device),
        zero_point: asymmetric.then(|| floats::<R>(&zero_point, scales, device)),
    };
    let weight = unpack(words, params, shape, DType::F32);
    let weight = Tensor::<Backend<R>, 2>::from_primitive(TensorPrimitive::Float(weight));
    assert_eq!(weight.dims(), [rows, columns]);

    let weight = weight.into_data().to_vec::<f32>().unwrap();
    for (index, (value, code)) in weight.iter().zip(codes).enumerate() {
        let (row, column) = (index / columns, index % columns);
        let param = if count == 1 { 0 } else { row / group * columns + column };
        let zero_point = if asymmetric { zero_point[param] } else { (1 << (bits - 1)) as f32 };
        let expected = (code as f32 - zero_point) * scale[param];
        assert_eq!(value.to_bits(), expected.to_bits(), "{shape:?}, {scales:?}, row {row}, column {column}");
    }
}

fn every_width_shape_and_granularity<R: CubeRuntime>(device: &R::Device) {
    for bits in 2..=8 {
        for [rows, columns] in [[1, 1], [32, 16], [33, 17], [5, 40], [96, 64], [70, 3]] {
            for asymmetric in [false, true] {
                let shape = |group| PackedShape { rows, columns, bits, kept: bits, group };
                check_shape::<R>(shape(rows), [1, 1], asymmetric, device);
                check_shape::<R>(shape(rows), [1, columns], asymmetric, device);
                for group in [1, 3, 32, 64] {
                    check_shape::<R>(shape(group), [rows.div_ceil(group), columns], asymmetric, device);
                }
            }
        }
    }
}

#[test]
fn codes_come_back_at_every_width_shape_and_granularity() {
    on_every_gpu!(every_width_shape_and_granularity);
}

/// What is unpacked above is packed here by the tests; the crate packs the same.
#[test]
fn packed_tensors_have_the_layout_that_is_unpacked() {
    for bits in 2..=8 {
        let (rows, columns) = (96, 48);
        let mask = (1 << bits) - 1;
        let codes: Vec<u32> = noise(rows * columns, 3).iter().map(|code| code & mask).collect();
        let spec = PackedSpec {
            shape: [rows, columns],
            bits: BitWidth::new(bits).unwrap(),
            format: Format::Asymmetric,
            granularity: Granularity::PerTensor,
            scale_format: ScaleFormat::F32,
        };
        let bytes: Vec<u8> = codes.iter().map(|&code| code as u8).collect();
        let packed = PackedTensor::from_codes(spec, &bytes, &[1.0], &[0]).unwrap();
        let bits = usize::from(bits);
        let shape = PackedShape { rows, columns, bits, kept: bits, group: rows };
        let words: Vec<u8> = pack(&codes, shape).into_iter().flat_map(u32::to_le_bytes).collect();
        assert_eq!(words, packed.codes(), "{bits} bits");
    }
}
