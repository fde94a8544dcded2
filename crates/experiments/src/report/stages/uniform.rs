//! One width everywhere.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use charts::{Axis, Estimate, LineChart, Mark, Point, Series};
use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::statistics::Interval;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::adapters::AdapterFolders;
use switchable_model::model::TrainableModel;

use crate::error::Result;
use crate::report::section::{Chart, Section};
use crate::report::stage::Stage;
use crate::report::stages::cells::{em, f1, percent, points};
use crate::report::stages::estimates::{bits_axis, estimate, questions};
use crate::search::uniform::{SweepOptions, UniformRow, crossing, normalised_curves, sweep_precisions, uniform_sweep};
use crate::workbench::Workbench;

/// Uniform plans on the report questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Uniform;

/// What the uniform plans give.
#[derive(Debug, Clone, PartialEq)]
pub struct UniformOutput {
    /// With adapters, where the model has them.
    pub adapted: Vec<UniformRow>,
    /// The precisions of the study without adapters.
    pub plain: Vec<UniformRow>,
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Stage<B, M> for Uniform {
    type Output = UniformOutput;

    const NAME: &'static str = "uniform";

    fn run(&self, bench: &Workbench<'_, B, M>) -> Result<UniformOutput> {
        let seed = bench.run.seed;
        let report = bench.evaluator(bench.data.report)?;
        let how = SweepOptions { seed, show: bench.run.show, ..SweepOptions::default() };
        let plain = bench
            .memory
            .recall("uniform", &json!({ "seed": seed }), || uniform_sweep(&report, &sweep_precisions(), &how))?;
        let widths = bench.plain().transformer.served_widths();
        let adapted = if widths.is_empty() {
            Vec::new()
        } else {
            let of_widths = widths.iter().rev().map(|width| bench.precision(*width));
            let precisions: Vec<_> = std::iter::once(SitePrecision::FULL).chain(of_widths).collect();
            bench.memory.recall("uniform-adapters", &json!({ "precisions": precisions, "seed": seed }), || {
                uniform_sweep(&report, &precisions, &how)
            })?
        };
        Ok(UniformOutput { adapted, plain })
    }

    fn sections(&self, output: &UniformOutput) -> Result<Vec<Section>> {
        let caption = "Exact match and F1 with every site at one width, and the bytes saved";
        let chart = Chart::new("uniform.png", caption, chart(output));
        Ok(vec![Section::new("One width everywhere", text(output)).with_chart(chart)])
    }
}

fn text(output: &UniformOutput) -> String {
    let mut text = uniform_table(&output.plain, "without adapters");
    if output.adapted.len() > 1 {
        text += &uniform_table(&output.adapted, "with the adapters of the bank");
    }
    let crossing = match crossing(&normalised_curves(&output.plain)) {
        Some(crossing) => format!(
            "\nAccuracy and saved bytes, each as a share of full precision, cross at {:.2} bits; suggested: {} bits.\n",
            crossing.bits, crossing.suggested
        ),
        None => "\nThe curves of accuracy and of saved bytes do not cross between the widths measured.\n".to_string(),
    };
    text + &crossing
}

fn uniform_table(rows: &[UniformRow], label: &str) -> String {
    let mut text = format!("\nEvery site at one precision, {label}, n = {}.\n\n", rows[0].accuracy.n);
    text += "| weights | activations | KV cache | EM | F1 | EM against full | saved: sites | model, fp32 | model, fp16 \
             | stored | BitOps per token |\n|---|---|---|---|---|---|---|---|---|---|---|\n";
    for row in rows {
        let cost = &row.cost;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.2e} |",
            row.precision.weights,
            row.precision.activations,
            row.kv_cache,
            em(&row.accuracy),
            f1(&row.accuracy),
            points(&row.comparison),
            percent(cost.sites.saved),
            percent(cost.whole_vs_fp32.saved),
            percent(cost.whole_vs_fp16.saved),
            percent(cost.stored.saved),
            cost.bit_ops_per_token
        );
    }
    text
}

/// Accuracy and efficiency as shares of full precision, and their crossing.
fn chart(output: &UniformOutput) -> LineChart {
    let rows = &output.plain;
    let full = &rows[0].accuracy;
    let weights_only = || rows.iter().filter(|row| row.precision.activations.is_full());
    let share = |value: f64, whole: f64| if whole > 0.0 { 100.0 * value / whole } else { 0.0 };
    let points = |of: &dyn Fn(&Accuracy) -> (f64, Interval), whole: f64| -> Vec<Point> {
        let point = |row: &UniformRow| {
            let (value, interval) = of(&row.accuracy);
            let interval = Interval { low: share(interval.low, whole), high: share(interval.high, whole) };
            Point { x: f64::from(row.precision.weights.bits()), y: estimate(share(value, whole), interval) }
        };
        weights_only().map(point).collect()
    };
    let saved = weights_only().map(|row| Point {
        x: f64::from(row.precision.weights.bits()),
        y: Estimate::from(100.0 * row.cost.sites.saved),
    });
    let mut series = vec![
        Series::new("exact match", points(&|a| (a.exact_match, a.exact_match_interval), full.exact_match)),
        Series::new("F1", points(&|a| (a.f1, a.f1_interval), full.f1)),
        Series::new("bytes of the sites saved", saved.collect::<Vec<_>>()),
    ];
    if output.adapted.len() > 1 {
        let adapted = output.adapted[1..].iter().map(|row| {
            let interval = row.accuracy.exact_match_interval;
            let interval =
                Interval { low: share(interval.low, full.exact_match), high: share(interval.high, full.exact_match) };
            let value = share(row.accuracy.exact_match, full.exact_match);
            Point { x: f64::from(row.precision.weights.bits()), y: estimate(value, interval) }
        });
        series.push(Series::new("exact match, with adapters", adapted.collect::<Vec<_>>()));
    }
    let crossing = crossing(&normalised_curves(rows));
    LineChart {
        title: "One width for every sub-module".into(),
        subtitle: format!("share of full precision (EM {:.1} %), {}", full.exact_match, questions(full)),
        x: bits_axis(),
        y: Axis::new("share of full precision", "%").including([0.0, 100.0]),
        series,
        vertical_marks: crossing.map(|c| Mark::new(c.bits, format!("{:.1} bits", c.bits))).into_iter().collect(),
        ..LineChart::default()
    }
}
