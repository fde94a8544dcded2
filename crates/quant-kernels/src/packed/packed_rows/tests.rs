use burn::backend::{Flex, flex::FlexDevice};
use burn::tensor::{Tensor, TensorData};

use super::*;
use crate::spec::gradient_rule::GradientRule;
use crate::tensor::fake_quantize::fake_quantize;

/// Every width that a symmetric mapping has.
fn widths() -> impl Iterator<Item = BitWidth> {
    BitWidth::quantised().skip(1)
}

/// Rows of numbers of both signs and many sizes, with rows of zeros, of −0 and of tiny numbers.
fn numbers(rows: usize, width: usize) -> Vec<f32> {
    let number = |row: usize, i: usize| {
        let hash = (row * 7919 + i * 104_729 + 13).wrapping_mul(2_654_435_761) % 100_003;
        (hash as f32 / 50_001.5 - 1.0) * 10_f32.powi(row as i32 % 7 - 3)
    };
    let row = |row: usize| (0..width).map(move |i| (row, i));
    let value = |(row, i): (usize, usize)| match row % 11 {
        8 => 0.0,
        9 => -0.0,
        10 => f32::MIN_POSITIVE * if i % 2 == 0 { 0.25 } else { -1e-7 },
        _ => number(row, i),
    };
    (0..rows).flat_map(row).map(value).collect()
}

fn rounded(values: &[f32], width: usize, bits: BitWidth) -> Vec<f32> {
    let data = TensorData::new(values.to_vec(), [values.len() / width, width]);
    let tensor = Tensor::<Flex, 2>::from_data(data, &FlexDevice);
    let rounded = fake_quantize(tensor, bits, &QuantSpec::PER_TOKEN, GradientRule::Identity).expect("a width");
    rounded.into_data().to_vec().expect("floats")
}

fn bits_of(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn values_are_those_of_fake_quantisation_to_the_bit_at_every_width_and_length() {
    for bits in widths() {
        for width in [1, 2, 3, 7, 8, 9, 15, 16, 33, 64, 80] {
            let (rows, values) = (23, numbers(23, width));
            let mut packed = PackedRows::zeros([rows, width], bits).expect("a width");
            packed.write(0, &values);
            let mut got = vec![f32::NAN; rows * width];
            packed.read(0..rows, &mut got);
            let want = rounded(&values, width, bits);
            assert_eq!(bits_of(&got), bits_of(&want), "{bits} bits, rows of {width}");
            assert_eq!(packed.bytes(), rows * PackedRows::row_bytes(width, bits), "{bits} bits, rows of {width}");
        }
    }
}

#[test]
fn rows_written_in_any_order_are_those_written_at_once() {
    for bits in widths() {
        let (rows, width) = (1200, 20);
        let values = numbers(rows, width);
        let [mut whole, mut pieces] = [(); 2].map(|()| PackedRows::zeros([rows, width], bits).expect("a width"));
        whole.write(0, &values);
        for piece in [900..1200, 0..1, 1..900] {
            pieces.write(piece.start, &values[piece.start * width..piece.end * width]);
        }
        assert_eq!(pieces, whole, "{bits} bits");
        let mut part = vec![0.0; 3 * width];
        whole.read(7..10, &mut part);
        assert_eq!(bits_of(&part), bits_of(&rounded(&values[7 * width..10 * width], width, bits)), "{bits} bits");
        let mut copy = PackedRows::zeros([3, width], bits).expect("a width");
        copy.copy_from(0, &whole, 7..10);
        let mut copied = vec![0.0; 3 * width];
        copy.read(0..3, &mut copied);
        assert_eq!(bits_of(&copied), bits_of(&part), "{bits} bits");
    }
}

#[test]
fn the_same_rows_of_every_block_are_those_read_one_block_after_another() {
    let (blocks, block, width) = (5, 40, 24);
    let mut packed = PackedRows::zeros([blocks * block, width], BitWidth::B4).expect("a width");
    packed.write(0, &numbers(blocks * block, width));
    for rows in [0..block, 3..17, 39..40, 7..7] {
        let got = packed.blocks(block, 1..4, &rows);
        let mut want = Vec::new();
        for index in 1..4 {
            let mut part = vec![0.0; rows.len() * width];
            packed.read(index * block + rows.start..index * block + rows.end, &mut part);
            want.extend(part);
        }
        assert_eq!(bits_of(&got), bits_of(&want), "{rows:?}");
    }
}

#[test]
fn extremes_are_those_of_fake_quantisation() {
    let rows = [
        [f32::MAX, -1.0, 0.0, f32::MIN_POSITIVE],
        [f32::MAX, f32::MIN, 3.0, -0.0],
        [f32::from_bits(1), -f32::from_bits(3), 0.0, 0.0],
        [f32::NAN, 1.0, -2.0, 0.0],
        [f32::INFINITY, 1.0, -2.0, 0.0],
        [1.0, f32::NEG_INFINITY, -2.0, 0.0],
    ];
    for bits in widths() {
        let values = rows.concat();
        let mut packed = PackedRows::zeros([rows.len(), 4], bits).expect("a width");
        packed.write(0, &values);
        let mut got = vec![0.0; values.len()];
        packed.read(0..rows.len(), &mut got);
        let want = rounded(&values, 4, bits);
        for (index, (got, want)) in got.iter().zip(&want).enumerate() {
            let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
            assert!(same, "{bits} bits, number {index}: {got:e} instead of {want:e}");
        }
        assert!(got[12..].iter().all(|x| x.is_nan()) && got[..12].iter().all(|x| x.is_finite()), "{bits} bits");
    }
}

#[test]
fn one_bit_has_no_levels() {
    assert!(PackedRows::zeros([1, 4], BitWidth::B1).is_err());
}

#[test]
#[should_panic(expected = "rows to 3 of 2")]
fn rows_that_are_not_there_are_not_written() {
    PackedRows::zeros([2, 4], BitWidth::B4).expect("a width").write(1, &[0.0; 8]);
}
