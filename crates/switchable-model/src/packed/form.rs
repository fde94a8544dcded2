//! What is packed at which width, and in which numbers.

use std::fmt;
use std::str::FromStr;

use quant_kernels::{packed::scales::ScaleFormat, spec::bit_width::BitWidth};

use crate::site_plan::SitePlan;

/// What is packed at which width.
#[derive(Debug, Clone, Copy)]
pub enum PackedForm<'a> {
    /// Each site at the width that a plan gives it; those above 8 bits stay in f32.
    Plan(&'a SitePlan),
    /// Every site at 8 bits, from which a product takes 8, 7, … or 2 bits. The learned steps of adapters are the
    /// scales of their widths.
    Nested,
}

/// Which scales the lower widths of nested codes have where no step was learned for them. A learned step always is
/// the scale of its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WidthScales {
    /// Those of 8 bits times `2^(8−b)`: a lower width is the highest bits of the codes. Text form
    /// `powers-of-two`.
    #[default]
    PowersOfTwo,
    /// Those that the site's quantiser finds at the width: the levels are nearly those of codes of that width
    /// alone, which is what adapters of the width were trained on. Text form `quantizer`.
    Quantizer,
}

impl fmt::Display for WidthScales {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PowersOfTwo => "powers-of-two",
            Self::Quantizer => "quantizer",
        })
    }
}

impl FromStr for WidthScales {
    type Err = quant_kernels::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "powers-of-two" => Ok(Self::PowersOfTwo),
            "quantizer" => Ok(Self::Quantizer),
            _ => Err(quant_kernels::Error::Text {
                what: "scales of widths",
                got: text.to_owned(),
                expected: "`powers-of-two` or `quantizer`",
            }),
        }
    }
}

/// How a model is packed.
///
/// | option | default |
/// |---|---|
/// | `scale_format` | f32: the values are those of fake quantisation, bit for bit |
/// | `width_scales` | powers of two |
/// | `embeddings` | none: as the plan says, and full where codes are nested |
#[derive(Debug, Clone, Copy)]
pub struct PackOptions {
    /// The numbers of the scales. f16 halves their bytes and moves each by up to 2⁻¹¹.
    pub scale_format: ScaleFormat,
    /// The scales of the lower widths of nested codes.
    pub width_scales: WidthScales,
    /// The width of all embeddings and output matrices, one scale per row, in the place of what the plan says of
    /// them. Nested codes of 8 bits serve the lower widths too.
    pub embeddings: Option<BitWidth>,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self { scale_format: ScaleFormat::F32, width_scales: WidthScales::PowersOfTwo, embeddings: None }
    }
}
