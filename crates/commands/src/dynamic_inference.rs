//! Answers at few bits, and at more where the confidence is low; plans picked by budget.
//!
//! ```text
//! cargo run --release --example dynamic_inference                        a prompt, in a terminal
//! cargo run --release --example dynamic_inference -- --data dev-v1.1.json
//! ```
//!
//! All widths run from one nested 8-bit copy of the weights. Every other paragraph of the questions
//! serves to measure the plans, fit temperatures and choose thresholds; the curve is measured on the
//! rest, and written as `dynamic_inference.json` and `dynamic_inference.png`.
//!
//! What is read of each plan is kept in `dynamic/` beside them: a command that was stopped goes on there when it is
//! started again with the same flags, and other `--share`, `--points` and `--bytes` are answered from it.
//! Times of plans are of the machine and the moment: they are never kept, but measured in every run, and
//! decide nothing but what the controller picks by them. `--untimed` leaves them out.
//!
//! Several processes do its items by `--items`, `--run-item` and `--merge`: the questions read under each plan. The merge writes
//! the curve, in a terminal too.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use command_line::arguments::count::parse_up_to;
use command_line::arguments::items::{Folders, ItemArgs};
use command_line::arguments::{activations::ActivationArgs, input::InputArgs, quant::QuantArgs, run::RunArgs};
use command_line::artefact::written_text;
use command_line::contents::of_reading;
use command_line::next_command::NextCommand;
use command_line::reported::Reported;
use command_line::session::{Command, Session};
use command_line::{finish, out, outln, output, stop_on_ctrl_c, usage};
use switchable_quant::charts::Figure as _;
use switchable_quant::data::TextTokenizer;
use switchable_quant::default_model::QuestionSet;
use switchable_quant::experiments::report::stages::dynamic::cascade_curve;
use switchable_quant::experiments::running::memory::{Memory, Parts};
use switchable_quant::experiments::running::share::Share;
use switchable_quant::experiments::search::cascade::CascadeSearch;
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::reader::Evaluator;
use switchable_quant::reader::artefact::pack::Pack;
use switchable_quant::reader::artefact::saved_cascade::SavedCascade;
use switchable_quant::reader::artefact::target::ArtefactTarget;
use switchable_quant::reader::certificate::seen_data::{SeenRole, SeenSet};
use switchable_quant::reader::choice::cascade::ConfidenceCascade;
use switchable_quant::reader::choice::controller::{PlanRequest, PrecisionController};
use switchable_quant::reader::choice::latency::LatencyOptions;
use switchable_quant::reader::choice::prompt::Prompt;
use switchable_quant::reader::choice::resident::ResidentBytes;
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant::transformer::model::{SwitchableModel as _, TrainableModel};
use switchable_quant::transformer::named_plans::NamedPlans as _;
use switchable_quant::transformer::packed::form::{PackOptions, PackedForm};

/// Plans chosen at run time
#[derive(Debug, Parser)]
pub struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    quant: QuantArgs,
    #[command(flatten)]
    activations: ActivationArgs,
    /// Widths of the plans, 2 to 8
    #[arg(long, value_delimiter = ',', default_value = "2,3,4,8", value_name = "BITS,...")]
    bits: Vec<BitWidth>,
    /// Share of the best exact match that the cascade of the prompt is to reach, 0 to 1
    #[arg(long, default_value_t = 0.99, value_name = "SHARE")]
    share: f64,
    /// Bytes that the controller may use, adapters included; by default midway between the smallest and the
    /// largest plan
    #[arg(long, value_name = "BYTES")]
    bytes: Option<usize>,
    /// Most points of the curve
    #[arg(long, default_value_t = 24, value_name = "N", value_parser = parse_up_to::<10_000>)]
    points: usize,
    /// Folder of an artefact to write: nested codes with these plans, what they give and cost, and the cascade; a new
    /// name, or an artefact that it takes the place of
    #[arg(long, value_name = "DIR")]
    pack: Option<PathBuf>,
    /// Width of the embeddings and of the output matrix, a scale for each row; by default they are as the model holds
    /// them, and count in no bytes where that is full precision
    #[arg(long, value_name = "BITS")]
    embedding_bits: Option<BitWidth>,
    /// Do not time the plans
    #[arg(long)]
    untimed: bool,
    #[command(flatten)]
    items: ItemArgs,
}

/// The folder in that of the results where what is read of the plans is kept.
const READ: &str = "dynamic";

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
    let mut arguments = output::parse::<Arguments>(line);
    arguments.bits.sort_unstable();
    arguments.bits.dedup();
    arguments.check()?;
    if arguments.pack.is_some() {
        arguments
            .run
            .execution
            .refuse_bf16("`--pack` says what plans give in f32, in which artefacts run by default")?;
    }
    let pack = arguments.items.reserve_pack(arguments.pack.as_deref(), &arguments.input, &arguments.run)?;
    let out = arguments.items.prepared_out(&arguments.run, ".")?;
    let folders = Folders { out: &out, kept_in: &out.join(READ) };
    arguments.items.run(folders, &arguments.run, |share| {
        let calibration =
            arguments.quant.calibration.request(None, arguments.bits.iter().copied(), arguments.run.show())?;
        let target = pack.for_share(&share);
        arguments
            .input
            .opening(&arguments.run, arguments.quant.model_options())
            .calibrated_on(calibration)
            .with_activations(arguments.activations)
            .run(Dynamic { arguments: &arguments, out: &out, target, share })
    })
}

struct Dynamic<'a> {
    arguments: &'a Arguments,
    out: &'a Path,
    /// Where the artefact goes. It is given back before a stopped command ends.
    target: Option<ArtefactTarget>,
    share: Share,
}

impl Arguments {
    /// Looks at the flags before anything is opened or measured.
    fn check(&self) -> anyhow::Result<()> {
        let nested = BitWidth::B2..=BitWidth::B8;
        if let Some(bits) = self.bits.iter().find(|bits| !nested.contains(bits)) {
            return Err(usage(format!("`--bits {bits}`, expected 2 to 8: one nested copy of 8 bits serves all")));
        }
        if !(0.0..=1.0).contains(&self.share) {
            return Err(usage(format!("`--share {}`, expected 0 to 1", self.share)));
        }
        if self.input.null_threshold.is_some() {
            return Err(usage("`--null-threshold` does not go with confidences, which are those of spans"));
        }
        if self.points < 2 {
            return Err(usage(format!("`--points {}`, expected at least 2", self.points)));
        }
        Ok(())
    }
}

impl Command for Dynamic<'_> {
    fn reported(&self, _: &TextTokenizer) -> anyhow::Result<Vec<Reported>> {
        Ok(vec![self.arguments.input.reported(QuestionSet::HeldOut)?])
    }

    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let Self { arguments, out, target, share } = self;
        let Arguments { run, input, bits, bytes, points, untimed, .. } = arguments;
        let questions = session.questions(input, QuestionSet::HeldOut)?;
        let model = {
            let options = PackOptions { embeddings: arguments.embedding_bits, ..PackOptions::default() };
            session.plain().pack(PackedForm::Nested, &options)?
        };
        let options = run.evaluate_options(&session.machine, input.batch, &stop_on_ctrl_c()?);
        let [calibration, evaluation] = questions.task.halves()?;
        session.adapters.say_bare(bits);
        let plan = |bits: &BitWidth| model.transformer.uniform_plan(session.folder.precision(*bits));
        let plans: Vec<_> = bits.iter().map(plan).collect();
        let named: Vec<_> = plans.iter().map(|plan| model.transformer.named_plan(plan)).collect();
        let identity = questions.identity.clone().with(&of_reading(&options));
        let memory = Memory::folder(
            out.join(READ),
            identity.with_option("form", "nested").with_option("embeddings", json!(arguments.embedding_bits)),
        )
        .shared(share.clone());
        let search = CascadeSearch {
            evaluate: options.clone(),
            share: arguments.share,
            points: *points,
            seed: run.seed,
            show: run.show(),
            known: Parts::new(memory, json!({ "plans": named })),
        };
        if !share.concludes() {
            let cascade = search.calibrate(&model, &calibration, &plans)?;
            search.measure(&cascade, &model, &evaluation)?;
            return Ok(());
        }
        let (machine, resident) = (session.machine.to_string(), ResidentBytes::measure(&model, bits)?);
        outln!("running on {machine}\n{resident}");
        outln!(
            "nested codes: one tensor of 8 bits gives every width, by other values than codes of that width alone; \
             temperatures and thresholds come from {} questions, results from {} others",
            calibration.dataset.len(),
            evaluation.dataset.len()
        );
        let mut cascade = search.calibrate(&model, &calibration, &plans)?;
        if !untimed {
            let evaluator = Evaluator::new(&model, &calibration, options, &session.device)?;
            cascade = cascade.with_latencies(&evaluator, &LatencyOptions::new(&machine))?;
        }
        let controller = PrecisionController::new(&model, cascade.front.clone(), &machine)?;
        let budget = bytes.unwrap_or_else(|| controller.midway_bytes());
        outln!("picked by bytes: {}", controller.pick(PlanRequest::Bytes(budget))?.point);

        if let Some(target) = &target {
            let searched = SeenSet::new(SeenRole::Calibration, questions.name(), &calibration.dataset)?;
            let pack = Pack {
                plans: bits.iter().zip(&named).map(|(bits, plan)| (format!("bits-{bits}"), plan.clone())).collect(),
                front: Some(cascade.front.clone()),
                cascade: Some(SavedCascade::new(&model, &cascade)),
                seen: session.seen_with(vec![searched])?,
                options: PackOptions { embeddings: arguments.embedding_bits, ..PackOptions::default() },
                ..Pack::new(session.source()?, PackedForm::Nested)
            };
            outln!("{}", written_text(target.dir(), &pack.write_to(&session.folder, target)?)?);
        }
        if share.is_all() && std::io::stdin().is_terminal() && input.data.is_none() && !output::is_for_programs() {
            let cascade = ConfidenceCascade::new(&model, cascade.stages(), cascade.chosen.thresholds)?;
            let prompt = Prompt { cascade: &cascade, controller: &controller, tokenizer: &session.folder.tokenizer };
            prompt.run(std::io::stdin().lock(), std::io::stdout())?;
            return Ok(());
        }
        let measured = search.measure(&cascade, &model, &evaluation)?;
        out!("{}", measured.table(bits));
        run.tell_cache(&model.transformer);
        cascade_curve(&measured.curve, bits.iter().copied()).write(&out.join("dynamic_inference.png"))?;
        let result = json!({
            "source": questions.source, "device": machine, "quantizer": session.quantizer(), "seed": run.seed,
            "resident": resident, "front": controller.front(), "curve": measured.curve, "chosen": measured.chosen,
            "outcome": measured.outcome,
        });
        write_json(out.join("dynamic_inference.json"), &result)?;
        outln!("wrote dynamic_inference.json and dynamic_inference.png to {}", out.display());
        if let Some(target) = &target {
            NextCommand::new("serve").with_path("--model", target.dir()).say(run);
        }
        output::result(&result)
    }
}
