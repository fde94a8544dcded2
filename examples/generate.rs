//! Continues texts, printed as they come, with keys and values kept in codes.
//!
//! ```text
//! cargo run --release --example generate
//! cargo run --release --example generate -- --model DIR --prompt "The river" "Once upon a time" --kv-bits 8
//! cargo run --release --example generate -- --model DIR --prompt "The river" --temperature 0.8 --top-p 0.95 --seed 7
//! ```
//!
//! Prompts of any lengths are read together; each text ends at its own stop token. What the flags do not say is as
//! `generation_config.json` of the folder has it, or its `config.json`; the built-in model takes the best token.
//! Standard output holds the texts alone, standard error the rest.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Parser;

use switchable_quant::data::{SpecialTokens, TextTokenizer};
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::device::{DeviceChoice, WithBackend};
use switchable_quant::families::{WithFamily, with_family};
use switchable_quant::kernels::{BitWidth, QuantBackend};
use switchable_quant::lora::SitePrecision;
use switchable_quant::transformer::generate::{Generate as _, GenerateOptions};
use switchable_quant::transformer::model::SwitchableModel;
use switchable_quant::transformer::model_weights::ModelWeights as _;
use switchable_quant::transformer::options::ModelOptions;
use switchable_quant::transformer::packed::PackModel as _;
use switchable_quant::transformer::site_plan::SitePlan;
use switchable_quant_examples::arguments::{
    execution::{ExecutionArg, default_execution},
    generation::GenerationArgs,
    quant::QuantArgs,
};
use switchable_quant_examples::files::resolve_model;
use switchable_quant_examples::finish;
use switchable_quant_examples::text_stream::TextStream;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Words of a question's paragraph that the built-in model continues.
const WORDS: usize = 8;

/// Texts that a model continues
#[derive(Debug, Parser)]
struct Arguments {
    /// Hugging Face folder of a GPT-2 or a Llama, or a name such as openai-community/gpt2 to download; by default
    /// the built-in model
    #[arg(long, value_name = "DIR|NAME", requires = "prompt")]
    model: Option<String>,
    /// Texts to continue; by default the start of a text that the built-in model was made for
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    prompt: Vec<String>,
    #[command(flatten)]
    generation: GenerationArgs,
    /// Width of every site, without adapters; by default that of packed weights, else 32
    #[arg(long)]
    bits: Option<BitWidth>,
    /// Width at which keys and values are kept
    #[arg(long, value_name = "BITS")]
    kv_bits: Option<BitWidth>,
    #[command(flatten)]
    quant: QuantArgs,
    /// How quantised weights are held and multiplied; by default packed on the CPU, simulated on a GPU
    #[arg(long, value_enum)]
    execution: Option<ExecutionArg>,
    /// auto, cpu, ndarray, cuda, cuda:N or wgpu
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

fn main() -> ExitCode {
    finish(command)
}

fn command() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let device = arguments.device.resolve()?;
    let execution = arguments.execution.map_or_else(|| default_execution(&device), Into::into);
    let mut options = arguments.quant.model_options();
    options.linear.execution = execution;
    device.dispatch(Work { arguments: &arguments, options })
}

struct Work<'a> {
    arguments: &'a Arguments,
    options: ModelOptions,
}

impl WithBackend for Work<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: QuantBackend>(self, device: B::Device) -> anyhow::Result<()> {
        let Self { arguments, options } = self;
        let Some(model) = &arguments.model else {
            let model = default_model::load_without_adapters::<B>(&options, &device)?;
            let (tokenizer, body) = (model.tokenizer, model.model.transformer);
            let stop = vec![SpecialTokens::of(&tokenizer)?.end];
            let plan = body.uniform_plan(arguments.precision());
            let options = GenerateOptions { stop, ..Default::default() };
            return arguments.continue_texts(&body, &tokenizer, (options, plan));
        };
        let dir = resolve_model(model)?;
        with_family::<B, _>(&dir, OfFolder { arguments, options, dir: &dir, device })?
    }
}

struct OfFolder<'a, D> {
    arguments: &'a Arguments,
    options: ModelOptions,
    dir: &'a Path,
    device: D,
}

impl<B: QuantBackend> WithFamily<B> for OfFolder<'_, B::Device> {
    type Output = anyhow::Result<()>;

    fn run<M: SwitchableModel<B>>(self) -> anyhow::Result<()> {
        let Self { arguments, options: build, dir, device } = self;
        let options = GenerateOptions::of_folder(dir)?;
        let tokenizer = TextTokenizer::from_dir(dir).context("`--prompt` needs the model's tokenizer")?;
        let (model, plan) = if dir.join("packed.safetensors").exists() {
            let (model, plan) = M::load_packed(dir, &build, &device)?;
            let plan = if arguments.bits.is_some() { model.uniform_plan(arguments.precision()) } else { plan };
            (model, plan.without_adapters())
        } else {
            let model = M::load(dir, &build, &device)?;
            let plan = model.uniform_plan(arguments.precision());
            (model, plan)
        };
        arguments.continue_texts(&model, &tokenizer, (options, plan))
    }
}

impl Arguments {
    fn precision(&self) -> SitePrecision {
        SitePrecision::uniform(self.bits.unwrap_or(BitWidth::FULL)).without_adapter()
    }

    fn texts(&self) -> anyhow::Result<Vec<String>> {
        if !self.prompt.is_empty() {
            return Ok(self.prompt.clone());
        }
        let examples = default_model::questions(QuestionSet::HeldOut)?.examples();
        let words = examples[0].context.split(' ').take(WORDS);
        Ok(vec![words.collect::<Vec<_>>().join(" ")])
    }

    fn continue_texts<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        model: &M,
        tokenizer: &TextTokenizer,
        (options, plan): (GenerateOptions, SitePlan),
    ) -> anyhow::Result<()> {
        let shape = model.shape();
        let options = self.generation.options(options, tokenizer, shape.vocabulary)?;
        let plan = if let Some(bits) = self.kv_bits { plan.with_kv_cache(bits) } else { plan };
        model.check_plan(&plan)?;
        let mut prompts = Vec::new();
        for (index, text) in self.texts()?.iter().enumerate() {
            let ids = tokenizer.encode(text)?.ids;
            ensure!(!ids.is_empty(), "`--prompt` number {} is empty, expected at least one token", index + 1);
            model.check_ids(&ids).with_context(|| format!("`--prompt` number {}", index + 1))?;
            prompts.push(ids);
        }
        let start = Instant::now();
        let mut stream = TextStream::new(tokenizer, &prompts);
        let mut failed = None;
        let print = |text: String| -> anyhow::Result<()> {
            print!("{text}");
            std::io::stdout().flush().context("cannot print to stdout")
        };
        let texts =
            model.generate_streaming(&prompts, &options, &plan, |token| match stream.push(token).and_then(print) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            })?;
        if let Some(error) = failed {
            return Err(error);
        }
        print(stream.finish()?)?;
        let (tokens, seconds) = (texts.iter().map(Vec::len).sum::<usize>(), start.elapsed().as_secs_f64());
        let bytes = plan.kv_cache_bytes_per_token(&shape);
        eprintln!("{tokens} tokens in {seconds:.2} s, {bytes} bytes of keys and values for each");
        Ok(())
    }
}
