//! A model under a plan as one GGUF file, for llama.cpp and what is built on it.
//!
//! ```text
//! cargo run --release --example export_gguf -- --model DIR --plan plan.json --out runs/model.gguf
//! cargo run --release --example export_gguf -- --model DIR --bits 4 --embedding-bits 8 --no-adapter \
//!     --quantizer per-group:32,symmetric,mse --out runs/model.gguf
//! ```
//!
//! Codes are written as they are wherever a type has room for them: symmetric ones of 2 to 4 bits as `Q4_0`, of 5 as
//! `Q5_0`, of 6 to 8 as `Q8_0`, asymmetric ones of 2 to 4 as `Q4_1`, of 5 as `Q5_1`, each with its scale rounded to f16.
//! Every other matrix is floats, adapters merged; so is one whose adapter the plan adds beside its codes. It says which and why.
//!
//! The file is written whole or not at all, opened again, and its logits are compared with those of the plan, whose
//! activations, keys and values are left unrounded for that: a file does not say them. A span head is left out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::ensure;
use clap::{Parser, ValueEnum};
use serde_json::json;

use command_line::arguments::execution::ExecutionArgs;
use command_line::arguments::plan::{PlanArgs, PlanFile};
use command_line::contents::name_of;
use command_line::files::{check_apart, resolve_model};
use command_line::logits::logits_of_a_formula;
use command_line::session::{Command, LanguageModel, Opening, Session};
use command_line::{finish, out, outln, output, stoppable};
use switchable_quant::burn::tensor::{ElementConversion as _, Tensor};
use switchable_quant::device::DeviceChoice;
use switchable_quant::experiments::running::progress::ShowProgress;
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend, QuantBackend};
use switchable_quant::lora::SitePrecision;
use switchable_quant::reader::gguf_export::{GgufExport, GgufReport};
use switchable_quant::transformer::gguf::export::{MatrixFloats, WhyFloats, WrittenTensor};
use switchable_quant::transformer::model::{SwitchableModel, TrainableModel};
use switchable_quant::transformer::model_weights::ModelWeights as _;
use switchable_quant::transformer::options::ModelOptions;
use switchable_quant::transformer::site_plan::SitePlan;

/// A model under a plan as one GGUF file, for llama.cpp
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Folder, GGUF file or name of a GPT-2 or a Llama; by default the model that is part of the program, which
    /// llama.cpp does not run
    #[arg(long, value_name = "DIR|NAME")]
    model: Option<String>,
    /// Folder of adapters, one sub-folder per width (bits-4, bits-8, …); by default `adapters` in the folder of
    /// the model, where there is one
    #[arg(long, value_name = "DIR", conflicts_with = "no_adapter")]
    adapters: Option<PathBuf>,
    /// Write the codes without adapters: beside an adapter that is not merged there are no codes, only floats
    #[arg(long)]
    no_adapter: bool,
    /// Width of every site, with its adapter where there is one; by default that of packed weights, else 32
    #[arg(long, value_name = "BITS")]
    bits: Option<BitWidth>,
    #[command(flatten)]
    plan: PlanArgs,
    /// Floats of the matrices that are no codes
    #[arg(long, value_enum, default_value = "f16", value_name = "f16|f32")]
    float: Floats,
    /// File to write; one that is there is replaced
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// auto, cpu, ndarray, cuda, cuda:N or wgpu
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

/// The floats of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Floats {
    /// Half precision.
    F16,
    /// Single precision.
    F32,
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
    let out = &arguments.out;
    ensure!(!out.is_dir(), "`--out` is the folder {}, expected a file", out.display());
    let dir = arguments.model.as_deref().map(resolve_model).transpose()?;
    let read = [dir.as_deref(), arguments.adapters.as_deref()];
    check_apart(out, &read.into_iter().flatten().collect::<Vec<_>>())?;
    let plan = arguments.plan.read()?;
    let model = LanguageModel {
        device: arguments.device,
        model: arguments.model.as_deref(),
        adapters: arguments.adapters.as_deref(),
        no_adapter: arguments.no_adapter,
        execution: ExecutionArgs::SIMULATED,
    };
    let calibration = arguments.plan.calibration_request(plan.as_ref(), arguments.bits, ShowProgress::Yes)?;
    let opening = Opening::of_language_model(model, &arguments.plan, plan.as_ref(), calibration);
    stoppable(|| opening.run(Export { arguments: &arguments, plan }))
}

struct Export<'a> {
    arguments: &'a Arguments,
    plan: Option<PlanFile>,
}

impl Command for Export<'_> {
    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let Self { arguments, plan: file } = self;
        let (folder, out) = (&session.folder, &arguments.out);
        let plan = arguments.plan.choose(folder, file.as_ref(), arguments.bits)?;
        let plan = if arguments.no_adapter { plan.without_adapters() } else { plan };
        if !session.has_random_head {
            eprintln!("the span head is left out: a GGUF has no place for one");
        }
        let model = session.plain().transformer;
        let matrices = match arguments.float {
            Floats::F16 => MatrixFloats::F16,
            Floats::F32 => MatrixFloats::F32,
        };
        let name = name_of(Path::new(&session.name));
        let export = GgufExport { name: &name, model: &model, tokenizer: &folder.tokenizer, plan: &plan, matrices };
        let report = export.write::<B::InnerBackend>(out)?;
        report.notes.iter().for_each(|note| eprintln!("{note}"));
        let bytes = std::fs::metadata(out)?.len();
        outln!("wrote {}, {bytes} bytes", out.display());
        out!("{}", text_of(&report));
        let [difference, highest] = compare::<B::InnerBackend, M::InnerModule>(&model, &plan, out)?;
        outln!("largest difference of a logit from the plan's weights {difference:.1e}, largest logit {highest:.1}");
        let tensor = |tensor: &WrittenTensor| {
            json!({
                "name": tensor.name, "site": tensor.site, "type": tensor.block_type.name(), "bytes": tensor.bytes,
                "why_floats": tensor.why_floats.as_ref().map(ToString::to_string),
            })
        };
        output::result(&json!({
            "file": out, "bytes": bytes, "notes": report.notes, "tensors": report.tensors.iter().map(tensor).collect::<Vec<_>>(),
            "largest_difference": difference, "largest_logit": highest,
        }))
    }
}

/// Types with their tensors and bytes, then what no type of codes holds, by reason.
fn text_of(report: &GgufReport) -> String {
    let mut types: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for WrittenTensor { block_type, bytes, .. } in &report.tensors {
        let (tensors, sum) = types.entry(block_type.name()).or_default();
        (*tensors, *sum) = (*tensors + 1, *sum + bytes);
    }
    let mut text = String::new();
    for (name, (tensors, bytes)) in types {
        _ = writeln!(text, "{name:<6} {tensors:>5} tensors {bytes:>12} bytes");
    }
    let mut reasons: BTreeMap<(&WhyFloats, &str), Vec<&str>> = BTreeMap::new();
    for WrittenTensor { site, block_type, why_floats, .. } in &report.tensors {
        if let (Some(why), Some(site)) = (why_floats, site) {
            reasons.entry((why, block_type.name())).or_default().push(site);
        }
    }
    for ((why, name), sites) in reasons {
        _ = writeln!(text, "{name} for {} matrices ({why}): {}", sites.len(), sites.join(", "));
    }
    text
}

/// Opens the file as any other model: the largest difference of its logits from those of the plan, and the largest logit.
fn compare<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    plan: &SitePlan,
    file: &Path,
) -> anyhow::Result<[f32; 2]> {
    let read = M::load(file, &ModelOptions::default(), &model.device())?;
    let largest = |x: Tensor<B, 3>| x.abs().max().into_scalar().elem::<f32>();
    let expected = logits_of_a_formula(model, &weights_of(plan));
    let difference = largest(logits_of_a_formula(&read, &read.uniform_plan(SitePrecision::FULL)) - expected.clone());
    Ok([difference, largest(expected)])
}

/// A plan without what it rounds beside weights.
fn weights_of(plan: &SitePlan) -> SitePlan {
    let all = plan.iter().chain(plan.embeddings());
    let plan =
        all.fold(plan.clone(), |plan, (site, precision)| plan.with(site, precision.with_activations(BitWidth::FULL)));
    plan.with_kv_cache(BitWidth::FULL)
}
