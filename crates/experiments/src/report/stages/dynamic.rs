//! Plans chosen at run time.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::json;

use charts::{Axis, LineChart, LineStyle, Point, Series};
use quant_kernels::{backends::quant_backend::QuantAutodiffBackend, spec::bit_width::BitWidth};
use span_reader::choice::cascade_curve::CascadeCurve;
use span_reader::choice::measured_cascade::MeasuredCascade;
use span_reader::choice::resident::ResidentBytes;
use span_reader::evaluation::accuracy::Accuracy;
use switchable_model::model::{SwitchableModel, TrainableModel};
use switchable_model::packed::form::{PackOptions, PackedForm};

use crate::error::{Error, Result};
use crate::report::section::{Chart, Section};
use crate::report::stage::Stage;
use crate::report::stages::cells::{em, points};
use crate::report::stages::estimates::exact_match;
use crate::search::cascade::CascadeSearch;
use crate::workbench::Workbench;

/// A confidence cascade against its plans alone, all from one nested copy of the weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DynamicStudy {
    /// Widths of the plans, 2 to 8 bits.
    pub widths: Vec<BitWidth>,
    /// Share of the best exact match that the chosen thresholds are to reach, 0 to 1.
    pub share: f64,
    /// Most points of the curve.
    pub points: usize,
}

impl Default for DynamicStudy {
    /// 2, 3, 4 and 8 bits; 0.99 of the best; 24 points.
    fn default() -> Self {
        let widths = vec![BitWidth::B2, BitWidth::B3, BitWidth::B4, BitWidth::B8];
        Self { widths, share: 0.99, points: 24 }
    }
}

/// What choosing at run time gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DynamicResults {
    /// Bytes of the nested copy, and of one copy for each width.
    pub resident: ResidentBytes,
    /// The cascade and the plans alone.
    pub cascade: MeasuredCascade,
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Stage<B, M> for DynamicStudy {
    type Output = DynamicResults;

    const NAME: &'static str = "dynamic";

    fn check(&self, bench: &Workbench<'_, B, M>) -> Result<()> {
        bench.data.report.spans("the choice of plans at run time")?;
        let nested = BitWidth::B2..=BitWidth::B8;
        if self.widths.is_empty() || !self.widths.iter().all(|bits| nested.contains(bits)) {
            let got = self.widths.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            return Err(Error::option("dynamic.widths", got, "widths from 2 to 8 bits"));
        }
        if !(0.0..=1.0).contains(&self.share) {
            return Err(Error::option("share", self.share, "a share from 0 to 1"));
        }
        if self.points < 2 {
            return Err(Error::option("points", self.points, "at least 2"));
        }
        Ok(())
    }

    /// Thresholds from every other paragraph of the questions, results from the rest. Nothing is timed, so
    /// that a study that was interrupted ends like one that was not.
    fn run(&self, bench: &Workbench<'_, B, M>) -> Result<DynamicResults> {
        let seed = bench.run.seed;
        let (name, made_from) = (<Self as Stage<B, M>>::NAME, json!({ "dynamic": self, "seed": seed }));
        let known = bench.memory.parts(name, made_from.clone());
        let results = bench.memory.recall(name, &made_from, || {
            let nested = bench.plain().clone().pack(PackedForm::Nested, &PackOptions::default())?;
            let mut widths = self.widths.clone();
            widths.sort_unstable();
            widths.dedup();
            let plans: Vec<_> =
                widths.iter().map(|&bits| nested.transformer.uniform_plan(bench.precision(bits))).collect();
            let [calibration, evaluation] = bench.data.report.spans("the choice of plans at run time")?.halves()?;
            let search = CascadeSearch {
                evaluate: bench.run.evaluate.clone(),
                share: self.share,
                points: self.points,
                seed,
                show: bench.run.show,
                known: known.clone(),
            };
            let calibrated = search.calibrate(&nested, &calibration, &plans)?;
            let cascade = search.measure(&calibrated, &nested, &evaluation)?;
            Ok(DynamicResults { resident: ResidentBytes::measure(&nested, &widths)?, cascade })
        })?;
        known.forget()?;
        Ok(results)
    }

    fn sections(&self, output: &DynamicResults) -> Result<Vec<Section>> {
        let curve = cascade_curve(&output.cascade.curve, output.resident.per_width.keys().copied());
        let caption = "Exact match for work: a confidence cascade and plans alone";
        let chart = Chart::new("dynamic.png", caption, curve);
        Ok(vec![Section::new("Plans chosen at run time", text(output)).with_chart(chart)])
    }
}

fn text(results: &DynamicResults) -> String {
    let (resident, curve) = (&results.resident, &results.cascade.curve);
    let mut text = format!(
        "One nested 8-bit copy of the matrices serves all widths: {} bytes with scales, against {} for one packed copy \
         for each width and {} in f32. Temperatures and thresholds come from {} questions, results from {} others.\n\n",
        resident.sites,
        resident.per_width.values().sum::<usize>(),
        resident.sites_f32,
        curve.calibration_n,
        curve.n
    );
    text += "| plan | EM | BitOps per question | calibration error before → after |\n|---|---|---|---|\n";
    for (plan, bits) in curve.plans.iter().zip(resident.per_width.keys()) {
        let answers = &plan.answers;
        let _ = writeln!(
            text,
            "| {bits} bits | {} | {:.3e} | {:.3} → {:.3} |",
            em(&answers.accuracy),
            plan.bit_ops_per_question,
            answers.calibration_error_before,
            answers.calibration_error
        );
    }
    let outcome = &results.cascade.outcome;
    let _ = writeln!(
        text,
        "| cascade, thresholds {} | {} | {:.3e} | |",
        outcome.thresholds_text(),
        em(&outcome.accuracy),
        outcome.bit_ops_per_question
    );
    text += "\nThe cascade over its range of cost, against its last stage alone:\n\n\
             | thresholds | EM | BitOps per question | EM against the last stage |\n|---|---|---|---|\n";
    for point in &curve.cascade {
        let _ = writeln!(
            text,
            "| {} | {} | {:.3e} | {} |",
            point.outcome.thresholds_text(),
            em(&point.outcome.accuracy),
            point.outcome.bit_ops_per_question,
            points(&point.comparison)
        );
    }
    text
}

/// Accuracy for work of a cascade, beside every plan alone; `widths` are those of the plans.
pub fn cascade_curve(curve: &CascadeCurve, widths: impl IntoIterator<Item = BitWidth>) -> LineChart {
    let point = |x: f64, accuracy: &Accuracy| Point { x, y: exact_match(accuracy) };
    let mut cascade: Vec<Point> =
        curve.cascade.iter().map(|at| point(at.outcome.bit_ops_per_question, &at.outcome.accuracy)).collect();
    cascade.sort_by(|a, b| a.x.total_cmp(&b.x));
    let mut series = vec![Series::new("cascade", cascade)];
    series.extend(curve.plans.iter().zip(widths).map(|(plan, bits)| {
        let alone = point(plan.bit_ops_per_question, &plan.answers.accuracy);
        Series::new(format!("{bits} bits alone"), vec![alone]).with_style(LineStyle::Markers)
    }));
    LineChart {
        title: "Accuracy for work: cascade and plans alone".into(),
        subtitle: format!("n = {}, thresholds chosen on {} other questions", curve.n, curve.calibration_n),
        x: Axis::new("work of a question", "BitOps"),
        y: Axis::new("exact match", "%"),
        series,
        ..LineChart::default()
    }
}
