//! Exact allocations, beside uniform plans and the greedy one.

use std::fmt::Write as _;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use charts::{Axis, LineChart, LineStyle, Point, Series};
use quant_kernels::{backends::quant_backend::QuantAutodiffBackend, spec::bit_width::BitWidth};
use span_reader::evaluation::accuracy::Accuracy;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::TrainableModel;

use crate::error::{Error, Result};
use crate::report::section::{Chart, Section};
use crate::report::stage::Stage;
use crate::report::stages::cells::{em, f1, points};
use crate::report::stages::damage::SiteDamages;
use crate::report::stages::estimates::{exact_match, questions};
use crate::report::stages::greedy::{Greedy, GreedyStudy};
use crate::report::stages::uniform::{Uniform, UniformOutput};
use crate::search::allocation::budgets::BudgetRange;
use crate::search::allocation::damage::DamageTable;
use crate::search::allocation::pareto::Allocation;
use crate::search::allocation::swaps::{RefineFrom, RefineOptions, Refinement};
use crate::search::allocation::verify::Verified;
use crate::workbench::Workbench;

/// Exact allocations at some budgets, refined by swaps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExactAllocation {
    /// Budgets as bits per weight, scales and adapters included; where empty [`BudgetRange::defaults`].
    pub budgets: Vec<f64>,
    /// Swaps tried at each budget.
    pub swaps: usize,
    /// The search that allocations are compared with, and the damage that they are solved from.
    pub greedy: Greedy,
}

/// Exact allocations: evaluated where they were chosen and on other questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AllocationStudy {
    /// The whole front: bytes, predicted damage, average bits and plan.
    pub front: Vec<Allocation>,
    /// The plans at the budgets, on the search questions.
    pub verified: Vec<Verified>,
    /// The same after swaps, on the search questions.
    pub refined: Vec<Refinement>,
    /// The refined plans on the report questions: bytes, average bits, accuracy.
    pub reported: Vec<ReportedPlan>,
}

/// A plan on the report questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportedPlan {
    /// Bytes of the sites, scales and adapters included.
    pub bytes: usize,
    /// Mean width in bits, weighted by parameters.
    pub average_bits: f64,
    /// Its accuracy.
    pub accuracy: Accuracy,
}

/// Exact allocations with what they are compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct AllocationOutput {
    /// The allocations.
    pub allocation: AllocationStudy,
    /// The damage that they are solved from.
    pub damage: Rc<DamageTable>,
    /// The greedy search.
    pub greedy: Rc<GreedyStudy>,
    /// The uniform plans.
    pub uniform: Rc<UniformOutput>,
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Stage<B, M> for ExactAllocation {
    type Output = AllocationOutput;

    const NAME: &'static str = "allocation";

    fn check(&self, bench: &Workbench<'_, B, M>) -> Result<()> {
        if let Some(budget) = self.budgets.iter().find(|budget| !(**budget > 0.0 && budget.is_finite())) {
            return Err(Error::option("budgets", budget, "finite numbers of bits above 0"));
        }
        let range = self.range(bench);
        if let Some(budget) = self.budgets.iter().find(|budget| range.bytes_at(**budget) < range.least) {
            let least = format!("at least {} bits, what the smallest plan needs", range.least_bits());
            return Err(Error::option("budgets", budget, least));
        }
        Stage::check(&self.greedy, bench)
    }

    fn run(&self, bench: &Workbench<'_, B, M>) -> Result<AllocationOutput> {
        let name = <Self as Stage<B, M>>::NAME;
        let (uniform, greedy) = (Uniform.output(bench)?, self.greedy.output(bench)?);
        let damage = self.greedy.damage.output(bench)?;
        let Self { swaps, greedy: Greedy { damage: SiteDamages { choices }, .. }, .. } = self;
        let range = self.range(bench);
        let budgets = if self.budgets.is_empty() { range.defaults() } else { self.budgets.clone() };
        let made_from = json!({ "choices": choices, "budgets": budgets, "swaps": swaps, "seed": bench.run.seed });
        let known = bench.memory.parts(name, made_from.clone());
        let allocation = bench.memory.recall(name, &made_from, || {
            let (search, report) = (bench.evaluator(bench.data.search)?, bench.evaluator(bench.data.report)?);
            let full = bench.uniform_plan(SitePrecision::FULL);
            let budgets: Vec<usize> = budgets.iter().map(|bits| range.bytes_at(*bits)).collect();
            let chosen = budgets.iter().map(|budget| damage.best_under(*budget)).collect::<Result<Vec<_>>>()?;
            let verified = damage.verify(&search, &full, &chosen)?;
            let (mut refined, mut reported) = (Vec::new(), Vec::new());
            for (row, &budget) in verified.iter().zip(&budgets) {
                let (refinement, plan) = known.recall(&format!("budget-{budget}"), || {
                    let how = RefineOptions { evaluations: *swaps, show: bench.run.show, ..RefineOptions::new(budget) };
                    let from = RefineFrom { reference: &full, start: &row.allocation };
                    let (refinement, plan) = damage.refine_by_swaps(&search, from, &how)?;
                    let average_bits = plan.average_weight_bits();
                    let accuracy = report.evaluate(&plan)?;
                    let plan = ReportedPlan { bytes: refinement.bytes, average_bits, accuracy };
                    Ok((refinement, plan))
                })?;
                refined.push(refinement);
                reported.push(plan);
            }
            Ok(AllocationStudy { front: damage.pareto_front(), verified, refined, reported })
        })?;
        known.forget()?;
        Ok(AllocationOutput { allocation, damage, greedy, uniform })
    }

    fn sections(&self, output: &AllocationOutput) -> Result<Vec<Section>> {
        let caption = "Exact match over mean width: uniform, greedy, exact";
        let chart = Chart::new("pareto.png", caption, chart(output));
        Ok(vec![Section::new("Exact allocation", text(output)).with_chart(chart)])
    }
}

impl ExactAllocation {
    /// What plans over the widths need.
    fn range<B: QuantAutodiffBackend, M: TrainableModel<B>>(&self, bench: &Workbench<'_, B, M>) -> BudgetRange {
        let precision = |&bits: &BitWidth| if bits.is_full() { SitePrecision::FULL } else { bench.precision(bits) };
        let choices: Vec<_> = self.greedy.damage.choices.iter().map(precision).collect();
        BudgetRange::of(&bench.plain().transformer, &choices, &[])
    }
}

fn text(output: &AllocationOutput) -> String {
    let allocation = &output.allocation;
    let mut text = format!(
        "{} plans on the Pareto front over {} sites and {} widths. Plans at the budgets, chosen by divergence on the \
         search questions (n = {}), refined by swaps there, and evaluated on the report questions. Bytes are those of \
         the weights, their scales and the adapters that a plan uses.\n\n",
        allocation.front.len(),
        output.damage.sites.len(),
        output.damage.sites.first().map_or(0, |site| site.choices.len()),
        output.damage.n
    );
    text += "| bytes | average bits | EM, search | refined, search | EM, report | F1, report |\n|---|---|---|---|---|---|\n";
    for ((verified, refined), reported) in allocation.verified.iter().zip(&allocation.refined).zip(&allocation.reported)
    {
        let _ = writeln!(
            text,
            "| {} | {:.2} | {} | {} | {} | {} |",
            reported.bytes,
            reported.average_bits,
            em(&verified.accuracy),
            em(&refined.accuracy),
            em(&reported.accuracy),
            f1(&reported.accuracy)
        );
    }
    text += "\nGreedy and exact at equal bytes, on the search questions:\n\n\
             | bytes | greedy EM | exact EM | exact minus greedy |\n|---|---|---|---|\n";
    for row in &output.greedy.equal_bytes {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            row.bytes,
            em(&row.greedy),
            em(&row.exact),
            points(&row.comparison)
        );
    }
    text
}

/// Exact match over the mean width of the weights, on the report questions.
fn chart(output: &AllocationOutput) -> LineChart {
    let by_width = |mut points: Vec<Point>| {
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        points.dedup_by(|a, b| a.x.total_cmp(&b.x).is_eq());
        points
    };
    let uniform = if output.uniform.adapted.len() > 1 { &output.uniform.adapted } else { &output.uniform.plain };
    let weights_only = uniform.iter().filter(|row| row.precision.activations.is_full());
    let uniform = weights_only.map(|row| Point { x: row.cost.average_bits, y: exact_match(&row.accuracy) });
    let reported = output.allocation.reported.iter();
    let exact = by_width(reported.map(|p| Point { x: p.average_bits, y: exact_match(&p.accuracy) }).collect());
    let mut series = vec![Series::new("uniform", by_width(uniform.collect()))];
    if !exact.is_empty() {
        series.push(Series::new("exact allocation", exact));
    }
    let found = Point { x: output.greedy.cost.average_bits, y: exact_match(&output.greedy.found) };
    series.push(Series::new("greedy search", vec![found]).with_style(LineStyle::Markers));
    LineChart {
        title: "Exact match over memory".into(),
        subtitle: format!("plans chosen on other questions; {}", questions(&output.greedy.found)),
        x: Axis::new("mean width of the weights", "bits").log2().with_ticks([2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0]),
        y: Axis::new("exact match", "%"),
        series,
        ..LineChart::default()
    }
}
