//! A bank of adapters, and how it is trained.

use std::path::PathBuf;

use clap::Args;

use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::experiments::banks::bank::{BankConfig, Trains};
use switchable_quant::experiments::banks::sharing::Sharing;
use switchable_quant::experiments::train::config::TrainConfig;
use switchable_quant::experiments::train::objective::Objective;
use switchable_quant::experiments::train::schedule::Schedule;
use switchable_quant::kernels::{BitWidth, Format, QuantSpec};
use switchable_quant::lora::{LoraConfig, LoraInit};
use switchable_quant::reader::model_folder::OwnAdapters;
use switchable_quant::reader::{self, FolderOptions};
use switchable_quant::transformer::span_head::MissingHead;
use switchable_quant::transformer::{self, options::ModelOptions};

use crate::arguments::count::{parse_count, parse_up_to};
use crate::arguments::further_devices::FurtherDevicesArgs;
use crate::arguments::null_threshold::NullThreshold;
use crate::arguments::reading::ReadingArgs;
use crate::arguments::run::RunArgs;
use crate::arguments::widths::{PerWidth, parse_bits};
use crate::calibration::CalibrationRequest;
use crate::ending::usage;
use crate::files::{GENERATED, LoadedQuestions, load_questions, load_training_set, resolve_data};
use crate::session::{Command, Opening};

/// The first tensor of a span head.
const SPAN_HEAD: &str = "qa_outputs.weight";

/// The model that a bank is for, and its questions.
#[derive(Debug, Clone, Args)]
pub struct BankSourceArgs {
    /// Hugging Face folder of a GPT-2 or a Llama, or a name such as openai-community/gpt2 to download
    #[arg(long, value_name = "DIR|NAME")]
    pub model: String,
    /// SQuAD JSON files to train on
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub train: Vec<PathBuf>,
    /// SQuAD JSON file to evaluate on afterwards
    #[arg(long, value_name = "FILE")]
    pub data: Option<String>,
    /// How data files are read.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Train on at most this many questions of --train; those of --data are limited by --evaluation-limit
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Steps of the bank from one look at the accuracy of its widths on questions of --data to the next: a line each in
    /// OUT/bank/validation.jsonl, and a figure; nothing is chosen by it
    #[arg(long, value_name = "N", requires = "data", value_parser = parse_count)]
    pub validate_every: Option<usize>,
    /// Questions of --data that are looked at on the way
    #[arg(long, default_value_t = 200, value_name = "N", requires = "validate_every", value_parser = parse_count)]
    pub validation_limit: usize,
    /// Evaluate on at most this many questions of --data
    #[arg(long, value_name = "N", requires = "data")]
    pub evaluation_limit: Option<usize>,
    /// Answer a question of v2.0 --data with nothing where its null score exceeds that of its best span by more
    /// than this
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub null_threshold: Option<NullThreshold>,
}

/// Widths and adapters of a bank.
#[derive(Debug, Clone, Args)]
pub struct BankArgs {
    /// Widths of the bank, separated by commas
    #[arg(long, default_value = "32,16,8,4", value_parser = parse_bits)]
    pub bits: std::vec::Vec<BitWidth>,
    /// Width of the activations where weights are quantised
    #[arg(long, default_value = "32", value_name = "BITS")]
    pub activations: BitWidth,
    /// Rank of the adapters; with exceptions by width as in 8,2:16,3:16
    #[arg(long, default_value = "8")]
    pub rank: PerWidth<usize>,
    /// Alpha of the adapters, as the rank; what they add is scaled by alpha / rank
    #[arg(long, default_value = "16")]
    pub alpha: PerWidth<f64>,
    /// What is trained: bank (the adapters), base (the weights, which all widths share; there are no adapters) or
    /// both
    #[arg(long, default_value = "bank", value_name = "KIND", value_parser = parse_trains)]
    pub trains: Trains,
    /// What the adapters of the widths share: adapters (one each), shared-adapter (one for all) or shared+own (a
    /// common one, and one of a quarter of the rank for each width but the widest)
    #[arg(long, default_value_t = Sharing::Adapters, value_name = "KIND")]
    pub sharing: Sharing,
    /// Start the adapters from the quantisation error (LoftQ, arXiv:2310.08659)
    #[arg(long)]
    pub loftq: bool,
    /// Train the step sizes of the quantised weights with the adapters (LSQ, arXiv:1902.08153)
    #[arg(long)]
    pub learned_steps: bool,
}

/// How base and bank are trained.
#[derive(Debug, Clone, Args)]
pub struct BankTrainingArgs {
    /// Optimiser steps of the bank; 0 trains none
    #[arg(long, default_value_t = 1000)]
    pub steps: usize,
    /// Optimiser steps of full-precision fine-tuning before the bank
    #[arg(long, default_value_t = 0)]
    pub base_steps: usize,
    /// Windows per optimiser step
    #[arg(long, default_value_t = 32, value_parser = parse_up_to::<65_536>)]
    pub batch: usize,
    /// Parts that a batch is cut into, computed at once as far as there are workers
    #[arg(long, default_value_t = 4, value_parser = parse_up_to::<65_536>)]
    pub micro_batches: usize,
    /// Devices that share the parts of a step
    #[command(flatten)]
    pub further: FurtherDevicesArgs,
    /// Highest learning rate of the bank
    #[arg(long, default_value_t = 1e-3)]
    pub learning_rate: f64,
    /// Highest learning rate of full-precision fine-tuning
    #[arg(long, default_value_t = 1e-4)]
    pub base_learning_rate: f64,
    /// Weight of the next-token loss
    #[arg(long, default_value_t = 0.0)]
    pub next_token: f64,
    /// Longest window in tokens; by default the model's positions, at most 384 each time that it holds its context, and at
    /// most 2,048 for prompts
    #[arg(long)]
    pub window: Option<usize>,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 100)]
    pub checkpoint_every: usize,
}

fn parse_trains(text: &str) -> Result<Trains, String> {
    serde_json::from_value(text.into()).map_err(|_| "expected `bank`, `base` or `both`".to_owned())
}

impl BankSourceArgs {
    /// The questions to train on.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged.
    pub fn questions(&self) -> anyhow::Result<LoadedQuestions> {
        let questions = load_training_set(&self.train, self.reading)?;
        anyhow::ensure!(self.limit != Some(0), "`--limit` is 0, expected at least 1");
        Ok(if let Some(limit) = self.limit { questions.limited(limit) } else { questions })
    }

    /// The questions to evaluate on afterwards, if any.
    ///
    /// # Errors
    ///
    /// When the file is missing or damaged, or holds no question.
    pub fn evaluation(&self) -> anyhow::Result<Option<LoadedQuestions>> {
        let load = |data: &str| match data {
            GENERATED => anyhow::Ok(default_model::questions(QuestionSet::HeldOut)?.into()),
            _ => load_questions(&resolve_data(data)?, self.reading),
        };
        let questions = self.data.as_deref().map(load).transpose()?;
        anyhow::ensure!(self.evaluation_limit != Some(0), "`--evaluation-limit` is 0, expected at least 1");
        Ok(match (questions, self.evaluation_limit) {
            (Some(questions), Some(limit)) => Some(questions.limited(limit)),
            (questions, _) => questions,
        })
    }

    /// Opens the model and runs a command on it. A folder without a span head gets a random one where
    /// the base is trained, and is refused where it is not.
    ///
    /// # Errors
    ///
    /// As [`Opening::run`].
    pub fn run(
        &self,
        run: &RunArgs,
        model: ModelOptions,
        missing_head: MissingHead,
        calibration: CalibrationRequest,
        command: impl Command,
    ) -> anyhow::Result<()> {
        let options = FolderOptions { model, missing_head, adapters: OwnAdapters::LeftOut, ..FolderOptions::default() };
        let execution = run.execution;
        let device = run.device;
        let model = Some(self.model.as_str());
        let opening = Opening { device, model, adapters: None, options, mixed_head: None, execution, calibration };
        opening.run(command).map_err(|error| match error.downcast_ref() {
            Some(reader::Error::Model(transformer::Error::MissingTensor { name, .. })) if name == SPAN_HEAD => {
                error.context("a folder without a span head needs `--base-steps`")
            }
            _ => error,
        })
    }
}

impl BankArgs {
    /// The bank that the flags name, for weights of a quantiser.
    ///
    /// # Errors
    ///
    /// When a rank or an alpha is out of its range, or the quantiser has no steps that could be learned.
    pub fn config(&self, quantizer: &QuantSpec, seed: u64) -> anyhow::Result<BankConfig> {
        if self.learned_steps && quantizer.format != Format::Symmetric {
            return Err(usage(format!("`--learned-steps` needs a symmetric `--quantizer`, got `{quantizer}`")));
        }
        let init = if self.loftq { LoraInit::LoftQ { iterations: 5 } } else { LoraInit::ZeroB };
        let adapters = self.bits.iter().map(|&width| {
            let lora = LoraConfig::new(self.rank.get(width), self.alpha.get(width))?;
            Ok((width, lora.with_init(init)))
        });
        Ok(BankConfig {
            adapters: adapters.collect::<anyhow::Result<_>>()?,
            activations: self.activations,
            seed,
            learned_steps: self.learned_steps,
            trains: self.trains,
            sharing: self.sharing,
        })
    }

    /// The lowest width.
    pub fn lowest(&self) -> BitWidth {
        self.bits.iter().min().copied().unwrap_or(BitWidth::FULL)
    }
}

impl BankTrainingArgs {
    /// What to do where the folder has no span head: it is trained with the base, or there must be one.
    pub fn missing_head(&self, seed: u64) -> MissingHead {
        if self.base_steps > 0 { MissingHead::Random(seed) } else { MissingHead::Refuse }
    }

    /// The training of the base.
    pub fn base(&self, seed: u64) -> TrainConfig {
        self.config(self.base_steps, self.base_learning_rate, seed)
    }

    /// The training of the bank.
    pub fn bank(&self, seed: u64) -> TrainConfig {
        self.config(self.steps, self.learning_rate, seed)
    }

    fn config(&self, steps: usize, peak: f64, seed: u64) -> TrainConfig {
        TrainConfig {
            steps,
            batch_size: self.batch,
            micro_batches: self.micro_batches,
            schedule: Schedule { peak, ..Schedule::default() },
            objective: Objective { next_token: self.next_token },
            seed,
            checkpoint_every: self.checkpoint_every,
            ..TrainConfig::default()
        }
    }
}
