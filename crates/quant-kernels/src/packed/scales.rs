//! How scales are stored.
//!
//! ```text
//! f32   4 bytes, little-endian
//! f16   2 bytes, little-endian: s rounded half to even, 6.1·10⁻⁵ ≤ s ≤ 65504
//! ```
//!
//! Below its normal numbers f16 loses digits: 8.9·10⁻⁸ would be 6·10⁻⁸, which clips a third of the range. A
//! rounding keeps all scales of a weight in f32 then, which the format of its scales says; where codes and scales
//! are given, such a scale is refused. A file that holds one is read as it is.

use std::{fmt, str::FromStr};

use half::f16;

use crate::{
    error::{Error, Result},
    packed::storage::Bytes,
    spec::text_form::serde_as_text,
};

/// The number format of the scales of packed weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ScaleFormat {
    /// Half precision: 2 bytes. Text form `f16`.
    #[default]
    F16,
    /// Single precision: 4 bytes. Text form `f32`.
    F32,
}

impl ScaleFormat {
    /// The bytes of one scale.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// The format if it holds all of some scales, else f32, which holds every one.
    pub(crate) fn that_holds(self, scales: &[f32]) -> Self {
        if scales.iter().all(|&scale| self.holds(scale)) { self } else { Self::F32 }
    }

    /// Whether the format has a number next to a positive scale, up to the rounding of its digits.
    fn holds(self, scale: f32) -> bool {
        match self {
            Self::F16 => {
                let rounded = f16::from_f32(scale);
                rounded >= f16::MIN_POSITIVE && rounded.is_finite()
            }
            Self::F32 => true,
        }
    }
}

impl fmt::Display for ScaleFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
        })
    }
}

impl FromStr for ScaleFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f16" => Ok(Self::F16),
            "f32" => Ok(Self::F32),
            _ => Err(Error::Text { what: "scale format", got: text.to_owned(), expected: "`f16` or `f32`" }),
        }
    }
}

serde_as_text!(ScaleFormat);

/// Scales in their stored form. All are positive and finite.
#[derive(Debug, Clone)]
pub(crate) struct Scales {
    format: ScaleFormat,
    bytes: Bytes,
}

impl Scales {
    /// Rounds scales to the format.
    ///
    /// # Errors
    ///
    /// [`Error::PackedScale`] for a scale that is not positive and finite, or that the format does not hold.
    pub(crate) fn store(format: ScaleFormat, scales: &[f32]) -> Result<Self> {
        for (index, &got) in scales.iter().enumerate() {
            check(index, got)?;
            if !format.holds(got) {
                let expected = "a number that f16 holds to 11 bits, 6.1e-5 to 65504; use f32 scales";
                return Err(Error::PackedScale { index, got, expected });
            }
        }
        let bytes = Bytes::build(scales.len() * format.bytes(), |bytes| match format {
            ScaleFormat::F16 => {
                for (bytes, &scale) in bytes.chunks_exact_mut(2).zip(scales) {
                    bytes.copy_from_slice(&f16::from_f32(scale).to_le_bytes());
                }
            }
            ScaleFormat::F32 => {
                for (bytes, &scale) in bytes.chunks_exact_mut(4).zip(scales) {
                    bytes.copy_from_slice(&scale.to_le_bytes());
                }
            }
        });
        Ok(Self { format, bytes })
    }

    /// Takes scales that are stored already.
    ///
    /// # Errors
    ///
    /// [`Error::PackedScale`] for a scale that is not positive and finite.
    pub(crate) fn from_bytes(format: ScaleFormat, bytes: Bytes) -> Result<Self> {
        let scales = Self { format, bytes };
        for index in 0..scales.len() {
            let got = match format {
                ScaleFormat::F16 => f16::from_le_bytes(scales.stored(index)).to_f32(),
                ScaleFormat::F32 => f32::from_le_bytes(scales.stored(index)),
            };
            check(index, got)?;
        }
        Ok(scales)
    }

    /// Checks that the scales times the largest level are numbers.
    ///
    /// # Errors
    ///
    /// [`Error::PackedScale`] for the first that is not.
    pub(crate) fn check_values(&self, largest_level: f32) -> Result<()> {
        let expected = "a scale whose product with every level is finite";
        match self.to_vec().iter().enumerate().find(|(_, scale)| !(*scale * largest_level).is_finite()) {
            Some((index, &got)) => Err(Error::PackedScale { index, got, expected }),
            None => Ok(()),
        }
    }

    pub(crate) fn format(&self) -> ScaleFormat {
        self.format
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.as_slice().len() / self.format.bytes()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    pub(crate) fn get(&self, index: usize) -> f32 {
        let mut scale = [0.0];
        self.read(index, &mut scale);
        scale[0]
    }

    /// All scales as numbers.
    pub(crate) fn to_vec(&self) -> Vec<f32> {
        let mut scales = vec![0.0; self.len()];
        self.read(0, &mut scales);
        scales
    }

    /// Reads consecutive scales from `first` on.
    #[inline(always)]
    pub(crate) fn read(&self, first: usize, scales: &mut [f32]) {
        let size = self.format.bytes();
        let bytes = &self.bytes.as_slice()[first * size..][..scales.len() * size];
        match self.format {
            ScaleFormat::F16 => {
                for (scale, bytes) in scales.iter_mut().zip(bytes.as_chunks().0) {
                    *scale = positive_f16_to_f32(u16::from_le_bytes(*bytes));
                }
            }
            ScaleFormat::F32 => {
                for (scale, bytes) in scales.iter_mut().zip(bytes.as_chunks().0) {
                    *scale = f32::from_le_bytes(*bytes);
                }
            }
        }
    }

    /// Reads 16 consecutive scales from `first` on: [`read`](Self::read) without a loop.
    #[inline(always)]
    pub(crate) fn read_16(&self, first: usize, scales: &mut [f32; 16]) {
        let bytes = self.bytes.as_slice();
        match self.format {
            ScaleFormat::F16 => {
                let bits: [u16; 16] = bytemuck::pod_read_unaligned(&bytes[2 * first..][..32]);
                *scales = bits.map(|bits| positive_f16_to_f32(u16::from_le(bits)));
            }
            ScaleFormat::F32 => {
                let bits: [u32; 16] = bytemuck::pod_read_unaligned(&bytes[4 * first..][..64]);
                *scales = bits.map(|bits| f32::from_bits(u32::from_le(bits)));
            }
        }
    }

    fn stored<const SIZE: usize>(&self, index: usize) -> [u8; SIZE] {
        self.bytes.as_slice().as_chunks().0[index]
    }
}

fn check(index: usize, got: f32) -> Result<()> {
    if got > 0.0 && got.is_finite() {
        return Ok(());
    }
    Err(Error::PackedScale { index, got, expected: "a positive finite number" })
}

/// A positive finite f16 as an f32: the exponent is moved to its place and its bias put right by a
/// product, which is exact and holds for subnormals too. Unlike the general conversion it is plain
/// arithmetic that vectorises on every processor.
#[inline(always)]
fn positive_f16_to_f32(bits: u16) -> f32 {
    const TWO_TO_112: f32 = f32::from_bits((127 + 112) << 23);
    f32::from_bits(u32::from(bits) << 13) * TWO_TO_112
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_positive_f16_is_converted_exactly() {
        for bits in 1..f16::INFINITY.to_bits() {
            let expected = f16::from_bits(bits).to_f32();
            assert_eq!(positive_f16_to_f32(bits).to_bits(), expected.to_bits());
        }
    }

    #[test]
    fn f16_refuses_what_it_cannot_hold_and_f32_takes_it() {
        // The last rounds down to the largest subnormal number.
        for scale in [65520.0, 1e-8, 8.9e-8, 6e-5, 6.1e-5] {
            let error = Scales::store(ScaleFormat::F16, &[1.0, scale]).unwrap_err();
            assert!(matches!(error, Error::PackedScale { index: 1, .. }), "{error}");
            assert!(error.to_string().contains("use f32"), "{error}");
            assert_eq!(Scales::store(ScaleFormat::F32, &[scale]).unwrap().to_vec(), [scale]);
        }
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            for format in [ScaleFormat::F16, ScaleFormat::F32] {
                assert!(Scales::store(format, &[scale]).is_err(), "{scale}");
            }
        }
    }
}
