//! Whatever the codes and the shape, they come back.

use proptest::prelude::*;

use quant_kernels::{
    packed::{packed_spec::PackedSpec, packed_tensor::PackedTensor, scales::ScaleFormat},
    spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity},
};

fn codes() -> impl Strategy<Value = (PackedSpec, Vec<u8>)> {
    (0_usize..70, 0_usize..40, 2_u8..=8).prop_flat_map(|(d_in, d_out, bits)| {
        let spec = PackedSpec {
            shape: [d_in, d_out],
            bits: BitWidth::new(bits).unwrap(),
            format: Format::Asymmetric,
            granularity: Granularity::PerTensor,
            scale_format: ScaleFormat::F32,
        };
        let high = (0xff_u16 >> (8 - bits)) as u8;
        (Just(spec), prop::collection::vec(0..=high, d_in * d_out))
    })
}

proptest! {
    #[test]
    fn codes_come_back((spec, codes) in codes(), zero in 0_u8..4) {
        let packed = PackedTensor::from_codes(spec, &codes, &[1.0], &[zero]).unwrap();
        let expected: Vec<f32> = codes.iter().map(|code| f32::from(*code) - f32::from(zero)).collect();
        prop_assert_eq!(packed.dequantize(), expected);
        let [d_in, d_out] = spec.shape;
        for row in 0..d_in {
            for column in 0..d_out {
                prop_assert_eq!(packed.level(row, column), i32::from(codes[row * d_out + column]));
            }
        }
    }
}
