//! Searches down a ladder of widths, and what they find beside one width everywhere.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Value, json};

use switchable_quant::data::TextTokenizer;
use switchable_quant::experiments::running::memory::{Memory, Parts};
use switchable_quant::experiments::running::progress::ShowProgress;
use switchable_quant::experiments::search::allocation::budgets::BudgetRange;
use switchable_quant::experiments::search::allocation::damage::DamageOptions;
use switchable_quant::experiments::search::estimates::{can_be_estimated, estimate_damage};
use switchable_quant::experiments::search::greedy::StopAt;
use switchable_quant::experiments::search::ladder::ladder_search;
use switchable_quant::experiments::search::ladder::options::{LadderOptions, LadderStart};
use switchable_quant::experiments::search::ladder::result::LadderResult;
use switchable_quant::experiments::search::ladder::rungs::Ladder;
use switchable_quant::experiments::search::ladder::text::ladder_text;
use switchable_quant::experiments::search::rivals::AgainstUniform;
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::lora::{PrecisionPlan, SitePrecision};
use switchable_quant::reader::artefact::target::ArtefactTarget;
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant::reader::text::{cost_table, plan_row};
use switchable_quant::reader::{Cost, Evaluator};
use switchable_quant::transformer::model::{SwitchableModel as _, TrainableModel};
use switchable_quant::transformer::named_plans::NamedPlans as _;
use switchable_quant::transformer::site_plan::SitePlan;

use crate::arguments::{greedy::Arguments, run::RunArgs};
use crate::artefact::searched_on;
use crate::contents::{name_of, of_reading};
use crate::next_command::say_next_of_search;
use crate::reported::Reported;
use crate::session::{Command, Session};
use crate::{out, outln, output, stop_on_ctrl_c};

/// The widths of the ladder that the built-in model is searched down.
pub const DEFAULT_LADDER: [BitWidth; 6] =
    [BitWidth::FULL, BitWidth::B8, BitWidth::B6, BitWidth::B4, BitWidth::B3, BitWidth::B2];

/// The plan of a ladder, in the folder of the results.
pub const LADDER_PLAN: &str = "ladder-plan.json";

/// What a search down a ladder depends on.
#[derive(Debug, Clone)]
pub struct Descending {
    /// The widths.
    pub ladder: Ladder,
    /// Where the search ends.
    pub stop_at: StopAt,
    /// Where the first scores come from.
    pub first_scores: FirstScores,
    /// Seed of the estimates and the bootstraps.
    pub seed: u64,
    /// Whether progress is shown.
    pub show: ShowProgress,
    /// What is known from before.
    pub known: Memory,
}

/// Where the scores of first steps come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstScores {
    /// From gradients, where weights are floats.
    Estimated,
    /// From evaluations.
    Measured,
}

impl Descending {
    /// Searches from a plan down.
    ///
    /// # Errors
    ///
    /// As [`estimate_damage`] and [`ladder_search`].
    pub fn search<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        evaluator: &Evaluator<'_, B::InnerBackend, M::InnerModule>,
        reference: &SitePlan,
    ) -> anyhow::Result<(LadderResult, SitePlan)> {
        let Self { ladder, stop_at, first_scores, seed, show, known } = self;
        let is_estimated =
            *first_scores == FirstScores::Estimated && can_be_estimated(&evaluator.model().transformer, reference);
        let made_from = json!({ "ladder": ladder, "stop_at": stop_at, "estimated": is_estimated });
        let steps = Parts::new(known.within("ladder"), made_from);
        let options =
            LadderOptions { stop_at: *stop_at, show: *show, known: steps, ..LadderOptions::new(ladder.clone()) };
        // Before anything is kept: where the search ends has no part in the estimates.
        options.check_reachable(&evaluator.model().transformer, reference)?;
        let how = DamageOptions {
            embeddings: ladder.embedding_widths(),
            seed: *seed,
            show: *show,
            known: Parts::new(known.within("estimates"), json!({ "ladder": ladder })),
            ..DamageOptions::new(ladder.rungs().to_vec())
        };
        let scores = is_estimated.then(|| estimate_damage::<B, M>(evaluator, reference, &how)).transpose()?;
        Ok(ladder_search(evaluator, LadderStart { reference, scores: scores.as_ref() }, &options)?)
    }
}

/// A plan beside one width everywhere, with and without the adapters that the model has, on the held-out questions
/// of the built-in model.
///
/// # Errors
///
/// When an adapter does not fit, or the work is stopped.
pub fn beside_uniform<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    session: &Session<B, M>,
    evaluator: &Evaluator<'_, B::InnerBackend, M::InnerModule>,
    plan: &SitePlan,
    seed: u64,
) -> switchable_quant::experiments::Result<AgainstUniform> {
    use BitWidth as Bits;
    let widths = [Bits::B2, Bits::B3, Bits::B4, Bits::B5, Bits::B6, Bits::B8, Bits::B16, Bits::FULL];
    let quantizer = session.quantizer();
    let has = widths.into_iter().filter(|&bits| quantizer.check(bits, 2).is_ok());
    let mut precisions: Vec<SitePrecision> = has
        .map(|bits| session.folder.precision(bits))
        .flat_map(|precision| [precision.without_adapter(), precision])
        .collect();
    precisions.dedup();
    let body = &evaluator.model().transformer;
    // Embeddings as the plan has them: what is compared is how the sites are rounded.
    let uniform = |precision| body.uniform_plan(precision).with_embeddings_of(plan);
    let plans: Vec<SitePlan> = precisions.into_iter().map(uniform).collect();
    AgainstUniform::measure(evaluator, plan, &plans, seed)
}

/// The search down the default ladder that follows that of the study, on questions to search and held-out ones, as
/// JSON, and its plan. It loses no answer of the questions searched, and runs without adapters: those of the built-in model take more bytes than codes of 8 bits.
///
/// # Errors
///
/// As [`Descending::search`] and [`beside_uniform`].
pub fn default_ladder<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    session: &Session<B, M>,
    [searched, held_out]: [&Evaluator<'_, B::InnerBackend, M::InnerModule>; 2],
    (run, memory): &(&RunArgs, Memory),
) -> anyhow::Result<(Value, PrecisionPlan)> {
    let has = |bits: &BitWidth| session.quantizer().check(*bits, 2).is_ok();
    let rungs = DEFAULT_LADDER.into_iter().filter(has).map(|bits| SitePrecision::FULL.with_weights(bits)).collect();
    let reference = searched.model().transformer.uniform_plan(SitePrecision::FULL);
    // Less than a single answer: none may be lost.
    let questions = searched.task().dataset().len() as f64;
    let descending = Descending {
        ladder: Ladder::new(rungs, None)?,
        stop_at: StopAt::Tolerance(0.5 / questions),
        first_scores: FirstScores::Estimated,
        seed: run.seed,
        show: run.show(),
        known: memory.clone(),
    };
    let (result, plan) = descending.search::<B, M>(searched, &reference)?;
    out!("{}", ladder_text(&result, &plan));
    let named = searched.model().named_plan(&plan);
    let against = memory
        .recall("ladder-held-out", &json!({ "plan": named }), || beside_uniform(session, held_out, &plan, run.seed))?;
    out!("\non questions the search did not see\n{}", against.text());
    Ok((json!({ "rungs": descending.ladder, "search": result, "held_out": against }), named))
}

/// `greedy_search --ladder`.
#[derive(Debug)]
pub struct LadderCommand<'a> {
    /// The flags.
    pub arguments: &'a Arguments,
    /// The folder of the results.
    pub out: &'a Path,
    /// The folder in it where a search keeps what is done of it.
    pub search: &'a str,
    /// Where the artefact goes.
    pub target: Option<ArtefactTarget>,
}

impl Command for LadderCommand<'_> {
    fn reported(&self, _: &TextTokenizer) -> anyhow::Result<Vec<Reported>> {
        self.arguments.reported()
    }

    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let Self { arguments, out, search, target } = self;
        let (run, seed, start) = (&arguments.run, arguments.run.seed, Instant::now());
        let (input, asking) = arguments.searched(&session)?;
        out!("{}", session.heading(&input.source));
        let model = session.plain();
        let rivals = arguments.ladder.compare_with.iter().map(|file| {
            let plan = model.transformer.load_plan(file).with_context(|| file.display().to_string())?;
            model.check_plan(&plan).with_context(|| file.display().to_string())?;
            anyhow::Ok((name_of(file), plan))
        });
        let rivals: Vec<_> = rivals.collect::<Result<_, _>>()?;
        let mut options = run.evaluate_options(&session.machine, arguments.input.batch, &stop_on_ctrl_c()?);
        options.decode.null = arguments.input.null_rule(input.task.dataset().format)?;
        let evaluator = Evaluator::new(&model, &input.task, options.clone(), &session.device)?;

        let rungs: Vec<_> = arguments.ladder.ladder.iter().map(|bits| session.folder.precision(*bits)).collect();
        arguments.answers.check_mixed_heads(&model, &rungs)?;
        let reference = model.transformer.uniform_plan(rungs[0]);
        let widths: Vec<BitWidth> = arguments.embedding_bits.into_iter().collect();
        let parameters = BudgetRange::of(&model.transformer, &rungs, &widths).parameters;
        let identity = input.identity.clone().with(&of_reading(evaluator.options()));
        let identity = identity.with_options(json!({ "seed": seed, "rungs": rungs }));
        let memory = Memory::folder(out.join(search), identity);
        let descending = Descending {
            ladder: Ladder::new(rungs, arguments.embedding_bits)?,
            stop_at: arguments.ladder.stop_at(parameters, arguments.stop_at()),
            first_scores: if arguments.ladder.exact { FirstScores::Measured } else { FirstScores::Estimated },
            seed,
            show: run.show(),
            known: memory.clone(),
        };
        if matches!(descending.stop_at, StopAt::Tolerance(_)) {
            let start = memory.recall("reference", &Value::Null, || Ok(evaluator.evaluate(&reference)?))?;
            arguments.check_something_to_lose(&start)?;
        }
        let found = descending.search::<B, M>(&evaluator, &reference);
        // What was asked for in bits is a number of bytes there.
        let (result, plan) = match arguments.ladder.average_bits {
            Some(bits) => found.with_context(|| format!("--average-bits {bits}"))?,
            None => found?,
        };
        out!("{}", ladder_text(&result, &plan));
        model.named_plan(&plan).save(out.join(LADDER_PLAN))?;
        let cost = Cost::of(&model.transformer, &plan);
        out!("{}{}", cost_table(&cost), arguments.answers.head_text(&model, &plan)?);
        outln!("\non the questions of the search");
        outln!("{}", plan_row("highest rung everywhere", &result.reference, reference.average_weight_bits()));
        outln!("{}", plan_row("plan found", &result.accuracy, cost.average_bits));

        let mut held_out = Value::Null;
        if arguments.input.data.is_none() {
            let task = session.task_as(&asking, arguments.held_out()?)?;
            let evaluator = Evaluator::new(&model, &task, options, &session.device)?;
            let mut against = beside_uniform(&session, &evaluator, &plan, seed)?;
            for (name, rival) in &rivals {
                against.add(&evaluator, (name.clone(), rival), seed)?;
            }
            out!("on questions the search did not see\n{}", against.text());
            held_out = json!(against);
        }
        let seconds = start.elapsed().as_secs_f64();
        let found = json!({
            "source": input.source, "device": session.machine.to_string(), "quantizer": session.quantizer(),
            "seed": seed, "n": result.reference.n, "stop_at": descending.stop_at, "cost": cost, "seconds": seconds,
            "ladder": { "rungs": descending.ladder, "search": result, "held_out": held_out },
        });
        write_json(out.join("greedy_search.json"), &found)?;
        if let Some(target) = &target {
            let searched = searched_on(&input.name(), input.task.dataset())?;
            outln!("{}", session.pack_plan(&plan, searched, target)?);
        }
        run.tell_cache(&model.transformer);
        outln!("\n{seconds:.0} s; wrote greedy_search.json and {LADDER_PLAN} to {}", out.display());
        say_next_of_search(run, (&arguments.input, &arguments.answers), target.as_ref(), &out.join(LADDER_PLAN));
        output::result(&found)
    }
}
