//! Model and questions.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use switchable_quant::data::{Format, NullRule};
use switchable_quant::reader::FolderOptions;
use switchable_quant::reader::model_folder::OwnAdapters;
use switchable_quant::transformer::options::ModelOptions;
use switchable_quant::transformer::span_head::MissingHead;
use switchable_quant::transformer::width_heads::HeadChoice;

use crate::arguments::count::{parse_count, parse_up_to};
use crate::arguments::null_threshold::NullThreshold;
use crate::arguments::reading::ReadingArgs;
use crate::arguments::run::RunArgs;
use crate::ending::usage;
use crate::session::Opening;

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
    /// SQuAD file, v1.1 or v2.0, as JSON or as rows of Hugging Face, or squad to download it; by default
    /// generated questions
    #[arg(long, value_name = "FILE")]
    pub data: Option<String>,
    /// How data files are read.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Answer a question of v2.0 data with nothing where its null score exceeds that of its best span by more
    /// than this; auto (evaluate alone) chooses it on a fifth of the data, which is then not measured
    #[arg(long, value_name = "T|auto", allow_hyphen_values = true)]
    pub null_threshold: Option<NullThreshold>,
    /// Use at most this many questions
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub limit: Option<usize>,
    /// Longest window in tokens; by default the model's positions, at most 384
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub window: Option<usize>,
    /// Windows per batch
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = parse_up_to::<65_536>)]
    pub batch: usize,
}

impl InputArgs {
    /// When questions of these data are answered with nothing: never without the flag.
    ///
    /// # Errors
    ///
    /// When the data are of version 1.1, where each question has an answer, or the threshold is to be chosen.
    pub fn null_rule(&self, format: Format) -> anyhow::Result<NullRule> {
        match (self.null_threshold, format) {
            (Some(_), Format::V1) => {
                bail!("`--null-threshold` is for data of version 2.0: in version 1.1 each question has an answer")
            }
            (Some(NullThreshold::Auto), _) => {
                let chooser = "`evaluate`, which prints the threshold that it chooses";
                Err(usage(format!("`--null-threshold auto` is for {chooser}")))
            }
            // The scores of a model are of this format.
            (Some(NullThreshold::At(threshold)), _) => Ok(NullRule::Threshold(threshold as f32)),
            (None, Format::V2) => {
                eprintln!("no `--null-threshold`: every question of these v2.0 data gets an answer");
                Ok(NullRule::Never)
            }
            (None, Format::V1) => Ok(NullRule::Never),
        }
    }

    /// The model that the flags name, built with some options; without a span head of its own it answers where
    /// adapters brought one.
    pub fn opening(&self, run: &RunArgs, model: ModelOptions) -> Opening<'_> {
        Opening {
            device: run.device,
            model: self.model.as_deref(),
            adapters: self.adapters.as_deref(),
            options: FolderOptions {
                model,
                missing_head: MissingHead::OfAdapters,
                adapters: if self.no_adapter { OwnAdapters::LeftOut } else { OwnAdapters::Used },
            },
            mixed_head: self.span_head,
        }
    }
}
