//! The scales of a width of nested weights.

#[cfg(feature = "cube")]
use std::sync::{Arc, OnceLock};

use crate::{
    packed::{
        packed_spec::PackedSpec,
        packed_tensor::{PackedTensor, pack},
        scales::Scales,
        storage::Bytes,
        tiles::ratios::{ratio, scaled_code},
    },
    spec::bit_width::BitWidth,
};

/// The scales of a width below 8 bits, in the shape of those of 8 bits. Clones share what they hold.
#[derive(Debug, Clone)]
pub(crate) struct OwnScales {
    pub(crate) bits: BitWidth,
    pub(crate) scales: Scales,
    /// The weights at the width, for devices whose kernels do not cut by ratios: made by the first product there.
    #[cfg(feature = "cube")]
    slice: Arc<OnceLock<PackedTensor>>,
}

impl OwnScales {
    pub(crate) fn new(bits: BitWidth, scales: Scales) -> Self {
        Self {
            bits,
            scales,
            #[cfg(feature = "cube")]
            slice: Arc::default(),
        }
    }

    /// The weights at the width, as a tensor of their own.
    pub(crate) fn slice(&self, source: &PackedTensor) -> PackedTensor {
        let bits = self.bits.bits();
        let spec = PackedSpec { bits: self.bits, scale_format: self.scales.format(), ..source.spec };
        let pairs = source.scales().into_iter().zip(self.scales.to_vec());
        let ratios: Vec<i16> = pairs.map(|(eight, own)| ratio(bits, eight, own)).collect();
        let code = |row, column| scaled_code(bits, source.code(row, column), ratios[spec.scale_index(row, column)]);
        PackedTensor::of_parts(spec, pack(&spec, &[], code), self.scales.clone(), Bytes::build(0, |_| ()))
    }

    /// [`slice`](Self::slice), which is kept.
    #[cfg(feature = "cube")]
    pub(crate) fn kept_slice(&self, source: &PackedTensor) -> &PackedTensor {
        self.slice.get_or_init(|| self.slice(source))
    }
}
