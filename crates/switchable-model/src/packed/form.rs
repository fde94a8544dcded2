//! What is packed at which width, and in which numbers.

use quant_kernels::{packed::scales::ScaleFormat, spec::bit_width::BitWidth};

use crate::site_plan::SitePlan;

/// What is packed at which width.
#[derive(Debug, Clone, Copy)]
pub enum PackedForm<'a> {
    /// Each site at the width that a plan gives it; those above 8 bits stay in f32.
    Plan(&'a SitePlan),
    /// Every site at 8 bits, from which a product takes 8, 7, … or 2 bits.
    Nested,
}

/// How a model is packed.
///
/// | option | default |
/// |---|---|
/// | `scale_format` | f32: the values are those of fake quantisation, bit for bit |
/// | `embeddings` | none: as the plan says, and full where codes are nested |
#[derive(Debug, Clone, Copy)]
pub struct PackOptions {
    /// The numbers of the scales. f16 halves their bytes and moves each by up to 2⁻¹¹.
    pub scale_format: ScaleFormat,
    /// The width of all embeddings and output matrices, one scale per row, in the place of what the plan says of
    /// them. Nested codes of 8 bits serve the lower widths too.
    pub embeddings: Option<BitWidth>,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self { scale_format: ScaleFormat::F32, embeddings: None }
    }
}
