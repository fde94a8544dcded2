//! Loads a model folder in Hugging Face form and shows that it is read right.
//!
//! ```text
//! cargo run --release --example import_gpt2 -- --model DIR --ids 15496,11,995 --out logits.safetensors
//! ```
//!
//! It writes `logits`, `[1, n, vocab]` in f32, to compare with another implementation. Texts are continued by
//! `generate`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{anyhow, ensure};
use clap::Parser;
use serde_json::json;

use command_line::arguments::quant::QuantArgs;
use command_line::files::{check_apart, resolve_model};
use command_line::logits::logits_of;
use command_line::{finish, outln, output};
use switchable_quant::device::{DeviceChoice, WithBackend};
use switchable_quant::families::{WithFamily, with_family};
use switchable_quant::kernels::{BitWidth, QuantBackend};
use switchable_quant::lora::SitePrecision;
use switchable_quant::reader::evaluation::logits_file::write_logits;
use switchable_quant::transformer::config::ModelConfig as _;
use switchable_quant::transformer::generate::Generate as _;
use switchable_quant::transformer::model::SwitchableModel;
use switchable_quant::transformer::model_weights::ModelWeights as _;

/// Logits of a model folder
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Hugging Face folder of a GPT-2 or a Llama, or a name such as openai-community/gpt2 to download
    #[arg(long, value_name = "DIR|NAME")]
    model: String,
    /// Token ids, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "IDS", required = true)]
    ids: Vec<u32>,
    /// Safetensors file for the logits of --ids
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Width of every site
    #[arg(long, default_value = "32")]
    bits: BitWidth,
    #[command(flatten)]
    quant: QuantArgs,
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
    arguments.quant.calibration.expect_none()?;
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
        model.check_ids(&arguments.ids)?;
        let logits = logits_of(&model, &arguments.ids, &plan);
        match &arguments.out {
            Some(out) => write_logits(out, &logits)?,
            None => outln!("{logits}"),
        }
        if !output::is_for_programs() {
            return Ok(());
        }
        let [_, tokens, vocabulary] = logits.dims();
        let values = logits.into_data().convert::<f32>().to_vec::<f32>().map_err(|error| anyhow!("{error:?}"))?;
        let rows: Vec<&[f32]> = values.chunks(vocabulary).collect();
        output::result(&json!({ "parameters": parameters, "tokens": tokens, "vocabulary": vocabulary, "logits": rows }))
    }
}
