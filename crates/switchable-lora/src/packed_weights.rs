//! Weights of a layer that are only there packed.
//!
//! ```text
//! fixed     codes of b bits      serve b bits
//! nested    codes of 8 bits      serve 8, 7, …, 2 bits: each rounds them by its own scales, such as learned
//!                                steps, or rounds their lower bits away
//! ```

use std::iter;

use burn::tensor::{Tensor, backend::Backend, f16};

use quant_kernels::{
    packed::{nested::NestedTensor, packed_tensor::PackedTensor, packed_view::PackedView, scales::ScaleFormat},
    spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity, quant_spec::QuantSpec},
    tensor::learned_step::LearnedStep,
};

use crate::error::{Error, Result};

/// Weights of a layer that are only there packed: no float copy is resident.
#[derive(Debug, Clone)]
pub enum PackedWeights {
    /// At one width.
    Fixed(PackedTensor),
    /// At 8 bits, and from there at every lower width down to 2.
    Nested(NestedTensor),
}

impl PackedWeights {
    /// `[d_in, d_out]`.
    pub fn shape(&self) -> [usize; 2] {
        self.stored().shape()
    }

    /// The codes and scales that are kept.
    pub fn stored(&self) -> &PackedTensor {
        match self {
            Self::Fixed(tensor) => tensor,
            Self::Nested(nested) => nested.tensor(),
        }
    }

    /// The quantiser that the codes were made by. They do not tell how its ranges were found: that is
    /// taken from `named`.
    pub fn quantizer(&self, named: QuantSpec) -> QuantSpec {
        let spec = self.stored().spec();
        QuantSpec { granularity: spec.granularity, format: spec.format, range: named.range }
    }

    /// Resident bytes of codes, scales and zero points.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Fixed(tensor) => tensor.bytes(),
            Self::Nested(nested) => nested.bytes(),
        }
    }

    /// Whether a width has scales of its own beside those of the codes. They may have been learned or found by
    /// a quantiser: codes do not tell.
    pub fn has_own_scales(&self, bits: BitWidth) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Nested(nested) => nested.own_widths().any(|width| width == bits),
        }
    }

    /// The scales at a width where they are those of the codes or its own; `None` where they are multiples of
    /// those of another width, or the width is not there.
    fn scales(&self, bits: BitWidth) -> Option<(Vec<f32>, ScaleFormat)> {
        match self {
            _ if bits == self.stored().bits() => Some((self.stored().scales(), self.stored().scale_format())),
            Self::Nested(nested) if self.has_own_scales(bits) => nested.scales(bits).ok(),
            _ => None,
        }
    }

    /// The widths at which products can be computed, in rising order.
    pub fn widths(&self) -> Vec<BitWidth> {
        match self {
            Self::Fixed(tensor) => vec![tensor.bits()],
            Self::Nested(_) => {
                BitWidth::quantised().filter(|bits| (BitWidth::B2..=BitWidth::B8).contains(bits)).collect()
            }
        }
    }

    /// Checks that the scales at the width of a learned step are that step. Codes that have no form at that width
    /// fit any step: they refuse the width.
    ///
    /// # Errors
    ///
    /// [`Error::PackedStep`].
    pub(crate) fn check_step<B: Backend>(&self, step: &LearnedStep<B>) -> Result<()> {
        let bits = step.bits();
        if !self.widths().contains(&bits) {
            return Ok(());
        }
        let spec = self.stored().spec();
        let same = |(scales, format): (Vec<f32>, ScaleFormat)| {
            let rounded = |step: f32| match format {
                ScaleFormat::F32 => step.abs(),
                ScaleFormat::F16 => f16::from_f32(step.abs()).to_f32(),
            };
            let mut steps = floats(step.step.val()).into_iter().map(rounded);
            match step.granularity() {
                granularity if granularity == spec.granularity => steps.eq(scales),
                // One step for all of a finer memory.
                Granularity::PerTensor => {
                    let all = |step| iter::repeat_n(step, scales.len());
                    steps.next().is_some_and(|step| scales.iter().copied().eq(all(step)))
                }
                _ => false,
            }
        };
        if spec.format == Format::Symmetric && self.scales(bits).is_some_and(same) {
            Ok(())
        } else {
            Err(Error::PackedStep { bits, expected: "codes that were packed by that step" })
        }
    }

    /// The weights at a width.
    ///
    /// # Errors
    ///
    /// [`Error::PackedWidth`] if the width is not one of [`widths`](Self::widths).
    pub fn at(&self, bits: BitWidth) -> Result<PackedView<'_>> {
        let missing = || Error::PackedWidth { bits, available: self.widths() };
        match self {
            Self::Fixed(tensor) if tensor.bits() == bits => Ok(tensor.view()),
            Self::Fixed(_) => Err(missing()),
            Self::Nested(nested) => nested.at(bits).map_err(|_| missing()),
        }
    }
}

fn floats<B: Backend>(tensor: Tensor<B, 2>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}
