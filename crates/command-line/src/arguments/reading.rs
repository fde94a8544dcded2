//! How data files are read that are not quite as they should be.

use clap::Args;

use switchable_quant::data::{BadAnswers, ReadOptions, Realign, UnknownFields};

/// How data files are read that are not quite as they should be.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ReadingArgs {
    /// Pass over fields of data files that no SQuAD file has
    #[arg(long)]
    pub ignore_unknown_fields: bool,
    /// Leave out answers that do not stand at their offsets (in characters), and questions without another
    #[arg(long)]
    pub skip_bad_answers: bool,
    /// Move answers that do not stand at their offsets to where their text stands, if in one place only
    #[arg(long)]
    pub realign: bool,
}

impl ReadingArgs {
    /// The options that the flags name.
    pub fn options(self) -> ReadOptions {
        ReadOptions {
            unknown_fields: if self.ignore_unknown_fields { UnknownFields::Ignore } else { UnknownFields::Reject },
            bad_answers: if self.skip_bad_answers { BadAnswers::Skip } else { BadAnswers::Refuse },
            realign: if self.realign { Realign::WhereOnce } else { Realign::Never },
        }
    }
}
