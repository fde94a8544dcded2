//! Trains a GPT-2 of any size from text files.
//!
//! ```text
//! cargo run --release --example pretrain -- --text wiki-0.txt.zst wiki-1.txt.zst \
//!     --validation validation.txt.zst --vocabulary 8192 --layers 12 --embedding 128 --heads 4 \
//!     --steps 2000 --out runs/pretrain
//! ```
//!
//! Files are `.txt` or `.txt.zst`; a line `<|endoftext|>` ends a document. Without `--tokenizer` a
//! byte-level BPE is trained on the first documents. A run goes on where it was when it is started again
//! with the same folder. `OUT/model` is a Hugging Face folder: `train_bank --model OUT/model` goes on
//! from there.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use serde_json::json;
use switchable_quant::burn::module::AutodiffModule as _;
use switchable_quant::data::{BpeConfig, SpecialTokens, TextFiles, TextTokenizer};
use switchable_quant::device::{Device, WithAutodiff};
use switchable_quant::experiments::train::config::TrainConfig;
use switchable_quant::experiments::train::regimes::single::Single;
use switchable_quant::experiments::train::schedule::Schedule;
use switchable_quant::experiments::train::text_task::{TextTask, text_loss};
use switchable_quant::experiments::train::trainer::{TrainRun, Training, train};
use switchable_quant::kernels::QuantAutodiffBackend;
use switchable_quant::lora::BasePolicy;
use switchable_quant::model::{
    Activation, Gpt2, Gpt2Config, InitialWeights, LinearSettings, ModelConfig, ModelOptions, ModelWeights,
    SitePrecision, SwitchableModel,
};
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant_examples::{RunArgs, resolve_model, stop_on_ctrl_c};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Next-token training of a GPT-2 from text files
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    /// Text files to train on, .txt or .txt.zst
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    text: Vec<PathBuf>,
    /// Text files to measure on afterwards
    #[arg(long, num_args = 1.., value_name = "FILE")]
    validation: Vec<PathBuf>,
    /// Tokens of the validation text that are used
    #[arg(long, default_value_t = 200_000)]
    validation_tokens: usize,
    /// Folder or name of a model whose tokenizer is used; by default one is trained
    #[arg(long, value_name = "DIR|NAME")]
    tokenizer: Option<String>,
    /// Tokens of a trained tokenizer
    #[arg(long, default_value_t = 8192)]
    vocabulary: usize,
    /// Documents that a tokenizer is trained on
    #[arg(long, default_value_t = 2000)]
    tokenizer_documents: usize,
    /// Go on from this model instead of from random weights; the shape is then the model's
    #[arg(long, value_name = "DIR|NAME", conflicts_with = "tokenizer")]
    model: Option<String>,
    /// Blocks
    #[arg(long, default_value_t = 12)]
    layers: usize,
    /// Width of the residual stream
    #[arg(long, default_value_t = 128)]
    embedding: usize,
    /// Attention heads
    #[arg(long, default_value_t = 4)]
    heads: usize,
    /// Longest input in tokens
    #[arg(long, default_value_t = 256)]
    positions: usize,
    /// Activation of the MLP, as config.json names it
    #[arg(long, default_value = "gelu_new")]
    activation: String,
    /// Standard deviation of random weights
    #[arg(long, default_value_t = 0.02)]
    initializer_range: f64,
    /// Let queries and keys start equal (arXiv:2305.09828), which helps small models
    #[arg(long)]
    matching: bool,
    /// Tokens per window; by default the model's positions
    #[arg(long)]
    window: Option<usize>,
    /// Optimiser steps
    #[arg(long, default_value_t = 1000)]
    steps: usize,
    /// Windows per optimiser step
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Parts that a batch is cut into, computed at once as far as there are workers
    #[arg(long, default_value_t = 2)]
    micro_batches: usize,
    /// Highest learning rate
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 200)]
    checkpoint_every: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let device = arguments.run.device.resolve()?;
    device.dispatch_autodiff(Pretrain { arguments, device: &device })
}

struct Pretrain<'a> {
    arguments: Arguments,
    device: &'a Device,
}

impl WithAutodiff for Pretrain<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: QuantAutodiffBackend>(self, device: B::Device) -> anyhow::Result<()> {
        let arguments = &self.arguments;
        let run = &arguments.run;
        let out = run.out.clone().unwrap_or_else(|| PathBuf::from("runs/pretrain"));
        let files = TextFiles::new(&arguments.text)?;
        let validation =
            (!arguments.validation.is_empty()).then(|| TextFiles::new(&arguments.validation)).transpose()?;
        let config = self.config();
        config.check()?;
        let (model, tokenizer) = self.start::<B>(&files, &device)?;
        let window = arguments.window.unwrap_or(model.config().n_positions);
        let end = SpecialTokens::of(&tokenizer)?.end;

        // No more text is read than the run goes through.
        let most = arguments.steps.saturating_mul(arguments.batch).saturating_mul(window);
        let tokens = files.tokens(&tokenizer, end, most)?;
        println!(
            "running on {}: {} parameters, {} tokens of text, {} tokens a step",
            self.device,
            model.config().parameters(),
            tokens.len(),
            arguments.batch * window
        );
        let task = TextTask::new(tokens, window, &config)?;
        let training = TrainRun {
            dir: Some(out.join("training")),
            workers: run.workers(self.device),
            stop: stop_on_ctrl_c()?,
            show: run.show(),
            identity: json!({
                "text": arguments.text, "model": arguments.model, "shape": model.config().to_json("GPT2LMHeadModel"), "window": window,
            }),
        };
        let plan = model.uniform_plan(SitePrecision::FULL);
        let (model, outcome) =
            train(model, &task, &Single(plan.clone()), Training { config: &config, run: &training })?;
        println!("{} steps at {:.0} tokens/s", outcome.losses.len(), outcome.tokens_per_second);

        let target = out.join("model");
        model.export(&target)?;
        tokenizer.save(target.join("tokenizer.json"))?;
        println!("wrote {}", target.display());
        if let Some(files) = validation {
            let tokens = files.tokens(&tokenizer, end, arguments.validation_tokens)?;
            let loss = text_loss(&model.valid(), &tokens, window, &plan)?;
            println!("validation: {loss:.4} nats per token, perplexity {:.2}, {} tokens", loss.exp(), tokens.len());
            let result = json!({
                "loss": loss, "perplexity": loss.exp(), "tokens": tokens.len(), "window": window, "seed": run.seed,
                "config": config, "files": arguments.validation,
            });
            write_json(out.join("pretrain.json"), &result)?;
        }
        Ok(())
    }
}

impl Pretrain<'_> {
    fn config(&self) -> TrainConfig {
        TrainConfig {
            steps: self.arguments.steps,
            batch_size: self.arguments.batch,
            micro_batches: self.arguments.micro_batches,
            schedule: Schedule { peak: self.arguments.learning_rate, final_share: 0.1, ..Schedule::default() },
            seed: self.arguments.run.seed,
            checkpoint_every: self.arguments.checkpoint_every,
            ..TrainConfig::default()
        }
    }

    /// The model that training starts from, and its tokenizer.
    fn start<B: QuantAutodiffBackend>(
        &self,
        files: &TextFiles,
        device: &B::Device,
    ) -> anyhow::Result<(Gpt2<B>, TextTokenizer)> {
        let arguments = &self.arguments;
        let initial = if arguments.matching { InitialWeights::Matching } else { InitialWeights::Published };
        let linear = LinearSettings { base: BasePolicy::Trainable, ..LinearSettings::default() };
        let options = ModelOptions { linear, initial, ..ModelOptions::default() };
        if let Some(name) = &arguments.model {
            let dir = resolve_model(name)?;
            return Ok((Gpt2::load(&dir, &options, device)?, TextTokenizer::from_dir(&dir)?));
        }
        let tokenizer = if let Some(name) = &arguments.tokenizer {
            TextTokenizer::from_dir(resolve_model(name)?)?
        } else {
            let texts: Vec<String> = files.documents().take(arguments.tokenizer_documents).collect::<Result<_, _>>()?;
            println!("training a tokenizer of {} tokens on {} documents", arguments.vocabulary, texts.len());
            let config = BpeConfig { vocab_size: arguments.vocabulary, ..BpeConfig::default() };
            TextTokenizer::train_bpe(texts, &config)?
        };
        let activation = serde_json::from_value::<Activation>(json!(arguments.activation))
            .with_context(|| format!("`--activation {}`", arguments.activation))?;
        let shape = Gpt2Config::new(
            tokenizer.vocab_size(),
            arguments.positions,
            arguments.embedding,
            arguments.layers,
            arguments.heads,
        );
        let shape = shape.with_activation(activation).with_initializer_range(arguments.initializer_range);
        Ok((Gpt2::random(&shape, &options, arguments.run.seed, device)?, tokenizer))
    }
}
