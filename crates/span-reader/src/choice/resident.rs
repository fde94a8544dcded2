//! One memory for all widths against one model for each.
//!
//! ```text
//! nested      codes of 8 bits and their scales, once
//! separate    Σ over the widths of codes at that width and their scales; 4 bytes per weight above 8
//! ```

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use quant_kernels::{
    backends::quant_backend::QuantBackend, packed::scales::ScaleFormat, spec::bit_width::BitWidth,
    tensor::rounding::Rounding,
};
use switchable_model::config::ModelConfig;
use switchable_model::model::SwitchableModel;
use switchable_model::packed::PackModel;
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::{Error, Result};

/// Resident bytes, counted from the tensors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResidentBytes {
    /// The sites of the model at hand.
    pub sites: usize,
    /// The sites packed for each width alone.
    pub per_width: BTreeMap<BitWidth, usize>,
    /// The sites in f32.
    pub sites_f32: usize,
    /// All that is not a linear site: one copy serves all widths, and every separate model has one.
    pub rest: usize,
    /// All adapters of the model at hand; the separate models share them out.
    pub adapters: usize,
}

impl ResidentBytes {
    /// Counts a model, and packs its weights at each width to count them.
    ///
    /// # Errors
    ///
    /// When there is no width, or a site cannot be packed at one.
    pub fn measure<B: QuantBackend, M: SwitchableModel<B>>(
        model: &ForQuestionAnswering<B, M>,
        widths: &[BitWidth],
    ) -> Result<Self> {
        if widths.is_empty() {
            return Err(Error::option("widths", "empty", "at least one width"));
        }
        let body = &model.transformer;
        let sites_f32 = body.config().site_parameters() * size_of::<f32>();
        let packed = |bits: BitWidth| {
            if bits > BitWidth::B8 {
                return Ok((bits, sites_f32));
            }
            let bytes = body.sites().iter().map(|site| {
                let layer = body.site(site);
                let nearest = Rounding::Nearest { bits, spec: layer.settings().weight };
                Ok(nearest.pack(&layer.weight(), ScaleFormat::F32)?.bytes())
            });
            Ok((bits, bytes.sum::<Result<usize>>()?))
        };
        let all: usize =
            model.named_parameters().iter().map(|(_, parameter)| parameter.shape().iter().product::<usize>()).sum();
        let unpacked: usize = body
            .sites()
            .iter()
            .filter(|&site| body.site(site).packed_weights().is_none())
            .map(|site| body.sites().parameters(site))
            .chain(
                body.sites()
                    .embeddings()
                    .filter_map(|site| Some(body.embedding_site(site).param()?.val().shape().num_elements())),
            )
            .sum();
        let adapters = body.sites().iter().flat_map(|site| {
            let layer = body.site(site);
            layer.bank().iter().map(|(_, pair)| pair.rank() * (layer.d_in() + layer.d_out()) * size_of::<f32>())
        });
        Ok(Self {
            sites: body.site_bytes(),
            per_width: widths.iter().map(|&bits| packed(bits)).collect::<Result<_>>()?,
            sites_f32,
            rest: (all - unpacked) * size_of::<f32>() + body.embedding_bytes(),
            adapters: adapters.sum(),
        })
    }

    /// The whole model at hand.
    pub fn whole(&self) -> usize {
        self.sites + self.rest + self.adapters
    }

    /// One whole model for each width.
    pub fn separate(&self) -> usize {
        self.per_width.values().sum::<usize>() + self.per_width.len() * self.rest + self.adapters
    }
}

/// The sites: one memory, one for each width, floats.
impl fmt::Display for ResidentBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nested, apart, wide) = (self.sites, self.per_width.values().sum::<usize>(), self.sites_f32);
        write!(f, "matrices: {nested} bytes for all widths, {apart} apart, {wide} in f32")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sites_are_one_line() {
        let per_width = [(BitWidth::B2, 30), (BitWidth::B8, 100)].into();
        let resident = ResidentBytes { sites: 101, per_width, sites_f32: 400, rest: 7, adapters: 9 };
        assert_eq!(resident.to_string(), "matrices: 101 bytes for all widths, 130 apart, 400 in f32");
    }
}
