//! Which sub-modules can afford how few bits: sensitivity of every site, then the greedy search.
//!
//! ```text
//! cargo run --release --example greedy_search
//! cargo run --release --example greedy_search -- --model DIR --data dev-v1.1.json --limit 200
//! ```
//!
//! Without arguments it searches the built-in model: first the same width everywhere, at 4, 3 and 2
//! bits; then, at the highest of them that costs more than the noise, each of the 48 matrices alone,
//! and one after another until a tenth of the full-precision exact match is lost. It prints the heat
//! map and the path, checks the plan on questions that the search did not see, and writes
//! `greedy_search.json` and `plan.json`. With `--out` a search that was stopped goes on where it was.

use std::path::Path;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use serde_json::json;
use switchable_quant::burn::module::AutodiffModule as _;
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::device::{Device, WithAutodiff};
use switchable_quant::experiments::running::memory::{Memory, Parts};
use switchable_quant::experiments::search::greedy::{
    GreedyOptions, GreedyResult, GreedyStart, Ranking, StopAt, TrialLength, check_tolerance, greedy_search,
};
use switchable_quant::experiments::search::heat_map::HeatMap;
use switchable_quant::experiments::search::sensitivity::{Part, Sensitivity, SensitivityOptions, sensitivity};
use switchable_quant::experiments::search::uniform::{UniformRow, uniform_sweep};
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::model::SwitchableModel;
use switchable_quant::reader::cost::Cost;
use switchable_quant::reader::evaluation::evaluate::Evaluator;
use switchable_quant::reader::evaluation::reading::ReadingTask;
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant::reader::statistics::PairedComparison;
use switchable_quant_examples::{Input, InputArgs, QuantArgs, RunArgs, cost_table, plan_table_row, stop_on_ctrl_c};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sensitivity of every sub-module and greedy bit-width search
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    quant: QuantArgs,
    /// Width that sites start at
    #[arg(long, default_value = "32", value_name = "BITS")]
    high: BitWidth,
    /// Width that sites are flipped to; by default the highest of 4, 3 and 2 bits that costs more
    /// than the noise when it is used everywhere
    #[arg(long, value_name = "BITS")]
    bits: Option<BitWidth>,
    /// Share of the starting exact match that may be lost, above 0 and below 1
    #[arg(long, default_value_t = 0.1)]
    tolerance: f64,
    /// Stop at this mean width instead of a tolerance
    #[arg(long, value_name = "BITS", conflicts_with = "tolerance")]
    target_bits: Option<f64>,
    /// When the harm of the sites is measured
    #[arg(long, value_enum, default_value = "once")]
    ranking: RankingArg,
    /// Use no adapter
    #[arg(long)]
    no_adapter: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RankingArg {
    /// Each site alone, before the first flip
    Once,
    /// Every site that is left, after each flip
    AfterEachFlip,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    check_tolerance(arguments.tolerance)?;
    let device = arguments.run.device.resolve()?;
    device.dispatch_autodiff(Search { arguments, device: &device })
}

struct Search<'a> {
    arguments: Arguments,
    device: &'a Device,
}

impl WithAutodiff for Search<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: QuantAutodiffBackend>(self, device: B::Device) -> anyhow::Result<()> {
        let Arguments { run, input: input_args, quant, high, bits, tolerance, target_bits, ranking, no_adapter } =
            self.arguments;
        let start = Instant::now();
        let input = Input::<B>::load(&input_args, &run, &quant.model_options(), QuestionSet::Search, &device)?;
        let precision = |bits| if no_adapter { input.precision(bits).without_adapter() } else { input.precision(bits) };
        println!("device     {}", self.device);
        println!("model      {}, questions {}", input.source["model"], input.source["questions"]);
        println!("quantiser  {}", quant.quantizer);

        let model = input.model.valid();
        let reference = model.transformer.uniform_plan(precision(high));
        let options = run.evaluate_options(self.device, input_args.batch, &stop_on_ctrl_c()?);
        let evaluator = Evaluator::new(&model, &input.task, options.clone(), &device)?;

        let candidates = bits.map_or_else(|| vec![BitWidth::B4, BitWidth::B3, BitWidth::B2], |bits| vec![bits]);
        let precisions: Vec<_> = std::iter::once(high).chain(candidates).map(precision).collect();
        let uniform = uniform_sweep(&evaluator, &precisions, run.seed)?;
        print_uniform(&uniform);
        let costly = uniform[1..].iter().find(|row| row.is_costly());
        let bits = costly.unwrap_or(&uniform[1]).precision.weights;
        if costly.is_none() {
            println!("No width tried costs more than the noise; the search at {bits} bits may flip everything.");
        }

        let low = precision(bits);
        // What is known of a search that was stopped, where there is a folder to know it from.
        let identity = json!({
            "source": input.source, "quantizer": quant.quantizer, "high": precision(high), "low": low,
            "seed": run.seed, "window": input_args.window,
        });
        let memory = run.out.as_deref().map_or(Memory::Nothing, |out| Memory::folder(out.join("search"), identity));
        let known = Parts::new(memory.clone(), json!(null));
        let how =
            SensitivityOptions { seed: run.seed, show: run.show(), known, ..SensitivityOptions::new(Part::Site, low) };
        let (sites, kept) = sensitivity(&evaluator, &reference, &how)?;
        print_sensitivity(&sites);

        let stop_at = target_bits.map_or(StopAt::Tolerance(tolerance), StopAt::AverageBits);
        // Ranked once, a search has a single flip to undo: it is read to its end, to show what is lost.
        let (ranking, trials) = match ranking {
            RankingArg::Once => (Ranking::Once, TrialLength::Whole),
            RankingArg::AfterEachFlip => (Ranking::AfterEachFlip, TrialLength::UntilDecided),
        };
        let known = Parts::new(memory.clone(), json!({ "stop_at": stop_at, "ranking": ranking }));
        let greedy = GreedyOptions { stop_at, ranking, trials, show: run.show(), known, ..GreedyOptions::new(low) };
        let start_of_search = GreedyStart { reference: &reference, sensitivity: &sites, kept };
        let (result, plan) = greedy_search(&evaluator, start_of_search, &greedy)?;
        print_path(&result);
        let total = sites.effects.len();
        println!("\n{} of {total} sites run at {bits} bits.", result.flipped.len());
        if result.reference.exact_match == 0.0 {
            println!(
                "The model answers nothing exactly at {high} bits, so there is nothing to lose: no site is flipped."
            );
        } else if result.flipped.len() == total {
            println!("{bits} bits everywhere stay within the tolerance: this width costs too little to need a search.");
        }

        let cost = Cost::of(&model.transformer, &plan);
        print!("{}", cost_table(&cost));
        let bits_row = |label: &str, accuracy, bits| println!("{}", plan_table_row(label, accuracy, bits));
        println!("\non the questions of the search");
        bits_row("all sites high", &result.reference, f64::from(high.bits()));
        bits_row("plan found", &result.accuracy, cost.average_bits);

        let mut held_out = serde_json::Value::Null;
        if input_args.data.is_none() {
            let questions = default_model::questions(QuestionSet::HeldOut)?;
            let task = ReadingTask::new(questions, &input.tokenizer, model.config(), input_args.window)?;
            let evaluator = Evaluator::new(&model, &task, options, &device)?;
            let (before, after) = (evaluator.evaluate(&reference)?, evaluator.evaluate(&plan)?);
            let comparison = before.compare(&after, run.seed);
            println!("on questions the search did not see");
            bits_row("all sites high", &before, f64::from(high.bits()));
            bits_row("plan found", &after, cost.average_bits);
            print_difference(&comparison);
            held_out = json!({ "high": before, "plan": after, "comparison": comparison });
        }

        let out = run.out.as_deref().unwrap_or(Path::new("."));
        write_json(
            out.join("greedy_search.json"),
            &json!({
                "source": input.source, "device": self.device.to_string(), "quantizer": quant.quantizer, "seed": run.seed,
                "n": sites.reference.n, "high": high, "low": bits, "stop_at": stop_at, "ranking": greedy.ranking, "search": result,
                "average_bits": cost.average_bits, "cost": cost, "held_out": held_out, "uniform": uniform, "sensitivity": sites,
                "seconds": start.elapsed().as_secs_f64(),
            }),
        )?;
        plan.to_precision_plan().save(out.join("plan.json"))?;
        memory.forget()?;
        println!(
            "\n{:.0} s; wrote greedy_search.json and plan.json to {}",
            start.elapsed().as_secs_f64(),
            out.display()
        );
        Ok(())
    }
}

/// Every width, and whether it costs more than the noise.
fn print_uniform(rows: &[UniformRow]) {
    println!("\nthe same width everywhere");
    for row in rows {
        let width = row.precision.weights;
        let adapter = if row.precision.adapter.is_some() { "with adapter" } else { "without adapter" };
        let verdict = if row.is_costly() { "  costs more than the noise" } else { "" };
        let label = format!("{width:>2} bits {adapter}");
        println!("{}{verdict}", plan_table_row(&label, &row.accuracy, f64::from(width.bits())));
    }
}

/// What each site costs alone.
fn print_sensitivity(sites: &Sensitivity) {
    let (bits, n) = (sites.changed_to.weights, sites.reference.n);
    println!("\nexact match lost by each site alone at {bits} bits, percent points (n = {n})");
    if let Some(map) = HeatMap::new(sites) {
        print!("{map}");
    }
    if sites.effects.iter().all(|effect| effect.comparison.is_noise()) {
        println!("No site alone costs more than the noise of {n} questions.");
    }
}

fn print_difference(comparison: &PairedComparison) {
    let noise = if comparison.is_noise() { "inside the noise" } else { "outside the noise" };
    let [low, up] = [comparison.interval.low * 100.0, comparison.interval.high * 100.0];
    let difference = 100.0 * comparison.difference;
    println!("difference {difference:+.1} [{low:+.1}, {up:+.1}] points, p = {:.2e}: {noise}", comparison.p_value);
}

/// Every flip with what it did.
fn print_path(result: &GreedyResult) {
    match result.threshold {
        Some(threshold) => println!("\ngreedy search, stops when EM ≤ {threshold:.1}"),
        None => println!("\ngreedy search, stops when the plan is small enough"),
    }
    for (i, flip) in result.path.iter().enumerate() {
        let verdict = if flip.accepted { "" } else { "  undone: too much is lost" };
        let label = format!("{:>2} {}", i + 1, flip.site);
        match &flip.accuracy {
            Some(accuracy) => println!("{}{verdict}", plan_table_row(&label, accuracy, flip.average_bits)),
            None => println!("{label:<28} EM at most {:.1}{verdict}", flip.exact_match.high),
        }
    }
}
