//! Which sub-modules can afford how few bits: sensitivity of every site, then the greedy search.
//!
//! ```text
//! cargo run --release --example greedy_search
//! cargo run --release --example greedy_search -- --model DIR --data dev-v1.1.json --limit 200
//! cargo run --release --example greedy_search -- --model DIR --data dev-v1.1.json --task generate --limit 200
//! ```
//!
//! Without arguments it searches the built-in model: first the same width everywhere, at 4, 3 and 2
//! bits; then, at the highest of them that costs more than the noise, each of the 48 matrices alone,
//! and one after another until a tenth of the full-precision exact match is lost. It prints the heat
//! map and the path, and checks the plan on questions that the search did not see. Then it searches down a ladder
//! of widths, without adapters, and sets that plan beside one width everywhere on the same questions. It writes
//! `greedy_search.json`, `plan.json` and `ladder-plan.json`. `--ladder` searches down a ladder alone, on any model. A
//! search that was stopped goes on where it was when it is started again with the same flags.
//!
//! Several processes do its items by `--items`, `--run-item` and `--merge`: one width everywhere, then each matrix alone. The
//! search itself goes flip by flip, and belongs to the merge.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};

pub use command_line::arguments::greedy::Arguments;
use command_line::arguments::items::{Folders, say};
use command_line::artefact::searched_on;
use command_line::contents::of_reading;
use command_line::ladder::{LADDER_PLAN, LadderCommand, default_ladder};
use command_line::next_command::say_next_of_search;
use command_line::reported::Reported;
use command_line::session::{Command, Questions, Session};
use command_line::{finish, out, outln, output, stop_on_ctrl_c};
use switchable_quant::data::TextTokenizer;
use switchable_quant::experiments::running::memory::{Memory, Parts};
use switchable_quant::experiments::running::share::Share;
use switchable_quant::experiments::search::greedy::{GreedyOptions, GreedyStart, StopAt, greedy_search};
use switchable_quant::experiments::search::sensitivity::{Part, SensitivityOptions, sensitivity, sensitivity_names};
use switchable_quant::experiments::search::text::{greedy_text, sensitivity_text, tolerance_text, uniform_text};
use switchable_quant::experiments::search::uniform::{SweepOptions, uniform_sweep};
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::reader::artefact::target::ArtefactTarget;
use switchable_quant::reader::evaluation::question_task::{QuestionTask, TaskRef};
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant::reader::text::{cost_table, difference, plan_row};
use switchable_quant::reader::{Accuracy, Cost, Evaluator};
use switchable_quant::transformer::model::{SwitchableModel as _, TrainableModel};
use switchable_quant::transformer::site_plan::SitePlan;

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
    arguments.check()?;
    let pack = arguments.items.reserve_pack(arguments.pack.as_deref(), &arguments.input, &arguments.run)?;
    let out = arguments.items.prepared_out(&arguments.run, ".")?;
    let folders = Folders { out: &out, kept_in: &out.join(SEARCH) };
    arguments.items.run(folders, &arguments.run, |share| {
        let asked = arguments.bits.into_iter().chain(arguments.ladder.ladder.iter().copied());
        let calibration = arguments.quant.calibration.request(None, asked, arguments.run.show())?;
        let target = pack.for_share(&share);
        let (arguments, out) = (&arguments, out.as_path());
        let opening =
            arguments.input.opening(&arguments.run, arguments.quant.model_options()).answering(&arguments.answers);
        let opening = opening.calibrated_on(calibration).with_activations(arguments.activations);
        if arguments.ladder.ladder.is_empty() {
            opening.run(Search { arguments, out, target, share })
        } else {
            opening.run(LadderCommand { arguments, out, search: SEARCH, target })
        }
    })
}

/// The folder in that of the results where a search keeps what is done of it, so that it goes on there,
/// is read again when it is done, and is not written over by another.
const SEARCH: &str = "search";
/// The plan of the study's search, in the folder of the results.
const PLAN: &str = "plan.json";

/// What a search depends on, with the width of the embeddings where it flips them.
fn with_embeddings(mut options: Value, embeddings: Option<BitWidth>) -> Value {
    if let Some(bits) = embeddings {
        options["embeddings"] = json!(bits);
    }
    options
}

/// Packs a plan where that is asked for, and says which of those in the folder of the results it is.
fn pack<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    session: &Session<B, M>,
    input: &Questions<QuestionTask>,
    (plan, name): &(SitePlan, &str),
    target: Option<&ArtefactTarget>,
) -> anyhow::Result<()> {
    let Some(target) = target else { return Ok(()) };
    let searched = searched_on(&input.name(), input.task.dataset())?;
    outln!("{}, by {name}", session.pack_plan(plan, searched, target)?);
    Ok(())
}

struct Search<'a> {
    arguments: &'a Arguments,
    out: &'a Path,
    /// Where the artefact goes. It is given back before a stopped command ends.
    target: Option<ArtefactTarget>,
    share: Share,
}

impl Command for Search<'_> {
    fn reported(&self, _: &TextTokenizer) -> anyhow::Result<Vec<Reported>> {
        self.arguments.reported()
    }

    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let Self { arguments, out, target, share } = self;
        let (run, seed, quantizer) = (&arguments.run, arguments.run.seed, session.quantizer());
        let start = Instant::now();
        let (input, asking) = arguments.searched(&session)?;
        say(&share, session.heading(&input.source));

        let (model, high) = (session.plain(), session.folder.precision(arguments.high));
        let reference = model.transformer.uniform_plan(high);
        let mut options = run.evaluate_options(&session.machine, arguments.input.batch, &stop_on_ctrl_c()?);
        options.decode.null = arguments.input.null_rule(input.task.dataset().format)?;
        let evaluator = Evaluator::new(&model, &input.task, options.clone(), &session.device)?;

        let candidates = arguments.candidates().into_iter().map(|bits| session.folder.precision(bits));
        let precisions: Vec<_> = std::iter::once(high).chain(candidates).collect();
        arguments.answers.check_mixed_heads(&model, &precisions)?;
        let identity = input.identity.clone().with(&of_reading(evaluator.options())).with_options(json!({
            "seed": seed, "high": high, "precisions": precisions,
        }));
        // What is known of a search that was stopped.
        let memory = Memory::folder(out.join(SEARCH), identity).shared(share.clone());
        let sweep = SweepOptions { seed, show: run.show(), known: memory.within("uniform") };
        let uniform = uniform_sweep(&evaluator, &precisions, &sweep)?;
        say(&share, uniform_text(&uniform));
        let too_few = match arguments.stop_at() {
            StopAt::Tolerance(tolerance) => tolerance_text(tolerance, &uniform[0].accuracy),
            _ => String::new(),
        };
        arguments.check_something_to_lose(&uniform[0].accuracy)?;
        say(&share, &too_few);
        let costly = uniform[1..].iter().find(|row| row.is_costly());
        let low = costly.unwrap_or(&uniform[1]).precision;
        if costly.is_none() && too_few.is_empty() {
            let bits = low.weights;
            let flips = format!("the search at {bits} bits may flip everything");
            say(&share, format!("No width tried costs more than the noise; {flips}.\n"));
        }

        let embeddings = arguments.embedding_bits;
        let (stop_at, ranking, trials) = (arguments.stop_at(), arguments.ranking(), arguments.trials());
        let greedy =
            GreedyOptions { stop_at, ranking, trials, embeddings, show: run.show(), ..GreedyOptions::new(low) };
        greedy.check_reachable(&model.transformer, &reference)?;

        let known = |made_from| Parts::new(memory.clone(), made_from);
        let how = SensitivityOptions {
            seed,
            show: run.show(),
            embeddings,
            known: known(with_embeddings(json!({ "low": low }), embeddings)),
            ..SensitivityOptions::new(Part::Site, low)
        };
        let names = sensitivity_names(reference.sites(), &how);
        let (sites, kept) = how.known.gather(&names, || sensitivity(&evaluator, &reference, &how))?;
        out!("{}", sensitivity_text(&sites));

        let options_of_search = json!({ "low": low, "stop_at": stop_at, "ranking": ranking });
        let greedy = GreedyOptions { known: known(with_embeddings(options_of_search, embeddings)), ..greedy };
        let start_at = GreedyStart { reference: &reference, sensitivity: &sites, kept };
        let (result, plan) = greedy_search(&evaluator, start_at, &greedy)?;
        out!("{}", greedy_text(&result, &sites, arguments.high));

        let cost = Cost::of(&model.transformer, &plan);
        out!("{}{}", cost_table(&cost), arguments.answers.head_text(&model, &plan)?);
        let rows = |before: &Accuracy, after: &Accuracy| {
            outln!("{}", plan_row("all sites high", before, f64::from(arguments.high.bits())));
            outln!("{}", plan_row("plan found", after, cost.average_bits));
        };
        outln!("\non the questions of the search");
        rows(&result.reference, &result.accuracy);

        let (mut held_out, mut ladder) = (Value::Null, Value::Null);
        let mut packed = (plan.clone(), PLAN);
        if arguments.input.data.is_none() {
            let task = session.task_as(&asking, arguments.held_out()?)?;
            let held_out_questions = Evaluator::new(&model, &task, options, &session.device)?;
            let of_plan = json!({ "plan": model.named_plan(&plan), "questions": TaskRef::from(&task).content() });
            let (before, after, comparison) = memory.recall("held-out", &of_plan, || {
                let (before, after) = (held_out_questions.evaluate(&reference)?, held_out_questions.evaluate(&plan)?);
                let comparison = before.compare(&after, seed);
                Ok((before, after, comparison))
            })?;
            outln!("on questions the search did not see");
            rows(&before, &after);
            outln!("{}", difference(&comparison));
            held_out = json!({ "high": before, "plan": after, "comparison": comparison });
            if arguments.is_main_job() {
                let (found, plan) = default_ladder(&session, [&evaluator, &held_out_questions], &(run, memory))?;
                plan.save(out.join(LADDER_PLAN))?;
                packed = (model.resolve(&plan)?, LADDER_PLAN);
                ladder = found;
            }
        }

        let seconds = start.elapsed().as_secs_f64();
        let found = json!({
            "source": input.source, "device": session.machine.to_string(), "quantizer": quantizer, "seed": seed,
            "n": sites.reference.n, "high": arguments.high, "low": low.weights, "stop_at": stop_at, "ranking": ranking,
            "search": result, "average_bits": cost.average_bits, "cost": cost, "held_out": held_out,
            "uniform": uniform, "sensitivity": sites, "ladder": &ladder, "seconds": seconds,
        });
        write_json(out.join("greedy_search.json"), &found)?;
        model.named_plan(&plan).save(out.join(PLAN))?;
        pack(&session, &input, &packed, target.as_ref())?;
        run.tell_cache(&model.transformer);
        let plans = if ladder.is_null() { PLAN.to_owned() } else { format!("{PLAN}, {LADDER_PLAN}") };
        outln!("\n{seconds:.0} s; wrote greedy_search.json and {plans} to {}", out.display());
        say_next_of_search(run, (&arguments.input, &arguments.answers), target.as_ref(), &out.join(packed.1));
        output::result(&found)
    }
}
