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

use std::ffi::OsString;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::json;

use command_line::arguments::execution::ExecutionArgs;
use command_line::arguments::generation::GenerationArgs;
use command_line::arguments::plan::{PlanArgs, PlanFile};
use command_line::session::{Command, LanguageModel, Opening, Session};
use command_line::text_stream::TextStream;
use command_line::{finish, out, output};
use switchable_quant::data::{SpecialTokens, TextTokenizer};
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::device::DeviceChoice;
use switchable_quant::experiments::running::progress::ShowProgress;
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend, QuantBackend};
use switchable_quant::transformer::generate::{Generate as _, GenerateOptions};
use switchable_quant::transformer::model::{SwitchableModel, TrainableModel};
use switchable_quant::transformer::site_plan::SitePlan;

/// Words of a question's paragraph that the built-in model continues.
const WORDS: usize = 8;

/// Texts that a model continues
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Hugging Face folder of a GPT-2 or a Llama, or a name such as openai-community/gpt2 to download; by default
    /// the built-in model
    #[arg(long, value_name = "DIR|NAME", requires = "prompt")]
    model: Option<String>,
    /// Texts to continue; by default the start of a text that the built-in model was made for
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    prompt: Vec<String>,
    #[command(flatten)]
    generation: GenerationArgs,
    /// Folder of adapters, one sub-folder per width (bits-4, bits-8, …); by default `adapters` in the folder of the
    /// model, where there is one
    #[arg(long, value_name = "DIR", conflicts_with = "no_adapter")]
    adapters: Option<PathBuf>,
    /// Use no adapter
    #[arg(long)]
    no_adapter: bool,
    #[command(flatten)]
    plan: PlanArgs,
    /// Width of every site, with its adapter where there is one; by default that of packed weights, else 32
    #[arg(long, value_name = "BITS")]
    bits: Option<BitWidth>,
    /// Width at which keys and values are kept
    #[arg(long, value_name = "BITS")]
    kv_bits: Option<BitWidth>,
    #[command(flatten)]
    execution: ExecutionArgs,
    /// auto, cpu, ndarray, cuda, cuda:N or wgpu
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

/// Runs it as a program of its own.
pub fn main() -> ExitCode {
    finish(|| run(std::env::args_os()))
}

/// Runs it on a command line whose first word names the program.
///
/// # Errors
///
/// Those of the command.
pub fn run(line: impl IntoIterator<Item = OsString>) -> anyhow::Result<()> {
    let arguments = output::parse::<Arguments>(line);
    let plan = arguments.plan.read()?;
    let model = LanguageModel {
        device: arguments.device,
        model: arguments.model.as_deref(),
        adapters: arguments.adapters.as_deref(),
        no_adapter: arguments.no_adapter,
        execution: arguments.execution,
    };
    let calibration = arguments.plan.calibration_request(plan.as_ref(), arguments.bits, ShowProgress::Yes)?;
    let opening = Opening::of_language_model(model, &arguments.plan, plan.as_ref(), calibration);
    opening.run(Generation { arguments: &arguments, plan })
}

struct Generation<'a> {
    arguments: &'a Arguments,
    plan: Option<PlanFile>,
}

impl Command for Generation<'_> {
    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let Self { arguments, plan: file } = self;
        let folder = &session.folder;
        let plan = arguments.plan.choose(folder, file.as_ref(), arguments.bits)?;
        let plan = if arguments.no_adapter { plan.without_adapters() } else { plan };
        let options = match &session.dir {
            Some(dir) => GenerateOptions::of_folder(dir)?,
            None => GenerateOptions { stop: vec![SpecialTokens::of(&folder.tokenizer)?.end], ..Default::default() },
        };
        arguments.continue_texts(&session.plain().transformer, &folder.tokenizer, (options, plan))
    }
}

impl Arguments {
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
            out!("{text}");
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
        if !output::is_for_programs() {
            return Ok(());
        }
        let continued = texts.iter().map(|ids| Ok(tokenizer.decode(ids)?)).collect::<anyhow::Result<Vec<_>>>()?;
        output::result(&json!({
            "prompts": self.texts()?, "texts": continued, "tokens": tokens, "seconds": seconds,
            "kv_cache_bytes_per_token": bytes,
        }))
    }
}
