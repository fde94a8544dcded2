//! The flags of `greedy_search`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};

use switchable_quant::data::Dataset;
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::experiments::search::greedy::{Ranking, StopAt, TrialLength, check_tolerance};
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::reader::Accuracy;
use switchable_quant::reader::evaluation::question_task::QuestionTask;
use switchable_quant::transformer::model::TrainableModel;

use crate::arguments::widths::parse_average_bits;
use crate::arguments::{
    activations::ActivationArgs,
    answers::{AnswerArgs, Asking},
    input::InputArgs,
    items::ItemArgs,
    ladder::LadderArgs,
    quant::QuantArgs,
    run::RunArgs,
};
use crate::ending::usage;
use crate::reported::Reported;
use crate::session::{Questions, Session};

/// Sensitivity of every sub-module and greedy bit-width search
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Device, seed, results.
    #[command(flatten)]
    pub run: RunArgs,
    /// Model and questions.
    #[command(flatten)]
    pub input: InputArgs,
    /// How questions are answered.
    #[command(flatten)]
    pub answers: AnswerArgs,
    /// The quantiser.
    #[command(flatten)]
    pub quant: QuantArgs,
    /// Activations.
    #[command(flatten)]
    pub activations: ActivationArgs,
    /// Width that sites start at
    #[arg(long, default_value = "32", value_name = "BITS")]
    pub high: BitWidth,
    /// Width that sites are flipped to; by default the highest of 4, 3 and 2 bits that costs more
    /// than the noise when it is used everywhere
    #[arg(long, value_name = "BITS")]
    pub bits: Option<BitWidth>,
    /// Width that embeddings and the output matrix are flipped to, as sites of the search like the others; by
    /// default they stay at full precision
    #[arg(long, value_name = "BITS")]
    pub embedding_bits: Option<BitWidth>,
    /// Folder of an artefact to write with the plan found, where a ladder is searched too with that of the ladder: a new name,
    /// or an artefact that it takes the place of
    #[arg(long, value_name = "DIR")]
    pub pack: Option<PathBuf>,
    /// Share of the starting exact match that may be lost, above 0 and below 1
    #[arg(long, default_value_t = 0.1)]
    pub tolerance: f64,
    /// Stop at this mean width instead of a tolerance
    #[arg(long, value_name = "BITS", conflicts_with = "tolerance", value_parser = parse_average_bits)]
    pub target_bits: Option<f64>,
    /// When the harm of the sites is measured
    #[arg(long, value_enum, default_value = "once")]
    pub ranking: RankingArg,
    /// A ladder of widths.
    #[command(flatten)]
    pub ladder: LadderArgs,
    /// The work as items.
    #[command(flatten)]
    pub items: ItemArgs,
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
    /// Checks the widths and the end of the search before anything is opened or measured.
    ///
    /// # Errors
    ///
    /// When the tolerance is outside (0, 1), no width is below the one that sites start at, or the mean width
    /// asked for is not between the two.
    pub fn check(&self) -> anyhow::Result<()> {
        check_tolerance(self.tolerance)?;
        self.answers.check_with(&self.input)?;
        let (high, quantizer) = (self.high, self.quant.quantizer);
        if !self.ladder.ladder.is_empty() {
            if let Some(flag) = self.items.given() {
                return Err(usage(format!(
                    "`{flag}` does not go with `--ladder`: each step of such a search hangs on the one before, and none is an \
                     item of its own"
                )));
            }
            return self.ladder.check(&quantizer, self.target_bits);
        }
        if let Some(flag) = self.ladder.given_without_a_ladder() {
            return Err(usage(format!("`{flag}` is of a search down a ladder: name its widths by `--ladder`")));
        }
        for bits in [high].into_iter().chain(self.bits) {
            quantizer.check(bits, 2).with_context(|| format!("{bits} bits by `{quantizer}`"))?;
        }
        if let Some(bits) = self.bits
            && bits >= high
        {
            return Err(usage(format!("`--bits` is {bits}, expected fewer bits than `--high`, which is {high}")));
        }
        if let Some(target) = self.target_bits {
            let low = self.bits.unwrap_or(BitWidth::B2);
            if !(f64::from(low.bits())..f64::from(high.bits())).contains(&target) {
                return Err(usage(format!(
                    "`--target-bits` is {target}, expected {low} to less than {high}, the widths of the sites"
                )));
            }
        }
        if self.candidates().is_empty() {
            return Err(usage(format!(
                "none of 4, 3 and 2 bits is below `--high {high}` and one that `{quantizer}` has; name `--bits`"
            )));
        }
        Ok(())
    }

    /// The widths that are tried everywhere before the search: the one asked for, or those of 4, 3 and 2 bits
    /// that the quantiser has, that are below the high one and reach the mean width asked for.
    pub fn candidates(&self) -> Vec<BitWidth> {
        let reaches = |bits: &BitWidth| self.target_bits.is_none_or(|target| f64::from(bits.bits()) <= target);
        let has = |bits: &BitWidth| *bits < self.high && reaches(bits) && self.quant.quantizer.check(*bits, 2).is_ok();
        let defaults = || [BitWidth::B4, BitWidth::B3, BitWidth::B2].into_iter().filter(has).collect();
        self.bits.map_or_else(defaults, |bits| vec![bits])
    }

    /// Whether the built-in model is searched as it comes: then a search down a ladder follows.
    pub fn is_main_job(&self) -> bool {
        let is_default = self.input.model.is_none() && self.input.data.is_none() && self.input.adapters.is_none();
        let is_as_it_comes = self.bits.is_none() && self.target_bits.is_none() && self.embedding_bits.is_none();
        is_default && is_as_it_comes && self.high.is_full() && !self.answers.generates()
    }

    /// The questions that are searched on, and how they are asked.
    ///
    /// # Errors
    ///
    /// As [`Session::questions_as`].
    pub fn searched<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        session: &Session<B, M>,
    ) -> anyhow::Result<(Questions<QuestionTask>, Asking<'_>)> {
        session.questions_as(&self.answers, &self.input, self.run.seed, QuestionSet::Search, &[])
    }

    /// What results are reported on: the questions of the search, and the held-out ones where these are reported too.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged.
    pub fn reported(&self) -> anyhow::Result<Vec<Reported>> {
        let mut reported = vec![self.input.reported(QuestionSet::Search)?];
        if self.input.data.is_none() {
            reported.push(Reported::Questions { name: "the held-out questions".into(), dataset: self.held_out()? });
        }
        Ok(reported)
    }

    /// The held-out questions of the built-in model: as many as are searched on where answers are written, a token at a
    /// time.
    ///
    /// # Errors
    ///
    /// Never, unless the program is damaged.
    pub fn held_out(&self) -> anyhow::Result<Dataset> {
        let all = default_model::questions(QuestionSet::HeldOut)?;
        Ok(match self.input.limit {
            Some(limit) if self.answers.generates() => all.limited(limit),
            _ => all,
        })
    }

    /// Refuses a tolerance where no answer is right: every step would be undone.
    ///
    /// # Errors
    ///
    /// The flag by which such a model is searched.
    pub fn check_something_to_lose(&self, reference: &Accuracy) -> anyhow::Result<()> {
        if reference.exact_match > 0.0 || !matches!(self.stop_at(), StopAt::Tolerance(_)) {
            return Ok(());
        }
        let by_size = if self.ladder.ladder.is_empty() { "--target-bits" } else { "--average-bits" };
        bail!(
            "none of {} questions is answered exactly where the search starts, so that a tolerance has nothing to lose and \
             every step would be undone: search for a size by `{by_size}`",
            reference.n
        )
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(flags: &str) -> Option<String> {
        match Arguments::try_parse_from(["greedy_search"].into_iter().chain(flags.split_whitespace())) {
            Ok(arguments) => arguments.check().err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    #[test]
    fn widths_and_sizes_that_no_search_can_reach_are_refused_before_it() {
        for (flags, expected) in [
            ("--bits 32 --high 4", "`--bits` is 32, expected fewer bits than `--high`, which is 4"),
            ("--bits 4 --high 4", "`--bits` is 4, expected fewer bits than `--high`, which is 4"),
            ("--target-bits 32", "`--target-bits` is 32, expected 2 to less than 32"),
            ("--bits 3 --target-bits 2.5", "`--target-bits` is 2.5, expected 3 to less than 32"),
            ("--target-bits 1.5", "`--target-bits` is 1.5, expected 2 to less than 32"),
            ("--high 2", "none of 4, 3 and 2 bits is below `--high 2`"),
            ("--tolerance 1", "tolerance"),
            ("--ladder 8", "ladder"),
            ("--ladder 4,8", "ladder` is 4,8, expected two or more widths, each below the one before"),
            ("--ladder 32,8,8", "ladder` is 32,8,8"),
            ("--ladder 32,1", "--ladder: 1 bits"),
            ("--ladder 32,40", "--ladder"),
            ("--ladder 32,4 --target-bits 3", "`--target-bits` is 3, expected 4 to less than 32"),
            ("--ladder 32,4 --bits 4", "cannot be used with"),
            ("--ladder 32,4 --average-bits 4 --tolerance 0.2", "cannot be used with"),
            ("--ladder 32,4 --items", "`--items` does not go with `--ladder`"),
            ("--ladder 32,4 --merge", "`--merge` does not go with `--ladder`"),
            ("--merge --items", "cannot be used with"),
            ("--average-bits 4", "--ladder"),
            ("--exact", "--ladder"),
        ] {
            let error = refused(flags).expect(flags);
            assert!(error.contains(expected), "{flags}: {error}");
        }
        for flags in [
            "",
            "--bits 2",
            "--bits 8 --high 16",
            "--target-bits 2",
            "--bits 3 --target-bits 3",
            "--ladder 32,8,4,2 --average-bits 3",
        ] {
            assert_eq!(refused(flags), None, "{flags}");
        }
    }

    #[test]
    fn a_ladder_follows_where_the_built_in_model_is_searched_as_it_comes() {
        let is_main_job = |flags: &str| {
            let flags = ["greedy_search"].into_iter().chain(flags.split_whitespace());
            Arguments::try_parse_from(flags).unwrap().is_main_job()
        };
        for flags in ["", "--limit 60", "--tolerance 0.2 --out a"] {
            assert!(is_main_job(flags), "{flags}");
        }
        for flags in ["--bits 3", "--high 8", "--target-bits 4", "--embedding-bits 8", "--data generated"] {
            assert!(!is_main_job(flags), "{flags}");
        }
    }

    #[test]
    fn widths_tried_are_those_from_which_the_size_can_be_reached() {
        let candidates = |flags: &str| {
            let flags = ["greedy_search"].into_iter().chain(flags.split_whitespace());
            let bits = Arguments::try_parse_from(flags).unwrap().candidates().into_iter().map(BitWidth::bits);
            bits.collect::<Vec<_>>()
        };
        assert_eq!(candidates(""), [4, 3, 2]);
        assert_eq!(candidates("--high 4"), [3, 2]);
        assert_eq!(candidates("--target-bits 3.5"), [3, 2]);
        assert_eq!(candidates("--quantizer per-channel,nf4"), [4]);
    }
}
