//! The figures of a study.

use std::path::Path;

use charts::{
    Axis, BarChart, BarGroup, ColourScale, Estimate, Figure, HeatMapChart, LineChart, LineStyle, Mark, Panel, Point,
    Series, Size,
};
use quant_kernels::BitWidth;
use span_reader::choice::cascade_curve::CascadeCurve;
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::statistics::Interval;

use crate::banks::regime_comparison::mean_exact_match;
use crate::error::Result;
use crate::report::regimes::labels;
use crate::report::robustness::RobustnessResults;
use crate::report::study::Study;
use crate::robustness::hardening::adversarial_study::HardenedModel;
use crate::robustness::protocol::matrix::{AttackMatrix, MatrixRow, NO_SOURCE};
use crate::robustness::protocol::robust_accuracy::RobustAccuracy;
use crate::search::sensitivity::{Sensitivity, SiteLosses};
use crate::search::uniform::{crossing, normalised_curves};

/// Writes every figure that the study has results for; returns file name and caption of each.
///
/// # Errors
///
/// When a file cannot be written.
pub fn write_figures(study: &Study, dir: &Path) -> Result<Vec<(String, String)>> {
    let mut figures: Vec<(&str, &str, Box<dyn Figure>)> = vec![
        (
            "uniform.png",
            "Exact match and F1 with every site at one width, and the bytes saved",
            Box::new(uniform(study)),
        ),
        ("layers.png", "Exact match with one block at the low width", Box::new(layers(study))),
        ("sites.png", "Exact match lost by each sub-module alone", Box::new(sites(study))),
        ("greedy.png", "The path of the greedy search", Box::new(greedy(study))),
        ("pareto.png", "Exact match over mean width: uniform, greedy, exact", Box::new(pareto(study))),
    ];
    if let Some(regimes) = regimes(study)? {
        figures.push(("regimes.png", "Exact match of each regime's bank at its widths", Box::new(regimes)));
    }
    if let Some(maps) = regime_sites(study) {
        figures.push(("regime-sites.png", "Sub-module sensitivity, static against cyclic", Box::new(maps)));
    }
    if let Some(robustness) = &study.robustness {
        if let Some(maps) = success_maps(robustness) {
            figures.push((
                "robustness.png",
                "Right answers made wrong: attacks made on each width, tried on each",
                Box::new(maps),
            ));
        }
        if let Some(maps) = hardened_maps(robustness) {
            figures.push(("hardening.png", "Exact match under attack after training on attacks", Box::new(maps)));
        }
    }
    if let Some(dynamic) = &study.dynamic {
        figures.push((
            "dynamic.png",
            "Exact match for work: a confidence cascade and plans alone",
            Box::new(cascade_curve(&dynamic.cascade.curve, dynamic.resident.per_width.keys().copied())),
        ));
    }
    let mut written = Vec::new();
    for (name, caption, figure) in figures {
        figure.write(&dir.join(name))?;
        written.push((name.to_string(), caption.to_string()));
    }
    Ok(written)
}

fn estimate(value: f64, Interval { low, high }: Interval) -> Estimate {
    Estimate::new(value, charts::Interval { low, high })
}

fn exact_match(accuracy: &Accuracy) -> Estimate {
    estimate(accuracy.exact_match, accuracy.exact_match_interval)
}

fn questions(accuracy: &Accuracy) -> String {
    format!("n = {} questions, 95 % intervals", accuracy.n)
}

fn bits_axis() -> Axis {
    Axis::new("weight width", "bits").log2().with_ticks([2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0])
}

/// Accuracy and efficiency as shares of full precision, and their crossing.
fn uniform(study: &Study) -> LineChart {
    let rows = &study.plain_uniform;
    let full = &rows[0].accuracy;
    let weights_only = || rows.iter().filter(|row| row.precision.activations.is_full());
    let share = |value: f64, whole: f64| if whole > 0.0 { 100.0 * value / whole } else { 0.0 };
    let points = |of: &dyn Fn(&Accuracy) -> (f64, Interval), whole: f64| -> Vec<Point> {
        let point = |row: &crate::UniformRow| {
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
    if study.uniform.len() > 1 {
        let adapted = study.uniform[1..].iter().map(|row| {
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

fn layers(study: &Study) -> BarChart {
    let layers = &study.layers;
    BarChart {
        title: format!("One block at {} bits, all others at 32", layers.changed_to.weights),
        subtitle: questions(&layers.reference),
        category_label: "block".into(),
        categories: layers.effects.iter().map(|effect| effect.block.to_string()).collect(),
        value: Axis::new("exact match", "%"),
        groups: vec![BarGroup::new("", layers.effects.iter().map(|e| exact_match(&e.accuracy)).collect::<Vec<_>>())],
        horizontal_marks: vec![Mark::new(layers.reference.exact_match, "all at 32")],
        ..BarChart::default()
    }
}

/// Heat maps of several sensitivities on one scale.
fn heat_map(title: String, maps: &[(&str, &Sensitivity)]) -> HeatMapChart {
    let reference = &maps[0].1.reference;
    // A question that changes its answer moves the exact match by this much.
    let half_width = maps.iter().flat_map(|(_, map)| &map.effects).map(|effect| {
        let interval = effect.comparison.interval;
        50.0 * (interval.high - interval.low)
    });
    let half_width = half_width.fold(0.0, f64::max);
    let losses: Vec<_> = maps.iter().filter_map(|(label, map)| Some((*label, map.site_losses()?))).collect();
    let (blocks, modules) = losses.first().map_or((0, &[][..]), |(_, map)| (map.rows.len(), &map.modules));
    let panel = |(label, map): &(&str, SiteLosses)| {
        let cells = map.rows.iter().map(|row| row.iter().map(|&value| Some(value.into())).collect());
        Panel { title: (*label).into(), cells: cells.collect() }
    };
    HeatMapChart {
        title,
        subtitle: format!("n = {} questions, 95 % intervals at most ±{half_width:.1} points", reference.n),
        row_label: "block".into(),
        rows: (0..blocks).map(|block| block.to_string()).collect(),
        column_label: "sub-module".into(),
        columns: modules.iter().map(ToString::to_string).collect(),
        panels: losses.iter().map(panel).collect(),
        value: Axis::new("exact match lost", "percentage points"),
        scale: ColourScale::Diverging,
        decimals: 1,
        ..HeatMapChart::default()
    }
}

fn sites(study: &Study) -> HeatMapChart {
    let sites = &study.greedy.sites;
    heat_map(format!("One sub-module at {} bits, all others at 32", sites.changed_to.weights), &[("", sites)])
}

fn greedy(study: &Study) -> LineChart {
    let search = &study.greedy.search;
    let path = search.path.iter().enumerate();
    let flips = path.filter_map(|(i, flip)| Some(Point { x: (i + 1) as f64, y: exact_match(flip.accuracy.as_ref()?) }));
    let start = Point { x: 0.0, y: exact_match(&search.reference) };
    let threshold = search.threshold.map(|threshold| Mark::new(threshold, "threshold"));
    LineChart {
        title: format!("Greedy search, 32 to {} bits", study.greedy.low.weights),
        subtitle: questions(&search.reference),
        x: Axis::new("sub-modules flipped", ""),
        y: Axis::new("exact match", "%"),
        series: vec![Series::new("", std::iter::once(start).chain(flips).collect::<Vec<_>>())],
        horizontal_marks: threshold.into_iter().collect(),
        ..LineChart::default()
    }
}

/// Exact match over the mean width of the weights, on the report questions.
fn pareto(study: &Study) -> LineChart {
    let by_width = |mut points: Vec<Point>| {
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        points.dedup_by(|a, b| a.x.total_cmp(&b.x).is_eq());
        points
    };
    let uniform = if study.uniform.len() > 1 { &study.uniform } else { &study.plain_uniform };
    let weights_only = uniform.iter().filter(|row| row.precision.activations.is_full());
    let uniform = weights_only.map(|row| Point { x: row.cost.average_bits, y: exact_match(&row.accuracy) });
    let reported = study.allocation.reported.iter();
    let exact = by_width(reported.map(|p| Point { x: p.average_bits, y: exact_match(&p.accuracy) }).collect());
    let mut series = vec![Series::new("uniform", by_width(uniform.collect()))];
    if !exact.is_empty() {
        series.push(Series::new("exact allocation", exact));
    }
    let found = Point { x: study.greedy.cost.average_bits, y: exact_match(&study.greedy.found) };
    series.push(Series::new("greedy search", vec![found]).with_style(LineStyle::Markers));
    LineChart {
        title: "Exact match over memory".into(),
        subtitle: format!("plans chosen on other questions; {}", questions(&study.greedy.found)),
        x: Axis::new("mean width of the weights", "bits").log2().with_ticks([2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0]),
        y: Axis::new("exact match", "%"),
        series,
        ..LineChart::default()
    }
}

/// One column for each regime, which may be many; one bar for each width, which are few.
fn regimes(study: &Study) -> Result<Option<BarChart>> {
    let Some(regimes) = &study.regimes else { return Ok(None) };
    let Some(first) = regimes.runs.first() else { return Ok(None) };
    let labels = labels(&regimes.runs);
    let mut groups = Vec::new();
    let mut seeds = 0;
    for bits in first.widths.iter().map(|width| width.bits) {
        let mut values = Vec::new();
        for label in &labels {
            let mean = mean_exact_match(&regimes.runs, label, bits, 0)?;
            seeds = mean.seeds;
            values.push(estimate(mean.mean, mean.interval));
        }
        groups.push(BarGroup::new(format!("{bits} bits"), values));
    }
    Ok(Some(BarChart {
        // Names stand upwards where they are many.
        size: Size { height: 1200, ..Size::default() },
        title: "Training regimes".into(),
        subtitle: format!(
            "at each width of the weights; mean of {seeds} seeds, n = {} questions, 95 % intervals over seeds and \
             questions",
            first.widths[0].accuracy.n
        ),
        category_label: "regime".into(),
        categories: labels.into_iter().map(ToOwned::to_owned).collect(),
        value: Axis::new("exact match", "%"),
        groups,
        ..BarChart::default()
    }))
}

fn regime_sites(study: &Study) -> Option<HeatMapChart> {
    let maps: Vec<(&str, &Sensitivity)> =
        study.regimes.as_ref()?.sites.iter().map(|(label, map)| (label.as_str(), map)).collect();
    let bits = maps.first()?.1.changed_to.weights;
    Some(heat_map(format!("One sub-module at {bits} bits with its trained adapter"), &maps))
}

/// Share of right answers made wrong: the attacks that are made on a width, side by side. Where no
/// attacked question is answered rightly, there is no such share.
fn success_maps(results: &RobustnessResults) -> Option<HeatMapChart> {
    let on_widths = results.matrices.iter().filter(|matrix| matrix.rows.iter().any(|row| row.source != NO_SOURCE));
    let maps: Vec<&AttackMatrix> = on_widths.collect();
    let cell = |cell: &RobustAccuracy| Some(estimate(cell.success_rate?, cell.success_interval));
    let items = maps.iter().flat_map(|matrix| &matrix.rows).map(|row| row.craft.attacked).min()?;
    let panels: Vec<Panel> = maps.iter().map(|matrix| attack_panel(matrix, &matrix.attack, cell)).collect();
    panels.iter().flat_map(|panel| &panel.cells).flatten().flatten().next()?;
    Some(HeatMapChart {
        title: "Right answers made wrong".into(),
        subtitle: attacked_text(items, &panels),
        value: Axis::new("right answers made wrong", "%").including([0.0, 100.0]),
        ..attack_map(maps[0], panels)
    })
}

/// Exact match under attack of the model as it is and of those trained on attacks.
fn hardened_maps(results: &RobustnessResults) -> Option<HeatMapChart> {
    let first = &results.hardened.first()?.matrix;
    let items = first.rows.iter().map(|row| row.craft.attacked).min().filter(|items| *items > 0)?;
    let cell = |cell: &RobustAccuracy| Some(estimate(cell.attacked_exact_match, cell.attacked_interval));
    let panel = |model: &HardenedModel| attack_panel(&model.matrix, model.hardening.name(), cell);
    let panels: Vec<Panel> = results.hardened.iter().map(panel).collect();
    Some(HeatMapChart {
        title: format!("Exact match under {}", first.attack),
        subtitle: attacked_text(items, &panels),
        value: Axis::new("exact match", "%").including([0.0, 100.0]),
        ..attack_map(first, panels)
    })
}

/// Number of questions, and the widest of the intervals, for which small cells have no room.
fn attacked_text(items: usize, panels: &[Panel]) -> String {
    let cells = panels.iter().flat_map(|panel| &panel.cells).flatten().flatten();
    let half_width = cells.filter_map(|cell| cell.interval).map(|interval| (interval.high - interval.low) / 2.0);
    format!("at least {items} questions a row, 95 % intervals at most ±{:.0} points", half_width.fold(0.0, f64::max))
}

/// Sources down, plans across, then inference at a drawn width.
fn attack_panel(matrix: &AttackMatrix, title: &str, value: impl Fn(&RobustAccuracy) -> Option<Estimate>) -> Panel {
    let row = |row: &MatrixRow| {
        let mut cells: Vec<Option<Estimate>> = row.cells.iter().map(&value).collect();
        cells.resize(matrix.inference.len(), None);
        cells.push(row.random_precision.as_ref().and_then(|random| value(&random.sampled)));
        cells
    };
    Panel { title: title.into(), cells: matrix.rows.iter().map(row).collect() }
}

fn attack_map(matrix: &AttackMatrix, panels: Vec<Panel>) -> HeatMapChart {
    HeatMapChart {
        row_label: "attack made on, bits".into(),
        rows: matrix.rows.iter().map(|row| row.source.clone()).collect(),
        column_label: "tried on, bits".into(),
        columns: matrix.inference.iter().cloned().chain(["drawn".into()]).collect(),
        panels,
        scale: ColourScale::Sequential,
        decimals: 0,
        ..HeatMapChart::default()
    }
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
