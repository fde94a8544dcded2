//! Bits per sub-module under a byte budget: exact allocation, verified, refined, against the greedy search.
//!
//! ```text
//! cargo run --release --example allocate
//! cargo run --release --example allocate -- --limit 100 --bits 32,4,3,2 --average-bits 3,4 --no-adapter
//! ```
//!
//! A budget is for all that the matrices take: codes, scales, and the adapters that a plan uses.
//! `--no-adapter` leaves those out.
//!
//! Estimates what every matrix costs alone at every width from one backward pass for each question, solves for the
//! whole Pareto front, measures what the plans at the budgets asked for hang on and solves again until nothing
//! changes. Then it evaluates these plans, refines them by swaps, and sets the path of a greedy search to the
//! narrowest width against the allocation of the same bytes. Writes `allocation.json` and, for each budget,
//! `plan-BITS.json`; budgets that were answered there before are in both again. `--exact` measures every matrix at
//! every width, as is done where weights are only there as codes; `--validate-estimates` says how far the estimates
//! can stand in for that.
//!
//! What is measured is kept in `allocation/` beside them: a run that was stopped goes on there,
//! and later budgets are answered from the same table. With `--solve-only` they are answered from the table
//! alone, estimated or not, without an evaluation, in `solved.json`; plans that were refined before stay. Budgets that the widths
//! cannot meet are named first and cost the others nothing; the exit code is 1 where there are any.
//!
//! Several processes do its items by `--items`, `--run-item` and `--merge`: every matrix under `--exact`, else the estimates and
//! then what the plans hang on; each budget with its swaps; the greedy search.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::Parser;
use serde::Deserialize;
use serde_json::{Value, json};

use command_line::arguments::items::{Folders, ItemArgs, say};
use command_line::arguments::widths::parse_average_bits;
use command_line::arguments::{
    activations::ActivationArgs, answers::AnswerArgs, input::InputArgs, quant::QuantArgs, run::RunArgs,
};
use command_line::artefact::searched_on;
use command_line::contents::of_reading;
use command_line::damages::{DamageSource, DamageWork};
use command_line::finished::refuse_other_work;
use command_line::next_command::say_next_of_search;
use command_line::reported::Reported;
use command_line::session::{Command, Session};
use command_line::{finish, out, outln, output, stop_on_ctrl_c};
use switchable_quant::data::TextTokenizer;
use switchable_quant::default_model::QuestionSet;
use switchable_quant::experiments;
use switchable_quant::experiments::running::computation::COMPUTATION;
use switchable_quant::experiments::running::memory::Memory;
use switchable_quant::experiments::running::share::{Left, Share};
use switchable_quant::experiments::search::allocation::budgets::{BudgetOptions, BudgetRange, RefinedAllocation};
use switchable_quant::experiments::search::allocation::damage::DamageOptions;
use switchable_quant::experiments::search::allocation::equal_bytes::GreedyPath;
use switchable_quant::experiments::search::allocation::pareto::Allocation;
use switchable_quant::experiments::search::estimates::can_be_estimated;
use switchable_quant::experiments::search::text::{budgets_text, equal_bytes_text};
use switchable_quant::identity::Identity;
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::lora::PrecisionPlan;
use switchable_quant::reader::Evaluator;
use switchable_quant::reader::artefact::target::ArtefactTarget;
use switchable_quant::reader::running::json_file::{read_json, write_json};
use switchable_quant::reader::text::plan_row;
use switchable_quant::transformer::model::{SwitchableModel as _, TrainableModel};
use switchable_quant::transformer::named_plans::NamedPlans as _;
use switchable_quant::transformer::site_plan::SitePlan;

/// Exact allocation of bits to sub-modules
#[derive(Debug, Parser)]
pub struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    answers: AnswerArgs,
    #[command(flatten)]
    quant: QuantArgs,
    #[command(flatten)]
    activations: ActivationArgs,
    /// Widths that every site may take
    #[arg(long, value_delimiter = ',', default_value = "32,16,8,6,5,4,3,2", value_name = "BITS,...")]
    bits: Vec<BitWidth>,
    /// Widths that the embeddings and the output matrix may take, such as 8,6,4: then they count in the budgets; by
    /// default they stay at full precision and count in none
    #[arg(long, value_delimiter = ',', value_name = "BITS,...")]
    embedding_bits: Vec<BitWidth>,
    /// Budgets as bits per weight, scales and adapters included; by default up to four of 2.5, 3, 4, 6, 8 and 12
    /// that the widths can meet
    #[arg(long, value_delimiter = ',', value_parser = parse_average_bits, value_name = "BITS,...")]
    average_bits: Vec<f64>,
    /// Folder of an artefact to write with the plan found: a new name, or an artefact that it takes the place of; of
    /// several budgets each has an artefact of its own in it, such as DIR/plan-4
    #[arg(long, value_name = "DIR", conflicts_with = "solve_only")]
    pack: Option<PathBuf>,
    /// Swaps tried at each budget
    #[arg(long, default_value_t = 20, value_name = "N")]
    swaps: usize,
    /// Measure every site at every width instead of estimating what does not decide
    #[arg(long)]
    exact: bool,
    /// Measure every site at every width and compare the estimates with that
    #[arg(long)]
    validate_estimates: bool,
    /// Answer from the damage of the sites alone: no plan is evaluated, refined or compared
    #[arg(long)]
    solve_only: bool,
    #[command(flatten)]
    items: ItemArgs,
}

impl Arguments {
    /// Where damage comes from: what was measured before is used.
    fn source(&self, memory: &Memory, can_be_estimated: bool) -> DamageSource {
        if self.exact || self.validate_estimates || memory.knows("damage") || !can_be_estimated {
            DamageSource::Measured
        } else if self.solve_only {
            DamageSource::Estimated
        } else {
            DamageSource::EstimatedFirst
        }
    }
}

/// The folder in that of the results where what is measured is kept.
const MEASURED: &str = "allocation";

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
    arguments.answers.check_with(&arguments.input)?;
    for bits in &arguments.bits {
        let quantizer = &arguments.quant.quantizer;
        quantizer.check(*bits, 2).with_context(|| format!("{bits} bits by `{quantizer}`"))?;
    }
    let pack = arguments.items.reserve_pack(arguments.pack.as_deref(), &arguments.input, &arguments.run)?;
    let out = arguments.items.prepared_out(&arguments.run, ".")?;
    let folders = Folders { out: &out, kept_in: &out.join(MEASURED) };
    arguments.items.run(folders, &arguments.run, |share| {
        let calibration =
            arguments.quant.calibration.request(None, arguments.bits.iter().copied(), arguments.run.show())?;
        let target = pack.for_share(&share);
        arguments
            .input
            .opening(&arguments.run, arguments.quant.model_options())
            .answering(&arguments.answers)
            .calibrated_on(calibration)
            .with_activations(arguments.activations)
            .run(Allocate { arguments: &arguments, out: &out, target, share })
    })
}

struct Allocate<'a> {
    arguments: &'a Arguments,
    out: &'a Path,
    /// Where the artefact goes. It is given back before a stopped command ends.
    target: Option<ArtefactTarget>,
    share: Share,
}

/// Mean widths asked for: those that some plan meets, and the others.
struct Budgets {
    met: Vec<f64>,
    too_small: Vec<f64>,
    range: BudgetRange,
}

impl Budgets {
    fn new(asked: &[f64], range: BudgetRange) -> anyhow::Result<Self> {
        let mut asked = if asked.is_empty() { range.defaults() } else { asked.to_vec() };
        asked.sort_by(f64::total_cmp);
        asked.dedup();
        let (met, too_small) = asked.iter().partition(|bits| range.bytes_at(**bits) >= range.least);
        let budgets = Self { met, too_small, range };
        if budgets.met.is_empty() { Err(budgets.refusal()) } else { Ok(budgets) }
    }

    /// Budgets that were met before are met again.
    fn add(&mut self, met_before: &[f64]) {
        self.met.extend_from_slice(met_before);
        self.met.sort_by(f64::total_cmp);
        self.met.dedup();
    }

    /// What is wrong with those that no plan meets.
    fn refusal(&self) -> anyhow::Error {
        let Self { too_small, range, .. } = self;
        let asked: Vec<String> = too_small.iter().map(ToString::to_string).collect();
        let (asked, least) = (asked.join(","), range.least_bits());
        anyhow!("`--average-bits {asked}` is less than every plan needs: at least {least} at the widths of `--bits`")
    }
}

/// What `allocation.json` says of the budgets that were answered.
#[derive(Deserialize)]
struct Refined {
    average_bits: Vec<f64>,
}

fn ascending(widths: &[BitWidth]) -> Vec<BitWidth> {
    let mut widths = widths.to_vec();
    widths.sort_unstable();
    widths.dedup();
    widths
}

fn allocation_text(allocation: &Allocation) -> String {
    let Allocation { bytes, average_bits, damage, .. } = allocation;
    format!("{bytes} bytes, weights of {average_bits:.2} bits, predicted damage {damage:.4} nats")
}

/// What `allocation.json` says of a plan after its swaps.
fn refined_json(row: &RefinedAllocation, plan: &PrecisionPlan) -> Value {
    json!({ "budget": row.budget, "plan": plan, "refinement": row.refinement })
}

/// The folder of one plan where several are packed.
fn target_within(target: &ArtefactTarget, bits: f64) -> anyhow::Result<ArtefactTarget> {
    Ok(ArtefactTarget::reserve(&target.dir().join(format!("plan-{bits}")))?)
}

/// The budgets that were answered before in a folder, whose results have to be of the same work.
fn answered_before(out: &Path, made_from: &Identity) -> anyhow::Result<Vec<f64>> {
    let file = out.join("allocation.json");
    refuse_other_work(&file, made_from)?;
    Ok(if file.exists() { read_json::<Refined>(&file)?.average_bits } else { Vec::new() })
}

/// Goes through results that do not need one another.
fn go_through(results: &[&dyn Fn() -> experiments::Result<()>]) -> anyhow::Result<()> {
    let mut left = Left::default();
    for result in results {
        left.unless(result())?;
    }
    Ok(left.finish()?)
}

impl Arguments {
    /// Says what was written, and what follows on the plan of the first budget.
    fn say_end(&self, name: &str, budgets: &Budgets, target: Option<&ArtefactTarget>, out: &Path) {
        outln!("wrote {name} and {} plans to {}", budgets.met.len(), out.display());
        let Some(first) = budgets.met.first() else { return };
        // Several plans are a folder each.
        let single = target.filter(|_| budgets.met.len() == 1);
        say_next_of_search(&self.run, (&self.input, &self.answers), single, &out.join(format!("plan-{first}.json")));
    }
}

impl Command for Allocate<'_> {
    fn reported(&self, _: &TextTokenizer) -> anyhow::Result<Vec<Reported>> {
        Ok(vec![self.arguments.input.reported(QuestionSet::Search)?])
    }

    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let Self { arguments, out, target, share } = self;
        let Arguments { run, input, answers, bits, embedding_bits, average_bits, solve_only, .. } = arguments;
        let [bits, embeddings] = [bits, embedding_bits].map(|widths| ascending(widths));
        let choices: Vec<_> = bits.iter().map(|bits| session.folder.precision(*bits)).collect();
        let model = session.plain();
        answers.check_mixed_heads(&model, &choices)?;
        let mut budgets = Budgets::new(average_bits, BudgetRange::of(&model.transformer, &choices, &embeddings))?;
        if !budgets.too_small.is_empty() {
            eprintln!("{}; the other budgets are answered", budgets.refusal());
        }
        let questions = session.questions_as(answers, input, run.seed, QuestionSet::Search, &[])?.0;
        let mut options = run.evaluate_options(&session.machine, input.batch, &stop_on_ctrl_c()?);
        options.decode.null = input.null_rule(questions.task.dataset().format)?;
        let evaluator = Evaluator::new(&model, &questions.task, options, &session.device)?;
        let full = model.transformer.uniform_plan(session.folder.precision(BitWidth::FULL));
        let (low, show) = (choices[0], run.show());
        session.adapters.say_bare(&bits);

        let made_from =
            json!({ "choices": choices, "reference": model.transformer.named_plan(&full), "seed": run.seed });
        let identity = questions.identity.clone().with(&of_reading(evaluator.options())).with_options(made_from);
        let of_embeddings = (!embeddings.is_empty()).then(|| json!(embeddings));
        let identity = identity.with_option("embeddings", of_embeddings);
        let memory = Memory::folder(out.join(MEASURED), identity.clone()).shared(share.clone());
        let source = arguments.source(&memory, can_be_estimated(&model.transformer, &full));
        let estimated = (source != DamageSource::Measured).then(|| json!("estimated"));
        let identity = identity.with_option("damage", estimated);
        let made_from = identity.computed_by(COMPUTATION);
        let refined_before = answered_before(out, &made_from)?;
        if !solve_only {
            budgets.add(&refined_before);
        }
        if ["damage", "estimates"].iter().any(|name| memory.knows(name)) {
            say(&share, format!("the damage of every site is known from {}\n", out.join(MEASURED).display()));
        }
        let bytes: Vec<usize> = budgets.met.iter().map(|bits| budgets.range.bytes_at(*bits)).collect();
        let options = DamageOptions { seed: run.seed, show, embeddings, ..DamageOptions::new(choices) };
        let work = DamageWork { reference: &full, options, budgets: &bytes, memory: &memory };
        let damages = work.from_source::<B, M>(&evaluator, source)?;
        let table = &damages.whole;
        let (swaps, known) = (arguments.swaps, memory.within("budgets"));
        let how = BudgetOptions { swaps, show, known, ..BudgetOptions::default() };
        let refined = || damages.refined(&evaluator, (&full, &bytes), &how);
        let towards = GreedyPath { low, show, known: memory.within("greedy") };
        let compared = || work.against_greedy(&evaluator, table, &towards);
        let validated = || work.validated::<B, M>(&evaluator, table);
        if !share.concludes() {
            let estimates = || if arguments.validate_estimates { validated().map(drop) } else { Ok(()) };
            let plans = || if *solve_only { Ok(()) } else { refined().map(drop) };
            let path = || if *solve_only { Ok(()) } else { compared().map(drop) };
            return go_through(&[&estimates, &plans, &path]);
        }
        let front = table.pareto_front();
        outln!("running on {}\n{} plans on the Pareto front", session.machine, front.len());
        outln!("{}", plan_row("reference", &table.reference, full.average_weight_bits()));

        let save = |bits: f64, plan: &SitePlan| model.named_plan(plan).save(out.join(format!("plan-{bits}.json")));
        out!("{}", damages.text());
        let solved = damages.solved(&bytes)?;
        for (bits, allocation) in budgets.met.iter().zip(&solved) {
            if refined_before.contains(bits) {
                outln!("{bits} bits: plan-{bits}.json was refined before, and stays");
            } else {
                save(*bits, &model.transformer.resolve(&allocation.plan)?)?;
                outln!("solved for {bits} bits: {}", allocation_text(allocation));
            }
        }
        let points: Vec<_> = front.iter().map(|plan| (plan.bytes, plan.damage, plan.average_bits)).collect();
        let mut result = json!({
            "made_from": made_from, "source": questions.source, "device": session.machine.to_string(),
            "quantizer": session.quantizer(), "seed": run.seed, "n": table.n, "front": points, "table": table,
            "average_bits": budgets.met, "too_small": budgets.too_small, "solved": solved,
        });
        if arguments.validate_estimates {
            let (text, validation) = validated()?;
            out!("{text}");
            result["validation"] = validation;
        }
        if !solve_only {
            let refined = refined()?;
            out!("{}", budgets_text(&refined));
            for (bits, row) in budgets.met.iter().zip(&refined) {
                save(*bits, &row.plan)?;
                if let Some(target) = &target {
                    let searched = searched_on(&questions.name(), questions.task.dataset())?;
                    let own = (refined.len() > 1).then(|| target_within(target, *bits)).transpose()?;
                    outln!("{}", session.pack_plan(&row.plan, searched, own.as_ref().unwrap_or(target))?);
                }
            }
            let compared = compared()?;
            towards.known.forget()?;
            out!("{}", equal_bytes_text(&compared.equal_bytes, table.n));
            result["verified"] = json!(refined.iter().map(|row| &row.verified).collect::<Vec<_>>());
            result["refined"] = refined.iter().map(|row| refined_json(row, &model.named_plan(&row.plan))).collect();
            result["greedy"] = json!(compared.greedy);
            result["equal_bytes"] = json!(compared.equal_bytes);
        }
        let name = if *solve_only { "solved.json" } else { "allocation.json" };
        write_json(out.join(name), &result)?;
        arguments.say_end(name, &budgets, target.as_ref(), out);
        output::result(&result)?;
        if budgets.too_small.is_empty() { Ok(()) } else { Err(budgets.refusal()) }
    }
}
