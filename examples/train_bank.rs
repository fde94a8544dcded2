//! Trains an adapter bank on SQuAD files for any GPT-2 folder.
//!
//! ```text
//! cargo run --release --example train_bank -- --model DIR --train train-v1.1.json \
//!     --data dev-v1.1.json --bits 32,16,8,4 --steps 2000 --out runs/bank
//! ```
//!
//! A folder without a span head, such as that of a language model, is fine-tuned in full precision
//! first: say for how long with `--base-steps`. Runs go on where they were when they are started
//! again with the same folder. `OUT/model` holds the model and `OUT/model/adapters` the bank.
//!
//! `--regime` says which widths a step trains; `--steps 0` trains the base alone. `--loftq` starts the
//! adapters from what quantisation loses, `--learned-steps` trains the weights' step sizes with them and
//! saves these beside the adapters of each width.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Parser;
use serde_json::json;
use switchable_quant::burn::module::AutodiffModule as _;
use switchable_quant::data::{Dataset, TextTokenizer};
use switchable_quant::device::{Device, WithAutodiff};
use switchable_quant::experiments::banks::bank::RegimeOfBank;
use switchable_quant::experiments::banks::bank::{BankConfig, Trains, train_bank_with, train_base};
use switchable_quant::experiments::train::config::TrainConfig;
use switchable_quant::experiments::train::objective::Objective;
use switchable_quant::experiments::train::schedule::Schedule;
use switchable_quant::experiments::train::trainer::TrainRun;
use switchable_quant::experiments::train::trainer::Training;
use switchable_quant::kernels::{BitWidth, Mapping, QuantAutodiffBackend};
use switchable_quant::lora::{LoraConfig, LoraInit};
use switchable_quant::model::{AdapterFolders, Gpt2ForQuestionAnswering, MissingHead, SwitchableModel};
use switchable_quant::reader::evaluation::evaluate::Evaluator;
use switchable_quant::reader::evaluation::reading::ReadingTask;
use switchable_quant_examples::{
    PerWidth, QuantArgs, RegimeArgs, RunArgs, load_training_set, parse_bits, plan_table_row, resolve_data,
    resolve_model, stop_on_ctrl_c,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Trains one LoRA adapter per width on a frozen, quantised GPT-2
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    quant: QuantArgs,
    #[command(flatten)]
    regime: RegimeArgs,
    /// Hugging Face folder of a GPT-2, or a name such as openai-community/gpt2 to download
    #[arg(long, value_name = "DIR|NAME")]
    model: String,
    /// SQuAD JSON files to train on
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    train: Vec<PathBuf>,
    /// SQuAD JSON file to evaluate on afterwards
    #[arg(long, value_name = "FILE")]
    data: Option<String>,
    /// Use at most this many training questions
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Widths of the bank, separated by commas
    #[arg(long, default_value = "32,16,8,4", value_parser = parse_bits)]
    bits: std::vec::Vec<BitWidth>,
    /// Width of the activations where weights are quantised
    #[arg(long, default_value = "32", value_name = "BITS")]
    activations: BitWidth,
    /// Rank of the adapters; with exceptions by width as in 8,2:16,3:16
    #[arg(long, default_value = "8")]
    rank: PerWidth<usize>,
    /// Alpha of the adapters, as the rank; what they add is scaled by alpha / rank
    #[arg(long, default_value = "16")]
    alpha: PerWidth<f64>,
    /// Start the adapters from the quantisation error (LoftQ, arXiv:2310.08659)
    #[arg(long)]
    loftq: bool,
    /// Train the step sizes of the quantised weights with the adapters (LSQ, arXiv:1902.08153)
    #[arg(long)]
    learned_steps: bool,
    /// Optimiser steps of the bank; 0 trains none
    #[arg(long, default_value_t = 1000)]
    steps: usize,
    /// Optimiser steps of full-precision fine-tuning before the bank
    #[arg(long, default_value_t = 0)]
    base_steps: usize,
    /// Windows per optimiser step
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Parts that a batch is cut into, computed at once as far as there are workers
    #[arg(long, default_value_t = 4)]
    micro_batches: usize,
    /// Highest learning rate of the bank
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// Highest learning rate of full-precision fine-tuning
    #[arg(long, default_value_t = 1e-4)]
    base_learning_rate: f64,
    /// Weight of the next-token loss
    #[arg(long, default_value_t = 0.0)]
    next_token: f64,
    /// Longest window in tokens; by default the model's positions, at most 384
    #[arg(long)]
    window: Option<usize>,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 100)]
    checkpoint_every: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let device = arguments.run.device.resolve()?;
    device.dispatch_autodiff(Train { arguments, device: &device })
}

struct Train<'a> {
    arguments: Arguments,
    device: &'a Device,
}

impl WithAutodiff for Train<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: QuantAutodiffBackend>(self, device: B::Device) -> anyhow::Result<()> {
        let Arguments { run, quant, .. } = &self.arguments;
        let out = run.out.clone().unwrap_or_else(|| PathBuf::from("runs/bank"));
        let dir = resolve_model(&self.arguments.model)?;
        let head = if self.arguments.base_steps > 0 { MissingHead::Random(run.seed) } else { MissingHead::Refuse };
        let model = Gpt2ForQuestionAnswering::<B>::load(&dir, &quant.model_options(), head, &device)
            .context("a folder without a span head needs `--base-steps`")?;
        let tokenizer = TextTokenizer::from_dir(&dir)?;
        let mut questions = load_training_set(&self.arguments.train)?;
        if let Some(limit) = self.arguments.limit {
            questions = questions.limited(limit);
        }
        let evaluation =
            self.arguments.data.as_deref().map(resolve_data).transpose()?.map(Dataset::read).transpose()?;
        println!("running on {}, {} training questions", self.device, questions.len());
        let task = ReadingTask::new(questions, &tokenizer, model.config(), self.arguments.window)?;

        let stop = stop_on_ctrl_c()?;
        if self.arguments.learned_steps && quant.quantizer.format != Mapping::Symmetric {
            bail!("`--learned-steps` needs a symmetric `--quantizer`, got `{}`", quant.quantizer);
        }
        let init = if self.arguments.loftq { LoraInit::LoftQ { iterations: 5 } } else { LoraInit::ZeroB };
        let adapters = self.arguments.bits.iter().map(|&width| {
            let lora = LoraConfig::new(self.arguments.rank.get(width), self.arguments.alpha.get(width))?;
            Ok((width, lora.with_init(init)))
        });
        let adapters = adapters.collect::<anyhow::Result<Vec<_>>>()?;
        let bank = BankConfig {
            adapters,
            activations: self.arguments.activations,
            seed: run.seed,
            learned_steps: self.arguments.learned_steps,
            trains: Trains::default(),
        };
        let lowest = self.arguments.bits.iter().min().copied().unwrap_or(BitWidth::FULL);
        let regime = self.arguments.regime.config(model.config(), bank.precision(lowest), run.seed)?;
        if self.arguments.steps > 0 {
            // A regime that does not fit is refused before the base is trained.
            regime.build(&bank.ladder(&model)?, self.arguments.steps)?;
        }
        let part = |part: &str, of_part: serde_json::Value| TrainRun {
            dir: Some(out.join(part)),
            workers: run.workers(self.device),
            stop: stop.clone(),
            show: run.show(),
            identity: json!({
                "model": self.arguments.model, "train": self.arguments.train, "limit": self.arguments.limit,
                "part": part, "window": self.arguments.window, "of_part": of_part,
            }),
        };
        let mut model = model;
        if self.arguments.base_steps > 0 {
            let config = self.config(self.arguments.base_steps, self.arguments.base_learning_rate);
            model =
                train_base(model, &task, Training { config: &config, run: &part("base", serde_json::Value::Null) })?.0;
        }
        if self.arguments.steps > 0 {
            let bank_part = part("bank", json!({ "quantizer": quant.quantizer, "adapters": bank.adapters }));
            let config = self.config(self.arguments.steps, self.arguments.learning_rate);
            let build = |_: &_, ladder: &_| regime.build(ladder, config.steps);
            let (trained, outcome) = train_bank_with(
                model,
                &task,
                &RegimeOfBank { bank: &bank, regime: &build },
                Training { config: &config, run: &bank_part },
            )?;
            println!("bank: {} steps at {:.0} tokens/s", outcome.losses.len(), outcome.tokens_per_second);
            model = trained;
        }

        let target = out.join("model");
        model.export(&target)?;
        if self.arguments.steps > 0 {
            model.transformer.save_adapters(target.join("adapters"), &self.arguments.model)?;
        }
        tokenizer.save(target.join("tokenizer.json"))?;
        println!("wrote {}", target.display());

        let Some(dataset) = evaluation else { return Ok(()) };
        if dataset.is_empty() {
            bail!("`--data` holds no question");
        }
        let task = ReadingTask::new(dataset, &tokenizer, model.config(), self.arguments.window)?;
        let model = model.valid();
        let options = run.evaluate_options(self.device, self.arguments.batch, &stop);
        let evaluator = Evaluator::new(&model, &task, options, &device)?;
        for &width in &self.arguments.bits {
            let precision = bank.precision(width);
            let precision = if self.arguments.steps > 0 { precision } else { precision.without_adapter() };
            let accuracy = evaluator.evaluate(&model.transformer.uniform_plan(precision))?;
            println!("{}", plan_table_row(&format!("{width:>2} bits"), &accuracy, f64::from(width.bits())));
        }
        Ok(())
    }
}

impl Train<'_> {
    fn config(&self, steps: usize, peak: f64) -> TrainConfig {
        TrainConfig {
            steps,
            batch_size: self.arguments.batch,
            micro_batches: self.arguments.micro_batches,
            schedule: Schedule { peak, ..Schedule::default() },
            objective: Objective { next_token: self.arguments.next_token },
            seed: self.arguments.run.seed,
            checkpoint_every: self.arguments.checkpoint_every,
            ..TrainConfig::default()
        }
    }
}
