//! The widths that a search steps down through.

use serde::{Deserialize, Serialize};

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::SwitchableModel;
use switchable_model::sites::Site;

use crate::error::{Error, Result};

/// Precisions in falling order of their widths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ladder {
    rungs: Vec<SitePrecision>,
    embeddings: Option<BitWidth>,
}

impl Ladder {
    /// A ladder for the linear sites, and for embeddings down to a width: its rungs as far as they are above that
    /// width, and the width. `None` leaves embeddings alone.
    ///
    /// # Errors
    ///
    /// When there are fewer than two rungs, or their widths do not fall from each to the next.
    pub fn new(rungs: Vec<SitePrecision>, embeddings: Option<BitWidth>) -> Result<Self> {
        check_falling(&rungs.iter().map(|rung| rung.weights).collect::<Vec<_>>())?;
        Ok(Self { rungs, embeddings })
    }

    /// Where linear sites start.
    pub fn top(&self) -> SitePrecision {
        self.rungs[0]
    }

    /// Where linear sites end at the lowest.
    pub fn bottom(&self) -> SitePrecision {
        self.rungs[self.rungs.len() - 1]
    }

    /// The lowest width of the embeddings; `None` where they are left alone.
    pub fn embeddings(&self) -> Option<BitWidth> {
        self.embeddings
    }

    /// The precisions of the linear sites.
    pub fn rungs(&self) -> &[SitePrecision] {
        &self.rungs
    }

    /// The widths that embeddings can be lowered to.
    pub fn embedding_widths(&self) -> Vec<BitWidth> {
        let Some(lowest) = self.embeddings else { return Vec::new() };
        let above = self.rungs.iter().map(|rung| rung.weights).filter(|&bits| bits > lowest && !bits.is_full());
        above.chain([lowest]).collect()
    }

    /// The precisions that a site steps through.
    pub(crate) fn of<B: QuantBackend, M: SwitchableModel<B>>(&self, model: &M, site: Site) -> Vec<SitePrecision> {
        let rungs: Vec<SitePrecision> = if site.block.is_some() {
            self.rungs.clone()
        } else {
            let widths = self.embedding_widths().into_iter().map(SitePrecision::uniform);
            std::iter::once(SitePrecision::FULL).chain(widths).collect()
        };
        rungs.into_iter().map(|rung| model.precision_for(site, rung)).collect()
    }
}

/// # Errors
///
/// When there are fewer than two widths, or they do not fall from each to the next.
pub fn check_falling(widths: &[BitWidth]) -> Result<()> {
    if widths.len() >= 2 && widths.is_sorted_by(|a, b| a > b) {
        return Ok(());
    }
    let got = widths.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Err(Error::option("ladder", got, "two or more widths, each below the one before, such as 32,8,4"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_that_do_not_fall_are_refused() {
        let widths = |bits: &[u8]| bits.iter().map(|&bits| BitWidth::new(bits).unwrap()).collect::<Vec<_>>();
        for bits in [&[][..], &[8], &[8, 8], &[4, 8], &[32, 4, 6]] {
            let message = check_falling(&widths(bits)).unwrap_err().to_string();
            assert!(message.contains("ladder") && message.contains("32,8,4"), "{bits:?}: {message}");
        }
        assert!(check_falling(&widths(&[32, 8, 2])).is_ok());
    }

    #[test]
    fn embeddings_step_down_to_their_own_width() {
        let rungs = || [32, 8, 4, 2].map(|bits| SitePrecision::uniform(BitWidth::new(bits).unwrap())).to_vec();
        let widths = |lowest: u8| {
            let ladder = Ladder::new(rungs(), Some(BitWidth::new(lowest).unwrap())).unwrap();
            ladder.embedding_widths().into_iter().map(BitWidth::bits).collect::<Vec<_>>()
        };
        assert_eq!(widths(8), [8]);
        assert_eq!(widths(6), [8, 6]);
        assert_eq!(widths(2), [8, 4, 2]);
        assert!(Ladder::new(rungs(), None).unwrap().embedding_widths().is_empty());
    }
}
