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

use std::path::Path;

use clap::Parser;
use serde_json::json;
use switchable_quant::burn::module::AutodiffModule as _;
use switchable_quant::default_model::QuestionSet;
use switchable_quant::device::{Device, WithAutodiff};
use switchable_quant::experiments::search::allocation::damage::{DamageOptions, measure_damage};
use switchable_quant::experiments::search::allocation::swaps::RefineOptions;
use switchable_quant::experiments::search::greedy::{GreedyOptions, GreedyStart, greedy_search};
use switchable_quant::experiments::search::sensitivity::{Part, SensitivityOptions, sensitivity};
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::model::{ModelConfig, SitePrecision, SwitchableModel};
use switchable_quant::reader::evaluation::evaluate::Evaluator;
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant_examples::{Input, InputArgs, QuantArgs, RunArgs, plan_table_row, stop_on_ctrl_c};

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

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let device = arguments.run.device.resolve()?;
    device.dispatch_autodiff(Allocate { arguments, device: &device })
}

struct Allocate<'a> {
    arguments: Arguments,
    device: &'a Device,
}

impl WithAutodiff for Allocate<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: QuantAutodiffBackend>(self, device: B::Device) -> anyhow::Result<()> {
        let Arguments { run, input: input_args, quant, mut bits, average_bits, swaps } = self.arguments;
        let input = Input::<B>::load(&input_args, &run, &quant.model_options(), QuestionSet::Search, &device)?;
        let model = input.model.valid();
        let options = run.evaluate_options(self.device, input_args.batch, &stop_on_ctrl_c()?);
        let evaluator = Evaluator::new(&model, &input.task, options, &device)?;
        bits.sort_unstable();
        let choices: Vec<SitePrecision> = bits.iter().map(|bits| input.precision(*bits)).collect();
        let full = model.transformer.uniform_plan(input.precision(BitWidth::FULL));

        let how = DamageOptions { seed: run.seed, show: run.show(), ..DamageOptions::new(choices.clone()) };
        let table = measure_damage(&evaluator, &full, &how)?;
        let front = table.pareto_front();
        println!("running on {}\n{} plans on the Pareto front", self.device, front.len());
        println!("{}", plan_table_row("reference", &table.reference, full.average_weight_bits()));

        let budget = |bits: &f64| (model.config().site_parameters() as f64 * bits / 8.0) as usize;
        let budgets: Vec<usize> = average_bits.iter().map(budget).collect();
        let chosen = budgets.iter().map(|budget| table.best_under(*budget)).collect::<Result<Vec<_>, _>>()?;
        let verified = table.verify(&evaluator, &full, &chosen)?;
        let mut refined = Vec::new();
        for (row, &budget) in verified.iter().zip(&budgets) {
            let how = RefineOptions { evaluations: swaps, show: run.show(), ..RefineOptions::new(budget) };
            let (refinement, plan) =
                table.refine_by_swaps(&evaluator, RefineFrom { reference: &full, start: &row.allocation }, &how)?;
            let average = plan.average_weight_bits();
            println!(
                "{}",
                plan_table_row(&format!("exact, {budget} bytes"), &row.accuracy, row.allocation.average_bits)
            );
            println!("{}", plan_table_row("  refined by swaps", &refinement.accuracy, average));
            refined.push(json!({ "budget": budget, "plan": plan.to_precision_plan(), "refinement": refinement }));
        }

        let low = choices[0];
        let how = SensitivityOptions { seed: run.seed, show: run.show(), ..SensitivityOptions::new(Part::Site, low) };
        let (sites, kept) = sensitivity(&evaluator, &full, &how)?;
        let greedy = GreedyOptions { show: run.show(), ..GreedyOptions::new(low) };
        let (greedy, _) =
            greedy_search(&evaluator, GreedyStart { reference: &full, sensitivity: &sites, kept }, &greedy)?;
        let compared = table.compare_at_equal_bytes(&evaluator, &full, &greedy.path)?;
        println!("exact minus greedy at equal bytes, percent points of exact match, n = {}", table.n);
        for row in &compared {
            let [by, low, high] =
                [row.comparison.difference, row.comparison.interval.low, row.comparison.interval.high]
                    .map(|share| 100.0 * share);
            let noise = if row.comparison.is_noise() { "inside the noise" } else { "outside the noise" };
            println!("{:>12} bytes  {by:+.1} [{low:+.1}, {high:+.1}]  {noise}", row.bytes);
        }

        let points: Vec<_> = front.iter().map(|plan| (plan.bytes, plan.damage, plan.average_bits)).collect();
        let out = run.out.as_deref().unwrap_or(Path::new("."));
        let result = json!({
            "source": input.source, "device": self.device.to_string(), "quantizer": quant.quantizer,
            "seed": run.seed, "n": table.n, "front": points, "table": table, "verified": verified,
            "refined": refined, "greedy": greedy, "equal_bytes": compared,
        });
        write_json(out.join("allocation.json"), &result)?;
        Ok(())
    }
}
