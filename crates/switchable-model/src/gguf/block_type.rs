//! How a GGUF file holds numbers: whole, or as codes with scales in blocks along a row.
//!
//! ```text
//! Q4_0   w = d·(q − 8)            32 codes of 4 bits,  d
//! Q4_1   w = d·q + m              32 codes of 4 bits,  d, m
//! Q5_0   w = d·(q − 16)           32 codes of 5 bits,  d
//! Q5_1   w = d·q + m              32 codes of 5 bits,  d, m
//! Q8_0   w = d·q                  32 codes of 8 bits,  d
//! Q4_K   w = (d·s_g)·q − d'·m_g   8 groups g of 32 codes of 4 bits, s and m of 6 bits each
//! Q5_K   w = (d·s_g)·q − d'·m_g   the same with codes of 5 bits
//! Q6_K   w = (d·s_g)·(q − 32)     16 groups g of 16 codes of 6 bits, s of 8 bits each
//! ```
//!
//! `d`, `d'` and `m` are f16. Every product is exact in f32, so that a weight is rounded once, at the sum or at
//! the last product, and is the same in every program that computes in f32.
//! Source: `ggml-quants.c` of llama.cpp.

use half::{bf16, f16};

/// A type of tensors that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 16-bit floats with the exponents of f32.
    Bf16,
    /// 4 bits, symmetric.
    Q4_0,
    /// 4 bits with a minimum.
    Q4_1,
    /// 5 bits, symmetric.
    Q5_0,
    /// 5 bits with a minimum.
    Q5_1,
    /// 8 bits, symmetric.
    Q8_0,
    /// 4 bits with a minimum, scales in codes.
    Q4K,
    /// 5 bits with a minimum, scales in codes.
    Q5K,
    /// 6 bits, symmetric, scales in codes.
    Q6K,
}

use BlockType::{Bf16, F16, F32, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};

/// The types that are read: number in the file, name, values and bytes of a block.
const READ: [(u32, BlockType, &str, usize, usize); 11] = [
    (0, F32, "F32", 1, 4),
    (1, F16, "F16", 1, 2),
    (2, Q4_0, "Q4_0", 32, 18),
    (3, Q4_1, "Q4_1", 32, 20),
    (6, Q5_0, "Q5_0", 32, 22),
    (7, Q5_1, "Q5_1", 32, 24),
    (8, Q8_0, "Q8_0", 32, 34),
    (12, Q4K, "Q4_K", 256, 144),
    (13, Q5K, "Q5_K", 256, 176),
    (14, Q6K, "Q6_K", 256, 210),
    (30, Bf16, "BF16", 1, 2),
];

/// Types that are known by name and not read.
const OTHERS: [(u32, &str); 22] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

impl BlockType {
    /// The type of a number in a file; what it is instead where it is not read.
    pub(super) fn of(number: u32) -> Result<Self, String> {
        let read = READ.iter().find(|row| row.0 == number).map(|row| row.1);
        read.ok_or_else(|| match OTHERS.iter().find(|(other, _)| *other == number) {
            Some((_, name)) => (*name).to_owned(),
            None => format!("type {number}"),
        })
    }

    /// The names of the types that are read.
    pub(super) fn names() -> String {
        READ.map(|row| row.2).join(", ")
    }

    fn row(self) -> &'static (u32, Self, &'static str, usize, usize) {
        READ.iter().find(|row| row.1 == self).expect("every type has a row")
    }

    /// Its number in a file.
    pub(super) fn number(self) -> u32 {
        self.row().0
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// The values of a block: 1 where they stand by themselves.
    pub fn values(self) -> usize {
        self.row().3
    }

    /// The bytes of a block.
    pub fn bytes(self) -> usize {
        self.row().4
    }

    /// The bytes of floats in a type of floats.
    ///
    /// # Panics
    ///
    /// If it is one of codes.
    pub(super) fn encode_floats(self, values: &[f32]) -> Vec<u8> {
        match self {
            F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
            Bf16 => values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
            _ => panic!("{} is a type of codes", self.name()),
        }
    }

    /// The values that whole blocks stand for; bytes behind them are passed over.
    pub(crate) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            F32 => single(bytes, f32::from_le_bytes),
            F16 => single(bytes, half),
            Bf16 => single(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Q4_0 => blocks(bytes, q4_0),
            Q4_1 => blocks(bytes, q4_1),
            Q5_0 => blocks(bytes, q5_0),
            Q5_1 => blocks(bytes, q5_1),
            Q8_0 => blocks(bytes, q8_0),
            Q4K => blocks(bytes, q4_k),
            Q5K => blocks(bytes, q5_k),
            Q6K => blocks(bytes, q6_k),
        }
    }
}

fn single<const N: usize>(bytes: &[u8], one: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|chunk| one(*chunk)).collect()
}

fn blocks<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    one: impl Fn(&[u8; BYTES]) -> [f32; VALUES],
) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<BYTES>();
    chunks.iter().flat_map(one).collect()
}

fn half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// The f16 at a byte of a block.
fn half_at(block: &[u8], at: usize) -> f32 {
    half([block[at], block[at + 1]])
}

/// Code `j` of 32 codes of 4 bits: the low halves of 16 bytes, then the high ones.
fn nibble(bytes: &[u8], j: usize) -> u8 {
    (bytes[j % 16] >> (4 * (j / 16))) & 0xf
}

/// Bit `j` of 32 bits, as the fifth of a code.
fn fifth_bit(bytes: &[u8], j: usize) -> u8 {
    ((bytes[j / 8] >> (j % 8)) & 1) << 4
}

fn q4_0(block: &[u8; 18]) -> [f32; 32] {
    let d = half_at(block, 0);
    std::array::from_fn(|j| d * (f32::from(nibble(&block[2..], j)) - 8.0))
}

fn q4_1(block: &[u8; 20]) -> [f32; 32] {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    std::array::from_fn(|j| d * f32::from(nibble(&block[4..], j)) + m)
}

fn q5_0(block: &[u8; 22]) -> [f32; 32] {
    let d = half_at(block, 0);
    std::array::from_fn(|j| d * (f32::from(nibble(&block[6..], j) | fifth_bit(&block[2..6], j)) - 16.0))
}

fn q5_1(block: &[u8; 24]) -> [f32; 32] {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    std::array::from_fn(|j| d * f32::from(nibble(&block[8..], j) | fifth_bit(&block[4..8], j)) + m)
}

fn q8_0(block: &[u8; 34]) -> [f32; 32] {
    let d = half_at(block, 0);
    std::array::from_fn(|j| d * f32::from(block[2 + j].cast_signed()))
}

/// Scale and minimum of group `g`, 6 bits each, of 12 bytes: those of the first four groups stand in the low six
/// bits of bytes 0 to 7; those of the last four have their low four bits in bytes 8 to 11 and their upper two on
/// top of the first eight bytes.
fn scale_and_minimum(packed: &[u8], g: usize) -> [f32; 2] {
    let [scale, minimum] = if g < 4 {
        [packed[g] & 63, packed[g + 4] & 63]
    } else {
        [(packed[g + 4] & 0xf) | ((packed[g - 4] >> 6) << 4), (packed[g + 4] >> 4) | ((packed[g] >> 6) << 4)]
    };
    [f32::from(scale), f32::from(minimum)]
}

/// Code `i` of 256 codes of 4 bits: of every 64 the low halves of 32 bytes, then the high ones.
fn nibble_of_64(bytes: &[u8], i: usize) -> u8 {
    (bytes[32 * (i / 64) + i % 32] >> (4 * (i / 32 % 2))) & 0xf
}

fn q4_k(block: &[u8; 144]) -> [f32; 256] {
    let (d, d_min) = (half_at(block, 0), half_at(block, 2));
    std::array::from_fn(|i| {
        let [scale, minimum] = scale_and_minimum(&block[4..16], i / 32);
        (d * scale) * f32::from(nibble_of_64(&block[16..], i)) - d_min * minimum
    })
}

fn q5_k(block: &[u8; 176]) -> [f32; 256] {
    let (d, d_min) = (half_at(block, 0), half_at(block, 2));
    std::array::from_fn(|i| {
        let [scale, minimum] = scale_and_minimum(&block[4..16], i / 32);
        // The fifth bits of one group stand at the same place of 32 bytes.
        let fifth = ((block[16 + i % 32] >> (i / 32)) & 1) << 4;
        (d * scale) * f32::from(nibble_of_64(&block[48..], i) | fifth) - d_min * minimum
    })
}

fn q6_k(block: &[u8; 210]) -> [f32; 256] {
    let d = half_at(block, 208);
    std::array::from_fn(|i| {
        // Of every 128 codes, each quarter has its low four bits in a half of 64 bytes and its upper two at one
        // place of 32 bytes.
        let (half, quarter, j) = (i / 128, i % 128 / 32, i % 32);
        let low = (block[64 * half + 32 * (quarter % 2) + j] >> (4 * (quarter / 2))) & 0xf;
        let high = (block[128 + 32 * half + j] >> (2 * quarter)) & 3;
        let scale = f32::from(block[192 + i / 16].cast_signed());
        (d * scale) * (f32::from(low | (high << 4)) - 32.0)
    })
}
