//! Packed weights as the rows of a GGUF tensor, their codes as they are.
//!
//! ```text
//! Q4_0, Q5_0, Q8_0   w = d·q                 d = f16(s)
//! Q4_1, Q5_1         w = d·u + m             d = f16(s),  m = f16(−z·d)
//! ```
//!
//! `s` and `z` are the scale and the zero point of the weight, `q` and `u` its levels. A scale of a channel, of the
//! tensor or of a longer group is that of each block of 32; codes of fewer bits than the type has are some of its
//! codes. So the values differ by the rounding of `d` and `m` alone, by at most
//!
//! ```text
//! 2⁻¹¹·|w|            symmetric
//! 2⁻¹¹·(|w| + z·d)    asymmetric, with d the rounded scale; up to a sum rounded in f32
//! ```

use std::fmt;

use half::f16;

use quant_kernels::packed::packed_spec::PackedSpec;
use quant_kernels::packed::packed_tensor::PackedTensor;
use quant_kernels::spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity};

use super::block_type::BlockType;
use super::family::RowOrder;
use super::writer::EncodedTensor;

/// The values that share a scale in every type that is written.
const BLOCK: usize = 32;

/// Why a matrix is written as floats.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum WhyFloats {
    /// The plan has it at a width of which no type is.
    Width(BitWidth),
    /// No type has its grid.
    Grid {
        /// The width.
        bits: BitWidth,
        /// Which values share a scale, and which numbers codes stand for.
        grid: String,
    },
    /// An adapter is added beside the codes, and is in the floats.
    Adapter,
    /// An adapter with a learned step is merged.
    MergedStep,
    /// Codes are those of rotated inputs.
    Rotation,
    /// A row is no whole number of blocks.
    RowLength(usize),
    /// A scale or a minimum is none that f16 holds.
    ScaleBeyondF16,
}

impl fmt::Display for WhyFloats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Width(bits) => write!(f, "{bits} bits, and codes have 2 to 8"),
            Self::Grid { bits, grid } => write!(f, "no type has {bits} bits {grid}"),
            Self::Adapter => f.write_str("an adapter beside the codes, merged into the floats"),
            Self::MergedStep => f.write_str("a merged adapter with a learned step"),
            Self::Rotation => f.write_str("codes of rotated inputs"),
            Self::RowLength(values) => write!(f, "rows of {values} values, which are no whole blocks of {BLOCK}"),
            Self::ScaleBeyondF16 => f.write_str("a scale that f16 does not hold to 11 bits"),
        }
    }
}

/// The type whose codes have room for those of some packed weights.
pub(super) fn type_of(spec: &PackedSpec) -> Result<BlockType, WhyFloats> {
    let PackedSpec { bits, format, granularity, shape: [row, _], .. } = *spec;
    let grid = || WhyFloats::Grid { bits, grid: format!("{granularity},{format}") };
    spec.check().map_err(|_| grid())?;
    let block_type = match (format, bits.bits()) {
        (Format::Symmetric, ..=4) => BlockType::Q4_0,
        (Format::Symmetric, 5) => BlockType::Q5_0,
        (Format::Symmetric, _) => BlockType::Q8_0,
        (Format::Asymmetric, ..=4) => BlockType::Q4_1,
        (Format::Asymmetric, 5) => BlockType::Q5_1,
        _ => return Err(grid()),
    };
    if row.is_multiple_of(BLOCK) && row > 0 { Ok(block_type) } else { Err(WhyFloats::RowLength(row)) }
}

/// The rows of packed weights, each the weights of one output.
pub(super) fn encode(packed: &PackedTensor, order: RowOrder) -> Result<EncodedTensor, WhyFloats> {
    let (spec, block_type) = (packed.spec(), type_of(&packed.spec())?);
    let [d_in, d_out] = spec.shape;
    let params = Params::of(packed);
    let mut bytes = Vec::with_capacity(d_in * d_out / BLOCK * block_type.bytes());
    for output in (0..d_out).map(|row| order.folder_row(row, d_out)) {
        for first in (0..d_in).step_by(BLOCK) {
            let [scale, zero] = params.at(first, output);
            let (d, levels) = (f16::from_f32(scale), std::array::from_fn(|i| packed.level(first + i, output)));
            let minimum = f16::from_f32(-zero * d.to_f32());
            if d < f16::MIN_POSITIVE || !d.is_finite() || !minimum.is_finite() {
                return Err(WhyFloats::ScaleBeyondF16);
            }
            write_block(block_type, [d, minimum], &levels, &mut bytes);
        }
    }
    Ok(EncodedTensor { shape: vec![d_out, d_in], block_type, bytes })
}

/// Scales and zero points of packed weights.
struct Params {
    scales: Vec<f32>,
    zeros: Vec<u8>,
    /// How many rows share a scale, and how many scales a row has.
    rows: usize,
    columns: usize,
}

impl Params {
    fn of(packed: &PackedTensor) -> Self {
        let [d_in, d_out] = packed.shape();
        let (rows, columns) = match packed.granularity() {
            Granularity::PerGroup(rows) => (rows.get(), d_out),
            Granularity::PerChannel => (d_in, d_out),
            _ => (d_in, 1),
        };
        Self { scales: packed.scales(), zeros: packed.zero_points().to_vec(), rows, columns }
    }

    /// Scale and zero point of a weight.
    fn at(&self, input: usize, output: usize) -> [f32; 2] {
        let index = input / self.rows * self.columns + output.min(self.columns - 1);
        [self.scales[index], self.zeros.get(index).copied().map_or(0.0, f32::from)]
    }
}

/// One block: numbers, upper bits, then codes.
fn write_block(block_type: BlockType, [d, minimum]: [f16; 2], levels: &[i32; BLOCK], bytes: &mut Vec<u8>) {
    bytes.extend(d.to_le_bytes());
    let offset = match block_type {
        BlockType::Q8_0 => return bytes.extend(levels.map(|level| level as u8)),
        BlockType::Q4_0 => 8,
        BlockType::Q5_0 => 16,
        _ => {
            bytes.extend(minimum.to_le_bytes());
            0
        }
    };
    let codes = levels.map(|level| (level + offset) as u8);
    if matches!(block_type, BlockType::Q5_0 | BlockType::Q5_1) {
        let upper = codes.iter().enumerate().map(|(i, code)| u32::from(code >> 4) << i);
        bytes.extend(upper.sum::<u32>().to_le_bytes());
    }
    bytes.extend((0..BLOCK / 2).map(|i| (codes[i] & 15) | (codes[i + BLOCK / 2] << 4)));
}

#[cfg(test)]
mod tests {
    use quant_kernels::packed::scales::ScaleFormat;

    use super::*;

    const SHAPE: [usize; 2] = [64, 6];

    /// Codes of every level in turn, under scales that f16 does not hold whole.
    fn packed(bits: u8, format: Format, granularity: Granularity) -> PackedTensor {
        let bits = BitWidth::new(bits).unwrap();
        let spec = PackedSpec { shape: SHAPE, bits, format, granularity, scale_format: ScaleFormat::F32 };
        let scales: Vec<f32> =
            (0..spec.scale_shape().unwrap().iter().product()).map(|i| 0.013 + 0.000_71 * i as f32).collect();
        let highest = (1u32 << bits.bits()) - 1;
        let lowest = u32::from(format == Format::Symmetric);
        let zeros = |i: usize| (i * 5) as u8 % (highest + 1).min(255) as u8;
        let zeros: Vec<u8> =
            if format == Format::Asymmetric { (0..scales.len()).map(zeros).collect() } else { Vec::new() };
        let codes: Vec<u8> =
            (0..SHAPE[0] * SHAPE[1]).map(|i| (lowest + i as u32 * 7 % (highest + 1 - lowest)) as u8).collect();
        PackedTensor::from_codes(spec, &codes, &scales, &zeros).unwrap()
    }

    fn granularities() -> [Granularity; 4] {
        let group = |rows| Granularity::per_group(rows).unwrap();
        [Granularity::PerTensor, Granularity::PerChannel, group(32), group(64)]
    }

    #[test]
    fn every_width_keeps_its_codes_and_moves_by_the_rounding_of_its_scales() {
        for (format, bits) in (2..=8).map(|b| (Format::Symmetric, b)).chain((2..=5).map(|b| (Format::Asymmetric, b))) {
            for granularity in granularities() {
                let packed = packed(bits, format, granularity);
                let rows = encode(&packed, RowOrder::Same).unwrap();
                assert_eq!(rows.shape, [SHAPE[1], SHAPE[0]]);
                let (got, exact) = (rows.block_type.decode(&rows.bytes), packed.dequantize());
                let params = Params::of(&packed);
                for (at, &value) in got.iter().enumerate() {
                    let (output, input) = (at / SHAPE[0], at % SHAPE[0]);
                    let ([scale, zero], level) = (params.at(input, output), packed.level(input, output) as f32);
                    let d = f16::from_f32(scale).to_f32();
                    // To the bit what the type stands for, under codes that are those of the weight.
                    let minimum = f16::from_f32(-zero * d).to_f32();
                    let expected = if format == Format::Symmetric { d * level } else { d * level + minimum };
                    assert_eq!(value.to_bits(), expected.to_bits(), "{bits} bits {format} {granularity}");
                    let exact = exact[input * SHAPE[1] + output];
                    let bound = (exact.abs() + zero * d) * 2f32.powi(-11) * 1.001;
                    assert!((value - exact).abs() <= bound, "{value}, {exact} at {bits} bits {format} {granularity}");
                }
            }
        }
    }

    #[test]
    fn types_are_those_whose_codes_have_room() {
        let of = |bits, format, granularity| type_of(&packed(bits, format, granularity).spec());
        for (bits, symmetric) in [(2, "Q4_0"), (3, "Q4_0"), (4, "Q4_0"), (5, "Q5_0"), (6, "Q8_0"), (8, "Q8_0")] {
            for granularity in granularities() {
                assert_eq!(of(bits, Format::Symmetric, granularity).unwrap().name(), symmetric);
            }
        }
        for (bits, asymmetric) in [(2, "Q4_1"), (4, "Q4_1"), (5, "Q5_1")] {
            assert_eq!(of(bits, Format::Asymmetric, Granularity::PerChannel).unwrap().name(), asymmetric);
        }
    }

    #[test]
    fn what_no_type_holds_is_said_by_its_reason() {
        let spec = packed(4, Format::Symmetric, Granularity::PerChannel).spec();
        let said = |spec: PackedSpec| type_of(&spec).unwrap_err().to_string();
        let bits = |bits| BitWidth::new(bits).unwrap();
        for (spec, expected) in [
            (
                PackedSpec { bits: bits(8), format: Format::Asymmetric, ..spec },
                "no type has 8 bits per-channel,asymmetric",
            ),
            (PackedSpec { format: Format::Nf4, ..spec }, "no type has 4 bits per-channel,nf4"),
            (PackedSpec { granularity: Granularity::PerToken, ..spec }, "no type has 4 bits per-token,symmetric"),
            (
                PackedSpec { granularity: Granularity::per_group(16).unwrap(), ..spec },
                "no type has 4 bits per-group:16,symmetric",
            ),
            (PackedSpec { shape: [48, 4], ..spec }, "rows of 48 values, which are no whole blocks of 32"),
        ] {
            assert_eq!(said(spec), expected);
        }
        let spec = PackedSpec { shape: [32, 1], ..spec };
        for scale in [1e-6, 1e5] {
            let packed = PackedTensor::from_codes(spec, &[9; 32], &[scale], &[]).unwrap();
            assert_eq!(encode(&packed, RowOrder::Same), Err(WhyFloats::ScaleBeyondF16));
        }
    }

    #[test]
    fn rows_that_are_turned_are_put_back_by_the_reader() {
        let order = RowOrder::Turned(1);
        let packed = packed(8, Format::Symmetric, Granularity::PerChannel);
        let [same, turned] = [RowOrder::Same, order].map(|order| encode(&packed, order).unwrap());
        assert_ne!(same, turned);
        let back = order.in_folder(turned.block_type.decode(&turned.bytes), &turned.shape);
        assert_eq!(back, same.block_type.decode(&same.bytes));
    }
}
