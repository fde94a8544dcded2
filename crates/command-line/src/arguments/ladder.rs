//! The flags of a search down a ladder of widths.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use switchable_quant::experiments::search::greedy::StopAt;
use switchable_quant::experiments::search::ladder::rungs::check_falling;
use switchable_quant::kernels::{BitWidth, QuantSpec};

use crate::arguments::widths::parse_average_bits;
use crate::ending::usage;

/// A ladder of widths, and where its search ends beside a tolerance and a mean width.
#[derive(Debug, Clone, Args)]
pub struct LadderArgs {
    /// Search down a ladder of widths instead, one site and one rung at a time, such as 32,8,6,4,3,2: two rungs are
    /// the search of `--high` and `--bits`
    #[arg(long, value_delimiter = ',', value_name = "BITS,...", conflicts_with_all = ["high", "bits", "ranking"])]
    pub ladder: Vec<BitWidth>,
    /// Measure what a ladder's first steps cost instead of estimating it
    #[arg(long, requires = "ladder")]
    pub exact: bool,
    /// Stop a ladder at this many bits per weight, scales and adapters included, instead of a tolerance
    #[arg(
        long,
        value_name = "BITS",
        requires = "ladder",
        conflicts_with_all = ["tolerance", "target_bits", "site_bytes"],
        value_parser = parse_average_bits
    )]
    pub average_bits: Option<f64>,
    /// Stop a ladder at this many bytes of all sites, scales and adapters included, instead of a tolerance
    #[arg(long, value_name = "BYTES", requires = "ladder", conflicts_with_all = ["tolerance", "target_bits"])]
    pub site_bytes: Option<usize>,
    /// Plans to set beside that of a ladder on the held-out questions, such as those of `allocate`
    #[arg(long, value_delimiter = ',', value_name = "FILE,...", requires = "ladder", conflicts_with = "data")]
    pub compare_with: Vec<PathBuf>,
}

impl LadderArgs {
    /// Checks the widths, and a mean width that the search is to end at.
    ///
    /// # Errors
    ///
    /// When the widths do not fall from each to the next, the quantiser lacks one, or the mean width is not between
    /// the lowest and the highest.
    pub fn check(&self, quantizer: &QuantSpec, target_bits: Option<f64>) -> anyhow::Result<()> {
        check_falling(&self.ladder)?;
        let [high, .., low] = self.ladder.as_slice() else { return Ok(()) };
        for bits in &self.ladder {
            quantizer.check(*bits, 2).with_context(|| format!("--ladder: {bits} bits by `{quantizer}`"))?;
        }
        match target_bits {
            Some(target) if !(f64::from(low.bits())..f64::from(high.bits())).contains(&target) => Err(usage(format!(
                "`--target-bits` is {target}, expected {low} to less than {high}, the widths of `--ladder`"
            ))),
            _ => Ok(()),
        }
    }

    /// A flag that says nothing where no ladder is searched.
    pub fn given_without_a_ladder(&self) -> Option<&'static str> {
        let given = [
            (self.exact, "--exact"),
            (self.average_bits.is_some(), "--average-bits"),
            (self.site_bytes.is_some(), "--site-bytes"),
            (!self.compare_with.is_empty(), "--compare-with"),
        ];
        given.into_iter().find(|(is_given, _)| *is_given).map(|(_, flag)| flag)
    }

    /// Where the search ends, of a model with so many weights in what it may change.
    pub fn stop_at(&self, parameters: usize, otherwise: StopAt) -> StopAt {
        let of_bits = self.average_bits.map(|bits| (parameters as f64 * bits / 8.0) as usize);
        self.site_bytes.or(of_bits).map_or(otherwise, StopAt::SiteBytes)
    }
}
