//! Widths, and numbers that depend on them.

use std::fmt::Display;
use std::str::FromStr;

use switchable_quant::kernels::BitWidth;

/// A number per width: a default and exceptions, such as `8` or `8,2:16,3:16`.
#[derive(Debug, Clone, PartialEq)]
pub struct PerWidth<T> {
    default: T,
    exceptions: Vec<(BitWidth, T)>,
}

impl<T: Copy> PerWidth<T> {
    /// The number of a width.
    pub fn get(&self, width: BitWidth) -> T {
        self.exceptions.iter().find(|(bits, _)| *bits == width).map_or(self.default, |(_, value)| *value)
    }
}

impl<T: FromStr<Err: Display>> FromStr for PerWidth<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',').map(str::trim);
        let number = |text: &str| text.parse::<T>().map_err(|e| format!("`{text}`: {e}"));
        let default = number(parts.next().unwrap_or_default())?;
        let exceptions = parts.map(|part| {
            let (bits, value) = part.split_once(':').ok_or_else(|| format!("`{part}`, expected BITS:NUMBER"))?;
            Ok((bits.parse().map_err(|e| format!("`{bits}`: {e}"))?, number(value)?))
        });
        Ok(Self { default, exceptions: exceptions.collect::<Result<_, String>>()? })
    }
}

/// Widths separated by commas, such as `32,16,8,4`.
///
/// # Errors
///
/// When one is not a width.
pub fn parse_bits(text: &str) -> Result<Vec<BitWidth>, String> {
    text.split(',').map(|part| part.trim().parse().map_err(|e| format!("{e}"))).collect()
}

/// A mean width in bits: a number above 0 and at most 32.
///
/// # Errors
///
/// When it is none.
pub fn parse_average_bits(text: &str) -> Result<f64, String> {
    let bits: f64 = text.trim().parse().map_err(|e| format!("{e}"))?;
    if bits > 0.0 && bits <= 32.0 { Ok(bits) } else { Err("expected a number of bits above 0 and at most 32".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_widths_are_numbers_above_0() {
        assert_eq!(parse_average_bits("2.5"), Ok(2.5));
        for wrong in ["nan", "NaN", "-1", "0", "inf", "-inf", "33", "", "x"] {
            assert!(parse_average_bits(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_per_width_have_a_default_and_exceptions() {
        let ranks: PerWidth<usize> = "8, 2:16,3:12".parse().unwrap();
        assert_eq!([2, 3, 4, 32].map(|bits| ranks.get(BitWidth::new(bits).unwrap())), [16, 12, 8, 8]);
        for wrong in ["", "x", "8,2", "8,2:x", "8,99:4"] {
            assert!(wrong.parse::<PerWidth<usize>>().is_err(), "{wrong}");
        }
    }
}
