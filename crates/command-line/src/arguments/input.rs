//! Model and questions.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;

use switchable_quant::data::{Format, NullRule};
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::transformer::width_heads::HeadChoice;

use crate::arguments::count::{parse_count, parse_up_to};
use crate::arguments::null_threshold::{NullThreshold, null_rule};
use crate::arguments::reading::ReadingArgs;
use crate::files::{GENERATED, LoadedQuestions, load_questions, load_quietly, resolve_data};
use crate::reported::Reported;

/// Model and questions.
#[derive(Debug, Clone, Args)]
pub struct InputArgs {
    /// Hugging Face folder of a GPT-2 or a Llama, or a name such as openai-community/gpt2 to download;
    /// by default the model that is part of the program
    #[arg(long, value_name = "DIR|NAME", requires = "data")]
    pub model: Option<String>,
    /// Folder of adapters, one sub-folder per width (bits-4, bits-8, …); by default those of the
    /// built-in model, and those in the folder adapters of another model
    #[arg(long, value_name = "DIR", conflicts_with = "no_adapter")]
    pub adapters: Option<PathBuf>,
    /// Use no adapter
    #[arg(long)]
    pub no_adapter: bool,
    /// Head for plans whose adapters came with different span heads: base, or the bits of the adapter that
    /// brought it; by default such plans are refused
    #[arg(long, value_name = "base|BITS")]
    pub span_head: Option<HeadChoice>,
    /// SQuAD file, v1.1 or v2.0, as JSON or as rows of Hugging Face, or squad to download it; generated, and by
    /// default, the questions of the built-in model: in searches those to search on, elsewhere the held-out ones
    #[arg(long, value_name = "FILE")]
    pub data: Option<String>,
    /// How data files are read.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Answer a question of v2.0 data with nothing where its null score exceeds that of its best span by more
    /// than this; auto (evaluate alone) chooses it on whole articles that hold a fifth of the data at
    /// least, which are then not measured
    #[arg(long, value_name = "T|auto", allow_hyphen_values = true)]
    pub null_threshold: Option<NullThreshold>,
    /// Use at most this many questions
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub limit: Option<usize>,
    /// Longest window in tokens; by default the model's positions, at most 384 each time that it holds its context, and at
    /// most 2,048 for prompts
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub window: Option<usize>,
    /// Windows per batch, at most; on a CPU a wide model reads fewer at once, so that no activation of a batch takes
    /// more than 32 MiB
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = parse_up_to::<65_536>)]
    pub batch: usize,
}

/// How a file of questions is read.
type Load = fn(&Path, ReadingArgs) -> anyhow::Result<LoadedQuestions>;

impl InputArgs {
    /// When questions of these data are answered with nothing: never without the flag.
    ///
    /// # Errors
    ///
    /// When the data are of version 1.1, where each question has an answer, or the threshold is to be chosen.
    pub fn null_rule(&self, format: Format) -> anyhow::Result<NullRule> {
        null_rule(self.null_threshold, format)
    }

    /// The questions that the flags name, and what they are called; `set` are the generated ones used without `--data`.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged, or a model is named and no questions.
    pub fn load(&self, set: QuestionSet) -> anyhow::Result<(LoadedQuestions, String)> {
        self.loaded(set, load_questions)
    }

    /// The same as what results are reported on.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn reported(&self, set: QuestionSet) -> anyhow::Result<Reported> {
        let (loaded, name) = self.loaded(set, load_quietly)?;
        Ok(Reported::Questions { name: format!("--data {name}"), dataset: loaded.dataset })
    }

    fn loaded(&self, set: QuestionSet, load: Load) -> anyhow::Result<(LoadedQuestions, String)> {
        let (loaded, data_name) = match &self.data {
            Some(name) if name == GENERATED => (default_model::questions(set)?.into(), format!("generated ({set})")),
            Some(name) => (load(&resolve_data(name)?, self.reading)?, name.clone()),
            None if self.model.is_some() => {
                bail!(
                    "`--model` needs `--data`: the generated questions, `--data generated`, are for the built-in model"
                )
            }
            None => (default_model::questions(set)?.into(), format!("generated ({set})")),
        };
        let loaded: LoadedQuestions = match self.limit {
            Some(limit) => loaded.limited(limit),
            None => loaded,
        };
        Ok((loaded, data_name))
    }
}
