//! Bits per sub-module under a byte budget: exact allocation, verified, refined, against the greedy search.
//!
//! ```text
//! cargo run --release --example allocate
//! cargo run --release --example allocate -- --limit 100 --bits 32,4,3,2 --average-bits 3,4
//! ```
//!
//! Measures what every matrix costs alone at every width, solves for the whole Pareto front, evaluates
//! its plans at the budgets asked for, refines them by swaps, and sets the path of a greedy search to the
//! narrowest width against the exact allocation of the same bytes. Writes `allocation.json`.

use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use switchable_quant::default_model::QuestionSet;
use switchable_quant::experiments::search::allocation::budgets::{BudgetOptions, RefinedAllocation};
use switchable_quant::experiments::search::allocation::damage::{DamageOptions, measure_damage};
use switchable_quant::experiments::search::text::{budgets_text, equal_bytes_text};
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::reader::Evaluator;
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant::reader::text::plan_row;
use switchable_quant::transformer::model::{SwitchableModel as _, TrainableModel};
use switchable_quant_examples::arguments::{input::InputArgs, quant::QuantArgs, run::RunArgs};
use switchable_quant_examples::session::{Command, Session};
use switchable_quant_examples::{finish, stop_on_ctrl_c};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exact allocation of bits to sub-modules
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    quant: QuantArgs,
    /// Widths that every site may take
    #[arg(long, value_delimiter = ',', default_value = "32,16,8,6,5,4,3,2", value_name = "BITS,...")]
    bits: Vec<BitWidth>,
    /// Budgets as mean bits per weight, scales included
    #[arg(long, value_delimiter = ',', default_value = "2.5,3,4,6", value_name = "BITS,...")]
    average_bits: Vec<f64>,
    /// Swaps tried at each budget
    #[arg(long, default_value_t = 20, value_name = "N")]
    swaps: usize,
}

fn main() -> ExitCode {
    finish(command)
}

fn command() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    arguments.input.opening(&arguments.run, arguments.quant.model_options()).run(&arguments)
}

impl Command for &Arguments {
    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let Arguments { run, input, bits, average_bits, swaps, .. } = self;
        let questions = session.questions(input, QuestionSet::Search)?;
        let model = session.plain();
        let options = run.evaluate_options(&session.machine, input.batch, &stop_on_ctrl_c()?);
        let evaluator = Evaluator::new(&model, &questions.task, options, &session.device)?;
        let mut bits = bits.clone();
        bits.sort_unstable();
        let choices: Vec<_> = bits.iter().map(|bits| session.folder.precision(*bits)).collect();
        let full = model.transformer.uniform_plan(session.folder.precision(BitWidth::FULL));
        let low = choices[0];

        let how = DamageOptions { seed: run.seed, show: run.show(), ..DamageOptions::new(choices) };
        let table = measure_damage(&evaluator, &full, &how)?;
        let front = table.pareto_front();
        println!("running on {}\n{} plans on the Pareto front", session.machine, front.len());
        println!("{}", plan_row("reference", &table.reference, full.average_weight_bits()));

        let budgets = average_bits.iter().map(|bits| table.bytes_at(*bits)).collect();
        let how = BudgetOptions { budgets, swaps: *swaps, show: run.show() };
        let refined = table.refined_at(&evaluator, &full, &how)?;
        print!("{}", budgets_text(&refined));
        let compared = table.against_greedy(&evaluator, &full, low, run.show())?;
        print!("{}", equal_bytes_text(&compared.equal_bytes, table.n));

        let points: Vec<_> = front.iter().map(|plan| (plan.bytes, plan.damage, plan.average_bits)).collect();
        let verified: Vec<_> = refined.iter().map(|row| &row.verified).collect();
        let swapped = |row: &RefinedAllocation| {
            let plan = model.transformer.named_plan(&row.plan);
            json!({ "budget": row.budget, "plan": plan, "refinement": row.refinement })
        };
        let result = json!({
            "source": questions.source, "device": session.machine.to_string(), "quantizer": session.quantizer(),
            "seed": run.seed, "n": table.n, "front": points, "table": table, "verified": verified,
            "refined": refined.iter().map(swapped).collect::<Vec<_>>(),
            "greedy": compared.greedy, "equal_bytes": compared.equal_bytes,
        });
        Ok(write_json(run.out().join("allocation.json"), &result)?)
    }
}
