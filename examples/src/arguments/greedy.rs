//! The flags of `greedy_search`.

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};

use switchable_quant::experiments::search::greedy::{Ranking, StopAt, TrialLength, check_tolerance};
use switchable_quant::kernels::{BitWidth, QuantBackend};
use switchable_quant::lora::SitePrecision;
use switchable_quant::reader::ModelFolder;
use switchable_quant::transformer::model::SwitchableModel;

use crate::arguments::widths::parse_average_bits;
use crate::arguments::{input::InputArgs, quant::QuantArgs, run::RunArgs};

/// Sensitivity of every sub-module and greedy bit-width search
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Device, seed, results.
    #[command(flatten)]
    pub run: RunArgs,
    /// Model and questions.
    #[command(flatten)]
    pub input: InputArgs,
    /// The quantiser.
    #[command(flatten)]
    pub quant: QuantArgs,
    /// Width that sites start at
    #[arg(long, default_value = "32", value_name = "BITS")]
    pub high: BitWidth,
    /// Width that sites are flipped to; by default the highest of 4, 3 and 2 bits that costs more
    /// than the noise when it is used everywhere
    #[arg(long, value_name = "BITS")]
    pub bits: Option<BitWidth>,
    /// Share of the starting exact match that may be lost, above 0 and below 1
    #[arg(long, default_value_t = 0.1)]
    pub tolerance: f64,
    /// Stop at this mean width instead of a tolerance
    #[arg(long, value_name = "BITS", conflicts_with = "tolerance", value_parser = parse_average_bits)]
    pub target_bits: Option<f64>,
    /// When the harm of the sites is measured
    #[arg(long, value_enum, default_value = "once")]
    pub ranking: RankingArg,
    /// Use no adapter
    #[arg(long)]
    pub no_adapter: bool,
}

/// When the harm of the sites is measured.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RankingArg {
    /// Each site alone, before the first flip
    Once,
    /// Every site that is left, after each flip
    AfterEachFlip,
}

impl Arguments {
    /// The widths that are tried everywhere before the search: the one asked for, or those of 4, 3 and 2 bits
    /// that the quantiser has.
    pub fn candidates(&self) -> Vec<BitWidth> {
        let has = |bits: &BitWidth| self.quant.quantizer.check(*bits, 2).is_ok();
        let defaults = || [BitWidth::B4, BitWidth::B3, BitWidth::B2].into_iter().filter(has).collect();
        self.bits.map_or_else(defaults, |bits| vec![bits])
    }

    /// Looks at the flags before anything is opened or measured.
    ///
    /// # Errors
    ///
    /// When the tolerance is out of its range, the quantiser has no such width, or the sites could not become
    /// as narrow as they should.
    pub fn check(&self) -> anyhow::Result<()> {
        check_tolerance(self.tolerance)?;
        for bits in [self.high].into_iter().chain(self.bits) {
            self.quant
                .quantizer
                .check(bits, 2)
                .with_context(|| format!("{bits} bits by `{}`", self.quant.quantizer))?;
        }
        let candidates = self.candidates();
        let Some(&narrowest) = candidates.iter().min() else {
            bail!("`--quantizer {}` has none of 4, 3 and 2 bits, expected `--bits`", self.quant.quantizer)
        };
        if let Some(target) = self.target_bits.filter(|target| *target < f64::from(narrowest.bits())) {
            bail!("`--target-bits {target}` is less than the {narrowest} bits that sites are flipped to at most");
        }
        Ok(())
    }

    /// The precision of a width, with the adapter that the model has for it unless none is used.
    pub fn precision<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        folder: &ModelFolder<B, M>,
        bits: BitWidth,
    ) -> SitePrecision {
        let precision = folder.precision(bits);
        if self.no_adapter { precision.without_adapter() } else { precision }
    }

    /// Where the search ends.
    pub fn stop_at(&self) -> StopAt {
        self.target_bits.map_or(StopAt::Tolerance(self.tolerance), StopAt::AverageBits)
    }

    /// When the harm of the sites is measured.
    pub fn ranking(&self) -> Ranking {
        match self.ranking {
            RankingArg::Once => Ranking::Once,
            RankingArg::AfterEachFlip => Ranking::AfterEachFlip,
        }
    }

    /// How far a trial is read. Ranked once, a search has a single flip to undo: it is read to its end, to
    /// show what is lost.
    pub fn trials(&self) -> TrialLength {
        match self.ranking {
            RankingArg::Once => TrialLength::Whole,
            RankingArg::AfterEachFlip => TrialLength::UntilDecided,
        }
    }
}
