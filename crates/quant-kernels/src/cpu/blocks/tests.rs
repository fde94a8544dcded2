//! Every instruction set against values computed one after another.

#![expect(clippy::float_cmp, reason = "results are compared exactly where they are exact")]

use super::*;
use crate::spec::{bit_width::BitWidth, granularity::Granularity};

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..count).map(|_| (next() - 0.5) * 4.0 * next().powi(3)).collect()
}

/// The index of the scale of each value.
fn owners(shape: BlockShape) -> Vec<usize> {
    let BlockShape { rows, columns, cut, .. } = shape;
    let [_, groups, wide] = shape.param_shape();
    (0..shape.len())
        .map(|index| {
            let (matrix, row, column) = (index / (rows * columns), index / columns % rows, index % columns);
            match cut {
                Cut::Whole => 0,
                Cut::DownColumns(size) => (matrix * groups + row / size) * wide + column,
                Cut::AlongRows(size) => (matrix * groups + row) * wide + column / size,
            }
        })
        .collect()
}

/// Scale and zero point of each block, levels before clamping, and values, by the formulas.
fn by_hand(x: &[f32], kernel: &SliceQuantizer) -> (Vec<(f32, f32)>, Vec<f32>, Vec<f32>) {
    let owners = owners(kernel.shape);
    let (low, high) = (kernel.book.levels().low as f32, kernel.book.levels().high as f32);
    let mut blocks = vec![Vec::new(); kernel.shape.param_shape().iter().product()];
    for (&x, &owner) in x.iter().zip(&owners) {
        blocks[owner].push(x);
    }
    let params: Vec<(f32, f32)> = blocks
        .iter()
        .map(|own: &Vec<f32>| {
            let one_if_zero = |scale: f32| if scale == 0.0 { 1.0 } else { scale };
            // The level that is `reach` levels from 0 stands for a finite number.
            let finite = |scale: f32, reach: f32| scale.min((f32::MAX / reach).next_down());
            let (min, max) = own.iter().fold((0f32, 0f32), |(min, max), &x| (min.min(x), max.max(x)));
            match kernel.format {
                _ if own.iter().any(|x| !x.is_finite()) => (f32::NAN, 0.0),
                Format::Symmetric => (finite(one_if_zero(max.max(-min) / high), high), 0.0),
                Format::Asymmetric => {
                    let scale = one_if_zero(max / high - min / high);
                    let zero_point = (-min / scale).round_ties_even().clamp(low, high);
                    (finite(scale, zero_point.max(high - zero_point)), zero_point)
                }
                Format::Nf4 => unreachable!("tables have tests of their own"),
            }
        })
        .collect();
    let levels: Vec<f32> = x
        .iter()
        .zip(&owners)
        .map(|(x, &owner)| {
            let (scale, zero_point) = params[owner];
            let level = (x / scale).round_ties_even();
            if kernel.format == Format::Symmetric { level } else { level + zero_point }
        })
        .collect();
    let values = levels
        .iter()
        .zip(&owners)
        .map(|(level, &owner)| {
            let (scale, zero_point) = params[owner];
            let level = level.clamp(low, high);
            if kernel.format == Format::Symmetric { level * scale } else { (level - zero_point) * scale }
        })
        .collect();
    (params, levels, values)
}

fn bits(values: &[f32]) -> Vec<u32> {
    // All NaNs are alike here.
    values.iter().map(|value| if value.is_nan() { u32::MAX } else { value.to_bits() }).collect()
}

fn shapes() -> Vec<BlockShape> {
    let granularities = ["per-tensor", "per-channel", "per-group:4", "per-group:1000", "per-token"];
    let sizes = [[1, 1, 1], [1, 1, 200], [2, 67, 3], [3, 5, 64], [1, 131, 65], [1, 150, 270], [1, 400, 33]];
    // Miri is a thousand times slower.
    let sizes = if cfg!(miri) { &sizes[..3] } else { &sizes };
    let mut shapes: Vec<_> = granularities
        .into_iter()
        .flat_map(|text| {
            let granularity: Granularity = text.parse().unwrap();
            sizes.iter().map(move |dims| BlockShape::new(*dims, granularity))
        })
        .collect();
    // What exchanged dimensions make of groups.
    shapes.push(BlockShape { outer: 2, rows: 9, columns: 131, cut: Cut::AlongRows(64) });
    shapes
}

fn check(kernel: &SliceQuantizer, x: &[f32]) {
    let (params, levels, expected) = by_hand(x, kernel);
    let what = format!("{kernel:?}");
    let got = kernel.params(x);
    assert_eq!(bits(&got.scales), bits(&params.iter().map(|(scale, _)| *scale).collect::<Vec<_>>()), "{what}");
    if let Some(zero_points) = &got.zero_points {
        for ((got, scale), (_, expected)) in zero_points.iter().zip(&got.scales).zip(&params) {
            assert!(scale.is_nan() || got == expected, "zero points of {what}");
        }
    }
    assert_eq!(bits(&kernel.round_trip(x)), bits(&expected), "{what}");
    assert_eq!(bits(&kernel.round_trip_by(x, &got)), bits(&expected), "by given scales: {what}");
    let gradient: Vec<f32> = (0..x.len()).map(|index| index as f32 + 1.0).collect();
    // Scales half as large clamp about half of the values.
    let halved = BlockParams { scales: got.scales.iter().map(|scale| scale / 2.0).collect(), ..got };
    let passed = kernel.pass_inside(x, &halved, &gradient);
    let owners = owners(kernel.shape);
    for (index, passed) in passed.into_iter().enumerate() {
        let zero_point = halved.zero_points.as_ref().map_or(0.0, |all| all[owners[index]]);
        let level = (x[index] / halved.scales[owners[index]]).round_ties_even() + zero_point;
        let inside = level >= kernel.book.levels().low as f32 && level <= kernel.book.levels().high as f32;
        assert_eq!(passed, if inside { gradient[index] } else { 0.0 }, "gradient of level {level} in {what}");
    }
    assert_eq!(levels.len(), x.len());
}

#[test]
fn every_instruction_set_follows_the_formulas_bit_for_bit() {
    for set in InstructionSet::available() {
        for shape in shapes() {
            for format in [Format::Symmetric, Format::Asymmetric] {
                for bits in [1, 2, 4, 8, 16] {
                    let bits = BitWidth::new(bits).unwrap();
                    let Ok(book) = format.code_book(bits) else { continue };
                    check(&SliceQuantizer { set, shape, format, book }, &numbers(shape.len(), 3));
                }
            }
        }
    }
}

#[test]
fn broken_zero_tiny_and_huge_blocks_follow_the_formulas() {
    let specials = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-45, -1e-45, 1e38, -1e38, f32::MAX];
    for set in InstructionSet::available() {
        for shape in shapes() {
            for format in [Format::Symmetric, Format::Asymmetric] {
                for special in specials {
                    let book = format.code_book(BitWidth::B4).unwrap();
                    let mut x = vec![0.0; shape.len()];
                    x[shape.len() / 2] = special;
                    check(&SliceQuantizer { set, shape, format, book }, &x);
                }
            }
        }
    }
}
