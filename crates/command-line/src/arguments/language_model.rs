//! A language model that training starts from, and how it is trained.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use switchable_quant::data::{BpeConfig, SpecialTokens, TextFiles, TextTokenizer};
use switchable_quant::experiments::train::config::TrainConfig;
use switchable_quant::experiments::train::schedule::Schedule;
use switchable_quant::kernels::QuantBackend;
use switchable_quant::lora::{BasePolicy, LinearSettings};
use switchable_quant::model::{Activation, Gpt2, Gpt2Config};
use switchable_quant::reader::model_folder::open_tokenizer;
use switchable_quant::transformer::initial::InitialWeights;
use switchable_quant::transformer::model_weights::ModelWeights as _;
use switchable_quant::transformer::options::ModelOptions;

use crate::arguments::count::parse_up_to;
use crate::arguments::further_devices::FurtherDevicesArgs;
use crate::ending::usage;
use crate::files::{resolve_model, resolve_tokenizer};
use crate::outln;

/// Running text.
#[derive(Debug, Clone, Args)]
pub struct TextArgs {
    /// Text files to train on, .txt or .txt.zst
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub text: Vec<PathBuf>,
    /// Text files to measure on afterwards
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub validation: Vec<PathBuf>,
    /// Tokens of the validation text that are used
    #[arg(long, default_value_t = 200_000)]
    pub validation_tokens: usize,
}

/// The language model that training starts from.
#[derive(Debug, Clone, Args)]
pub struct LanguageModelArgs {
    /// Folder or name of a model whose tokenizer is used; by default one is trained
    #[arg(long, value_name = "DIR|NAME")]
    pub tokenizer: Option<String>,
    /// Tokens of a trained tokenizer
    #[arg(long, default_value_t = 8192, value_parser = parse_up_to::<16_777_216>)]
    pub vocabulary: usize,
    /// Documents that a tokenizer is trained on
    #[arg(long, default_value_t = 2000)]
    pub tokenizer_documents: usize,
    /// Go on from this model instead of from random weights; the shape is then the model's
    #[arg(long, value_name = "DIR|NAME", conflicts_with_all = OF_NEW_MODELS)]
    pub model: Option<String>,
    /// Blocks
    #[arg(long, default_value_t = 12, value_parser = parse_up_to::<1_024>)]
    pub layers: usize,
    /// Width of the residual stream
    #[arg(long, default_value_t = 128, value_parser = parse_up_to::<65_536>)]
    pub embedding: usize,
    /// Attention heads
    #[arg(long, default_value_t = 4, value_parser = parse_up_to::<1_024>)]
    pub heads: usize,
    /// Longest input in tokens
    #[arg(long, default_value_t = 256, value_parser = parse_up_to::<1_048_576>)]
    pub positions: usize,
    /// Activation of the MLP, as config.json names it
    #[arg(long, default_value = "gelu_new")]
    pub activation: String,
    /// Standard deviation of random weights
    #[arg(long, default_value_t = 0.02)]
    pub initializer_range: f64,
    /// Let queries and keys start equal (arXiv:2305.09828), which helps small models
    #[arg(long)]
    pub matching: bool,
    /// How often a window of questions holds its context: read twice, what stands behind a token is known
    #[arg(long, default_value_t = 1, value_parser = parse_up_to::<8>)]
    pub context_reads: usize,
}

/// What says how a model starts that is not read from a folder.
const OF_NEW_MODELS: [&str; 11] = [
    "tokenizer",
    "vocabulary",
    "tokenizer_documents",
    "layers",
    "embedding",
    "heads",
    "positions",
    "activation",
    "initializer_range",
    "matching",
    "context_reads",
];

/// How a language model is trained.
#[derive(Debug, Clone, Args)]
pub struct LanguageTrainingArgs {
    /// Tokens per window; by default the model's positions
    #[arg(long)]
    pub window: Option<usize>,
    /// Optimiser steps
    #[arg(long, default_value_t = 1000)]
    pub steps: usize,
    /// Windows per optimiser step
    #[arg(long, default_value_t = 32, value_parser = parse_up_to::<65_536>)]
    pub batch: usize,
    /// Parts that a batch is cut into, computed at once as far as there are workers
    #[arg(long, default_value_t = 2, value_parser = parse_up_to::<65_536>)]
    pub micro_batches: usize,
    /// Devices that share the parts of a step
    #[command(flatten)]
    pub further: FurtherDevicesArgs,
    /// Highest learning rate
    #[arg(long, default_value_t = 1e-3)]
    pub learning_rate: f64,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 200)]
    pub checkpoint_every: usize,
}

impl TextArgs {
    /// The text to train on.
    ///
    /// # Errors
    ///
    /// When a file is missing, or is no text.
    pub fn training(&self) -> anyhow::Result<TextFiles> {
        Ok(TextFiles::new(&self.text)?)
    }

    /// The text to measure on afterwards, if any.
    ///
    /// # Errors
    ///
    /// When a file is missing, or is no text.
    pub fn validation(&self) -> anyhow::Result<Option<TextFiles>> {
        Ok((!self.validation.is_empty()).then(|| TextFiles::new(&self.validation)).transpose()?)
    }
}

impl LanguageModelArgs {
    /// The model with its tokenizer, both trainable; what is new is made from `files` and `seed`.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged, or the numbers do not fit together.
    pub fn start<B: QuantBackend>(
        &self,
        files: &TextFiles,
        seed: u64,
        device: &B::Device,
    ) -> anyhow::Result<(Gpt2<B>, TextTokenizer)> {
        let initial = if self.matching { InitialWeights::Matching } else { InitialWeights::Published };
        let linear = LinearSettings { base: BasePolicy::Trainable, ..LinearSettings::default() };
        let options = ModelOptions { linear, initial, ..ModelOptions::default() };
        if let Some(name) = &self.model {
            let dir = resolve_model(name)?;
            return Ok((Gpt2::load(&dir, &options, device)?, open_tokenizer(&dir)?));
        }
        let tokenizer = self.tokenizer(files)?;
        let mut shape = self.shape(tokenizer.vocab_size())?;
        let special = SpecialTokens::of(&tokenizer)?;
        shape.kept = shape.kept.with("eos_token_id", special.end).with("pad_token_id", special.pad);
        Ok((Gpt2::random(&shape, &options, seed, device)?, tokenizer))
    }

    fn tokenizer(&self, files: &TextFiles) -> anyhow::Result<TextTokenizer> {
        if let Some(name) = &self.tokenizer {
            return Ok(open_tokenizer(resolve_tokenizer(name)?)?);
        }
        let texts: Vec<String> = files.documents().take(self.tokenizer_documents).collect::<Result<_, _>>()?;
        outln!("training a tokenizer of {} tokens on {} documents", self.vocabulary, texts.len());
        let config = BpeConfig { vocab_size: self.vocabulary, ..BpeConfig::default() };
        Ok(TextTokenizer::train_bpe(texts, &config)?)
    }

    fn shape(&self, vocabulary: usize) -> anyhow::Result<Gpt2Config> {
        let activation = serde_json::from_value::<Activation>(json!(self.activation))
            .map_err(|error| usage(format!("`--activation {}`: {error}", self.activation)))?;
        let shape = Gpt2Config::new(vocabulary, self.positions, self.embedding, self.layers, self.heads);
        let shape = shape.with_activation(activation).with_initializer_range(self.initializer_range);
        Ok(Gpt2Config { context_reads: self.context_reads, ..shape })
    }
}

impl LanguageTrainingArgs {
    /// The training that the flags name.
    pub fn config(&self, seed: u64) -> TrainConfig {
        TrainConfig {
            steps: self.steps,
            batch_size: self.batch,
            micro_batches: self.micro_batches,
            schedule: Schedule { peak: self.learning_rate, final_share: 0.1, ..Schedule::default() },
            seed,
            checkpoint_every: self.checkpoint_every,
            ..TrainConfig::default()
        }
    }
}
