//! Loads a model folder in Hugging Face form and shows that it is read right.
//!
//! ```text
//! cargo run --release --example import_gpt2 -- --model DIR --ids 15496,11,995 --out logits.safetensors
//! cargo run --release --example import_gpt2 -- --model DIR --text "The river" --tokens 20
//! ```
//!
//! `--ids` writes `logits`, `[1, n, vocab]` in f32, to compare with another implementation;
//! `--text` continues a text.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Parser;

use switchable_quant::data::{SpecialTokens, TextTokenizer};
use switchable_quant::device::{DeviceChoice, WithBackend};
use switchable_quant::families::{WithFamily, with_family};
use switchable_quant::kernels::{BitWidth, QuantBackend};
use switchable_quant::lora::SitePrecision;
use switchable_quant::reader::evaluation::logits_file::write_logits;
use switchable_quant::transformer::config::ModelConfig as _;
use switchable_quant::transformer::generate::{Generate as _, GenerateOptions, Sampling};
use switchable_quant::transformer::model::SwitchableModel;
use switchable_quant::transformer::model_weights::ModelWeights as _;
use switchable_quant_examples::arguments::quant::QuantArgs;
use switchable_quant_examples::files::{check_apart, resolve_model};
use switchable_quant_examples::finish;
use switchable_quant_examples::logits::logits_of;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Logits or text of a model folder
#[derive(Debug, Parser)]
struct Arguments {
    /// Hugging Face folder of a GPT-2 or a Llama, or a name such as openai-community/gpt2 to download
    #[arg(long, value_name = "DIR|NAME")]
    model: String,
    /// Token ids, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "IDS", required_unless_present = "text")]
    ids: Vec<u32>,
    /// Safetensors file for the logits of --ids
    #[arg(long, value_name = "FILE", requires = "ids")]
    out: Option<PathBuf>,
    /// Text to continue
    #[arg(long, conflicts_with = "ids")]
    text: Option<String>,
    /// Tokens to generate
    #[arg(long, default_value_t = 40)]
    tokens: usize,
    /// Draw from this many best tokens; 1 always takes the best
    #[arg(long, default_value_t = 1)]
    top_k: usize,
    /// Temperature of the draws
    #[arg(long, default_value_t = 1.0)]
    temperature: f32,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Width of every site
    #[arg(long, default_value = "32")]
    bits: BitWidth,
    #[command(flatten)]
    quant: QuantArgs,
    /// auto, cpu, ndarray, cuda, cuda:N or wgpu
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

fn main() -> ExitCode {
    finish(command)
}

fn command() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    arguments.device.dispatch(&arguments)?
}

impl WithBackend for &Arguments {
    type Output = anyhow::Result<()>;

    fn run<B: QuantBackend>(self, device: B::Device) -> anyhow::Result<()> {
        let dir = resolve_model(&self.model)?;
        if let Some(out) = &self.out {
            ensure!(!out.is_dir(), "`--out` is the folder {}, expected a file", out.display());
            check_apart(out, &[&dir])?;
        }
        with_family::<B, _>(&dir, Import { arguments: self, dir: &dir, device })?
    }
}

struct Import<'a, D> {
    arguments: &'a Arguments,
    dir: &'a Path,
    device: D,
}

impl<B: QuantBackend> WithFamily<B> for Import<'_, B::Device> {
    type Output = anyhow::Result<()>;

    fn run<M: SwitchableModel<B>>(self) -> anyhow::Result<()> {
        let Self { arguments, dir, device } = self;
        let model = M::load(dir, &arguments.quant.model_options(), &device)?;
        let (parameters, shape) = (model.config().parameters(), model.shape());
        eprintln!("{parameters} parameters in {} blocks, vocabulary {}", shape.blocks, shape.vocabulary);
        let plan = model.uniform_plan(SitePrecision::uniform(arguments.bits).without_adapter());
        model.check_plan(&plan)?;
        if let Some(text) = &arguments.text {
            let tokenizer = TextTokenizer::from_dir(dir).context("`--text` needs the model's tokenizer")?;
            let prompt = tokenizer.encode(text)?.ids;
            ensure!(!prompt.is_empty(), "`--text` is empty, expected at least one token");
            let sampling = match arguments.top_k {
                1 => Sampling::Greedy,
                top_k => Sampling::TopK { top_k, temperature: arguments.temperature, seed: arguments.seed },
            };
            let stop = SpecialTokens::of(&tokenizer).map(|special| special.end).into_iter().collect();
            let options = GenerateOptions { max_new_tokens: arguments.tokens, sampling, stop };
            let generated = model.generate(&prompt, &options, &plan)?;
            println!("{text}{}", tokenizer.decode(&generated)?);
            return Ok(());
        }
        model.check_ids(&arguments.ids)?;
        let logits = logits_of(&model, &arguments.ids, &plan);
        match &arguments.out {
            Some(out) => write_logits(out, &logits)?,
            None => println!("{logits}"),
        }
        Ok(())
    }
}
