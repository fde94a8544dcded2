//! Packs a model and shows what is on disk and how far its logits are from those of floats.
//!
//! ```text
//! cargo run --release --example pack_gpt2 -- --bits 4 --out runs/packed
//! cargo run --release --example pack_gpt2 -- --model DIR --plan plan.json --out runs/packed \
//!     --quantizer per-channel,symmetric,min-max --embedding-bits 8
//! cargo run --release --example pack_gpt2 -- --model DIR --nested --out runs/packed
//! ```
//!
//! Writes an artefact, whole or not at all: codes, span head if the model has one, tokenizer, configuration, the
//! adapters beside the model or those of `--adapters` with their learned steps, plans, model card, and the hashes
//! of all of it. Every example takes it as `--model`. Loads it again and compares its logits with those of the
//! model in floats rounded to the levels of the plan: but for the order of sums the two are the same. Without
//! `--model` it packs the built-in model.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Map, Value, json};

use command_line::arguments::execution::ExecutionArgs;
use command_line::arguments::plan::{PlanArgs, PlanFile};
use command_line::arguments::reading::ReadingArgs;
use command_line::artefact::{reserve_target, searched_on};
use command_line::contents::name_of;
use command_line::files::{load_questions, resolve_data, resolve_model};
use command_line::logits::logits_of_a_formula;
use command_line::session::{Command, Opening, Session};
use command_line::{finish, out, outln, output, stop_on_ctrl_c, stoppable, usage};
use switchable_quant::burn::module::AutodiffModule as _;
use switchable_quant::burn::tensor::{ElementConversion as _, Tensor};
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::device::DeviceChoice;
use switchable_quant::experiments::running::progress::ShowProgress;
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend, QuantBackend, ScaleFormat};
use switchable_quant::lora::PrecisionPlan;
use switchable_quant::lora::packed_weights::PackedWeights;
use switchable_quant::lora::switchable_linear::SwitchableLinear;
use switchable_quant::reader::artefact::pack::Pack;
use switchable_quant::reader::artefact::target::ArtefactTarget;
use switchable_quant::reader::certificate::model_files::ModelFiles;
use switchable_quant::reader::certificate::seen_data::SeenSet;
use switchable_quant::reader::choice::front::MeasuredFront;
use switchable_quant::reader::model_folder::{FolderOptions, OwnAdapters};
use switchable_quant::reader::text::{head_text, quantisers_text};
use switchable_quant::transformer::adapters::AdapterFolders as _;
use switchable_quant::transformer::config::ModelConfig as _;
use switchable_quant::transformer::model::{SwitchableModel, TrainableModel};
use switchable_quant::transformer::packed::PackModel as _;
use switchable_quant::transformer::packed::form::{PackOptions, PackedForm, WidthScales};
use switchable_quant::transformer::span_head::{ForQuestionAnswering, MissingHead};
use switchable_quant::transformer::width_heads::HeadChoice;

/// Packs a model at 2 to 8 bits
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Hugging Face folder of a GPT-2 or a Llama, or a name such as openai-community/gpt2 to download;
    /// by default the model that is part of the program
    #[arg(long, value_name = "DIR|NAME")]
    model: Option<String>,
    /// Folder of adapters, one sub-folder per width (bits-4, bits-8, …); by default `adapters` in the folder of
    /// the model, where there is one
    #[arg(long, value_name = "DIR")]
    adapters: Option<PathBuf>,
    /// Pack without adapters
    #[arg(long, conflicts_with = "adapters")]
    no_adapter: bool,
    /// Width of every site, with its adapter where there is one; sites above 8 bits stay in floats
    #[arg(long, default_value = "4", value_name = "BITS")]
    bits: BitWidth,
    #[command(flatten)]
    plan: PlanArgs,
    /// 8-bit codes that serve every lower width too, instead of --bits
    #[arg(long, conflicts_with_all = ["bits", "plan"])]
    nested: bool,
    /// Scales of the widths below 8 bits, where no steps were learned for them: powers-of-two times those of 8 bits,
    /// or those that the quantizer finds at the width, which adapters of the width were trained on
    #[arg(long, requires = "nested", value_name = "powers-of-two|quantizer")]
    width_scales: Option<WidthScales>,
    /// Span head that the folder answers with where the plan's adapters came with different ones: base, or the
    /// bits of the adapter that brought it
    #[arg(long, value_name = "base|BITS")]
    span_head: Option<HeadChoice>,
    /// Numbers of the scales: f32, or f16, which halves their bytes; those of a matrix that f16 does not hold are
    /// f32 all the same
    #[arg(long, default_value = "f32", value_name = "f32|f16")]
    scales: ScaleFormat,
    /// Front of measured plans: with --nested, each of them becomes a plan of the artefact, front-1, front-2, …; what
    /// they give on nested codes is measured by `dynamic_inference --pack`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bits", "plan"])]
    front: Option<PathBuf>,
    /// SQuAD file of questions that the plan was searched on, or generated for those of the built-in model, as often as
    /// there are; `made_from.json` then says so, and `certify` refuses to measure the cost on them
    #[arg(long, value_name = "FILE")]
    search_data: Vec<String>,
    /// Folder to write: a new name, or an artefact that it takes the place of
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
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
    let dir = arguments.model.as_deref().map(resolve_model).transpose()?;
    let read = [dir.as_deref(), arguments.adapters.as_deref()];
    let target = reserve_target(&arguments.out, &read.into_iter().flatten().collect::<Vec<_>>())?;
    if arguments.front.is_some() && !arguments.nested {
        return Err(usage("`--front` needs `--nested`: codes of one width cannot run plans of several"));
    }
    let searched = arguments.search_data.iter().map(|name| searched_set(name)).collect::<anyhow::Result<Vec<_>>>()?;
    let front = arguments.front.as_ref().map(MeasuredFront::load).transpose()?;
    let plan = arguments.plan.read()?;
    if let Some(plan) = &plan {
        plan.check_span_head(arguments.span_head)?;
    }
    let own = if arguments.no_adapter { OwnAdapters::LeftOut } else { OwnAdapters::Used };
    let options = FolderOptions {
        model: arguments.plan.model_options(plan.as_ref()),
        missing_head: MissingHead::Random(0),
        adapters: own,
        quantiser: arguments.plan.quantiser(),
        activations: arguments.plan.activations.activations,
    };
    let (device, model) = (arguments.device, arguments.model.as_deref());
    let (adapters, mixed_head) = (arguments.adapters.as_deref(), arguments.span_head);
    let execution = ExecutionArgs::SIMULATED;
    let uniform = (plan.is_none() && !arguments.nested).then_some(arguments.bits);
    let calibration = arguments.plan.calibration_request(plan.as_ref(), uniform, ShowProgress::Yes)?;
    let opening = Opening { device, model, adapters, options, mixed_head, execution, calibration };
    stoppable(|| opening.run(Packing { arguments: &arguments, plan, dir: dir.as_deref(), searched, front, target }))
}

/// The questions of a file that a plan was searched on.
fn searched_set(name: &str) -> anyhow::Result<SeenSet> {
    let questions = match name {
        "generated" => default_model::questions(QuestionSet::Search)?,
        _ => load_questions(&resolve_data(name)?, ReadingArgs::default())?.dataset,
    };
    searched_on(&name_of(Path::new(name)), &questions)
}

struct Packing<'a> {
    arguments: &'a Arguments,
    /// What the plan was searched on.
    searched: Vec<SeenSet>,
    front: Option<MeasuredFront>,
    plan: Option<PlanFile>,
    /// The model's folder; none is that of the built-in model.
    dir: Option<&'a Path>,
    /// Where the artefact goes. It is given back before a stopped command ends.
    target: ArtefactTarget,
}

impl Command for Packing<'_> {
    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let Self { arguments, plan, dir, searched, front, target } = self;
        let out = &arguments.out;
        // Whoever stops the command waits for the folder that is being written, of which nothing is left then.
        let stop = stop_on_ctrl_c()?;
        let has_head = dir.map_or(Ok(true), |dir| ForQuestionAnswering::<B, M>::holds_head(dir))?;
        let folder = &session.folder;
        let uniform = folder.precision(if arguments.nested { BitWidth::B8 } else { arguments.bits });
        arguments.plan.check_model(&folder.model.transformer)?;
        let plan = match &plan {
            Some(file) => file.resolve(&folder.model)?,
            None => folder.model.transformer.uniform_plan(uniform),
        };
        let plan = arguments.plan.with_embeddings(&folder.model.transformer, plan);
        let head = if has_head { head_text(&folder.model, &plan)? } else { String::new() };
        eprint!("{}{head}", quantisers_text(&folder.model.transformer, &plan));
        let points = front.iter().flat_map(MeasuredFront::points);
        let plans: BTreeMap<String, PrecisionPlan> =
            points.enumerate().map(|(index, point)| (format!("front-{}", index + 1), point.plan.clone())).collect();
        let form = if arguments.nested { PackedForm::Nested } else { PackedForm::Plan(&plan) };
        let options = PackOptions {
            scale_format: arguments.scales,
            width_scales: arguments.width_scales.unwrap_or_default(),
            embeddings: arguments.plan.embedding_bits,
        };
        let model = folder.model.valid().transformer;
        let largest = |x: Tensor<B::InnerBackend, 3>| x.abs().max().into_scalar().elem::<f32>();
        let expected = logits_of_a_formula(&model, &model.plan_of(form, &options)?);
        let highest = largest(expected.clone());
        anyhow::ensure!(highest.is_finite(), "the model computes numbers that are not finite: {highest} in its logits");
        // A plan was searched on something: without its questions the record would not be whole.
        let is_searched = arguments.plan.plan.is_some() || arguments.front.is_some();
        let seen = if is_searched && searched.is_empty() {
            eprintln!(
                "the artefact does not say which questions its plan was searched on, so that it cannot be certified: \
                 `--search-data` names them"
            );
            None
        } else {
            let seen = session.seen_with(searched)?;
            if seen.is_none() {
                eprintln!(
                    "nothing here says which questions the model was made from, so that the artefact cannot be certified: \
                     `--search-data` names questions that it has seen"
                );
            }
            seen
        };
        let wide = plan.iter().filter(|(_, precision)| precision.weights > BitWidth::B8).count();
        if wide > 0 && !arguments.nested {
            eprintln!("{wide} sites are above 8 bits and stay in floats");
        }
        let pack = Pack { options, has_span_head: has_head, seen, plans, ..Pack::new(session.source()?, form) };
        stop.check()?;
        let packed = pack.write_to(&session.folder, &target)?;
        let Some(packed_plan) = packed.plan.clone() else { unreachable!("a folder of codes has a plan") };
        let packed = packed.model.valid().transformer;
        outln!("wrote {}: {}", out.display(), contents(&packed, has_head));
        out!("{}", other_scales(&packed, arguments.scales));
        let difference = largest(logits_of_a_formula(&packed, &packed_plan) - expected);
        outln!("largest difference of a logit from the simulated plan {difference:.1e}, largest logit {highest:.1}");

        let in_floats = |parameters: usize| size_of::<f32>() * parameters;
        let (all, sites) = (model.sites(), in_floats(model.config().site_parameters()));
        let embeddings = in_floats(all.embeddings().map(|site| all.parameters(site)).sum());
        let floats = in_floats(model.config().parameters());
        let rows = [
            ("matrices", packed.site_bytes() as u64, sites, "f32"),
            ("embeddings", packed.embedding_bytes() as u64, embeddings, "f32"),
            ("codes", std::fs::metadata(out.join("packed.safetensors"))?.len(), floats, "the model in f32"),
            ("artefact", ModelFiles::of_folder(out)?.model_bytes(), floats, "the model in f32"),
        ];
        for (name, bytes, in_floats, of) in rows {
            outln!("{name:<12} {bytes:>11} bytes, {:.4} of {of}", bytes as f64 / in_floats as f64);
        }
        let bytes: Map<String, Value> =
            rows.into_iter().map(|(name, bytes, ..)| (name.to_owned(), json!(bytes))).collect();
        output::result(&json!({
            "artefact": out, "bytes": bytes, "f32_bytes": floats, "largest_difference": difference, "largest_logit": highest,
        }))
    }
}

/// Which matrices have scales in other numbers than those that were asked for.
fn other_scales<B: QuantBackend, M: SwitchableModel<B>>(packed: &M, asked: ScaleFormat) -> String {
    let of_site = |site| {
        let scales = packed.site(site).packed_weights()?.stored().scale_format();
        (scales != asked).then(|| packed.sites().name(site))
    };
    let of_embedding = |site| {
        let scales = packed.embedding_site(site).packed_weights()?.stored().scale_format();
        (scales != asked).then(|| packed.sites().name(site))
    };
    let sites = packed.sites();
    let names: Vec<String> =
        sites.iter().filter_map(of_site).chain(sites.embeddings().filter_map(of_embedding)).collect();
    if names.is_empty() {
        return String::new();
    }
    let (n, names) = (names.len(), names.join(", "));
    format!("scales of {n} matrices are f32, as {asked} holds 6.1e-5 to 65504 and some of theirs are not: {names}\n")
}

/// The widths of a site that have scales of their own beside those of 8 bits.
fn own_widths<B: QuantBackend>(layer: &SwitchableLinear<B>) -> Vec<BitWidth> {
    match layer.packed_weights() {
        Some(PackedWeights::Nested(nested)) => nested.own_widths().collect(),
        _ => Vec::new(),
    }
}

/// What the folder holds, in words.
fn contents<B: QuantBackend, M: SwitchableModel<B>>(model: &M, has_head: bool) -> String {
    let head = if has_head { "span head" } else { "no span head" };
    let widths: Vec<String> = model.adapter_widths().iter().map(ToString::to_string).collect();
    let adapters = if widths.is_empty() {
        "no adapters beside the codes".to_owned()
    } else {
        format!("adapters of {} bits", widths.join(", "))
    };
    let own: BTreeSet<BitWidth> = model.sites().iter().flat_map(|site| own_widths(model.site(site))).collect();
    let own: Vec<String> = own.iter().map(ToString::to_string).collect();
    let scales = if own.is_empty() { String::new() } else { format!(", scales for {} bits", own.join(", ")) };
    format!("codes{scales}, {head}, tokenizer, {adapters}")
}
