//! Training regimes compared.

use std::fmt::Write as _;

use burn::module::AutodiffModule;
use serde::Serialize;
use serde_json::json;

use charts::{Axis, BarChart, BarGroup, HeatMapChart, Size};
use quant_kernels::{
    backends::quant_backend::QuantAutodiffBackend,
    spec::{bit_width::BitWidth, formats::format::Format},
};
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::statistics::Interval;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::TrainableModel;
use switchable_model::sites::Site;
use switchable_model::span_head::ForQuestionAnswering;

use crate::banks::bank::BankConfig;
use crate::banks::contestants::{ContestantRow, Contestants, Controlled, Fit, contestant_name};
use crate::banks::precision_range::{PrecisionRange, RangeTest, precision_range_test};
use crate::banks::regime_comparison::{
    Contestant, Entry, RegimeRun, exact_match_difference, mean_exact_match, run_contestant,
};
use crate::banks::training_cost::PassCost;
use crate::error::{Error, Result};
use crate::report::section::{Chart, Section};
use crate::report::stage::Stage;
use crate::report::stages::estimates::estimate;
use crate::report::stages::greedy::Greedy;
use crate::report::stages::site_maps::site_maps;
use crate::running::share::Left;
use crate::search::harm_order::HarmOrder;
use crate::search::sensitivity::{Effect, Part, Sensitivity, SensitivityOptions, sensitivity};
use crate::train::config::TrainConfig;
use crate::train::trainer::{TrainRun, Training};
use crate::workbench::Workbench;

/// Which regimes are compared, and how they are trained.
#[derive(Debug, Clone, PartialEq)]
pub struct RegimeStudy {
    /// Widths and adapters.
    pub bank: BankConfig,
    /// Training of the static regime; the others get as many BitOps.
    pub train: TrainConfig,
    /// Seeds, at least one.
    pub seeds: Vec<u64>,
    /// The contestants there are.
    pub table: Contestants,
    /// Those that take part by name, as [`ContestantRow::name`] gives it; all where empty. The baseline,
    /// which the others are compared with, always takes part.
    pub contestants: Vec<String>,
    /// Steps per width of the precision range test.
    pub range_steps: usize,
    /// Progress that counts in that test, nats.
    pub range_threshold: f64,
}

impl Serialize for RegimeStudy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        json!({
            "adapters": self.bank.adapters, "activations": self.bank.activations, "train": self.train,
            "seeds": self.seeds, "range_steps": self.range_steps, "range_threshold": self.range_threshold,
        })
        .serialize(serializer)
    }
}

impl RegimeStudy {
    /// The contestants that take part, and that the weights' quantiser allows: an asymmetric one has no
    /// steps that could be learned.
    fn rows(&self, format: Format) -> Contestants {
        let takes_part = |row: &&ContestantRow| {
            let is_named = self.contestants.is_empty() || row.baseline || self.contestants.contains(&row.name());
            is_named && (format == Format::Symmetric || !row.needs_symmetric())
        };
        self.table.rows().iter().filter(takes_part).cloned().collect()
    }
}

/// The comparison of regimes on a model whose sites have been measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Regimes {
    /// What is compared.
    pub study: RegimeStudy,
    /// What the sites that harm most are known from.
    pub greedy: Greedy,
}

/// Regimes trained and compared.
#[derive(Debug, Clone, PartialEq)]
pub struct RegimeResults {
    /// The lowest width that still learns.
    pub range: PrecisionRange,
    /// Every contestant with every seed.
    pub runs: Vec<RegimeRun>,
    /// Sensitivity of every site with the bank of the first seed: label and result.
    pub sites: Vec<(String, Sensitivity)>,
    /// Label of the contestant that the others are compared with.
    pub baseline: String,
    /// Contestants with their controls.
    pub controls: Vec<Controlled>,
    /// Labels of the contestants whose sites are measured.
    pub mapped: Vec<String>,
}

impl Regimes {
    /// Those that take part, each with its steps.
    fn contestants<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        bench: &Workbench<'_, B, M>,
        most_harmful: &[Site],
    ) -> Result<Vec<Contestant>> {
        let study = &self.study;
        study.rows(bench.model.transformer.settings().weight.format).fitted(Fit {
            regimes: &bench.regimes,
            bank: &study.bank,
            ladder: &study.bank.ladder(bench.model)?,
            cost: &|bank| PassCost::of_bank(bank, &bench.model.transformer),
            steps: study.train.steps,
            most_harmful,
        })
    }
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Stage<B, M> for Regimes {
    type Output = RegimeResults;

    const NAME: &'static str = "regimes";

    fn check(&self, bench: &Workbench<'_, B, M>) -> Result<()> {
        let study = &self.study;
        if study.seeds.is_empty() {
            return Err(Error::option("seeds", "empty", "at least one seed"));
        }
        let known: Vec<String> = study.table.rows().iter().map(ContestantRow::name).collect();
        if let Some(unknown) = study.contestants.iter().find(|name| !known.contains(name)) {
            return Err(Error::option("contestants", format!("`{unknown}`"), known.join(", ")));
        }
        study.table.baseline()?;
        for row in study.table.rows() {
            bench.regimes.least_steps(&row.regime)?;
        }
        study.train.check()?;
        study.bank.check(bench.model)?;
        // Which sites harm most is not known yet; how many there are is.
        let sites: Vec<_> = bench.model.transformer.sites().iter().collect();
        self.contestants(bench, &sites).map(drop)
    }

    fn run(&self, bench: &Workbench<'_, B, M>) -> Result<RegimeResults> {
        let (study, run, seed) = (&self.study, &bench.run.train, bench.run.seed);
        let (low, greedy) = (*self.greedy.low.output(bench)?, self.greedy.output(bench)?);
        let range_options = json!({ "regimes": study, "seed": seed });
        let range = bench.memory.recall("precision-range", &range_options, || {
            let run = TrainRun { dir: None, ..run.clone() };
            let config = TrainConfig { steps: study.range_steps, ..study.train.clone() };
            let test = RangeTest { bank: &study.bank, threshold: study.range_threshold };
            precision_range_test(bench.model, bench.data.train, test, Training { config: &config, run: &run })
        })?;

        let rows = study.rows(bench.model.transformer.settings().weight.format);
        let most_harmful: Vec<_> =
            greedy.sites.by_harm(HarmOrder::Divergence).into_iter().rev().filter_map(Effect::site).collect();
        let contestants = self.contestants(bench, &most_harmful)?;
        let mapped: Vec<String> = rows.rows().iter().filter(|row| row.heat_map).map(|row| row.label.clone()).collect();
        let (mut runs, mut maps, mut left) = (Vec::new(), Vec::new(), Left::default());
        for contestant in &contestants {
            for &seed in &study.seeds {
                let name = format!("regime-{}-seed-{seed}", contestant_name(&contestant.label));
                let options = json!({ "regimes": study, "contestant": contestant, "low": low });
                let checkpoints = bench.memory.dir().map(|dir| dir.join("training").join(&name));
                let trained = bench.memory.recall(&name, &options, || {
                    let run = TrainRun {
                        dir: checkpoints.clone(),
                        identity: run.identity.clone().with_option("part", name.as_str()),
                        ..run.clone()
                    };
                    let training = Training { config: &study.train, run: &run };
                    let entry = Entry { contestant, seed, bank: &study.bank, training };
                    let (result, trained) = run_contestant(bench, entry)?;
                    let is_mapped = seed == study.seeds[0] && mapped.contains(&contestant.label);
                    let change_to = lowest_trained(study, low);
                    let map = is_mapped.then(|| site_map(bench, &trained, change_to, seed)).transpose()?;
                    Ok((result, map))
                });
                let Some((result, map)) = left.unless(trained)? else { continue };
                // The result is saved; its checkpoints have served.
                if let Some(checkpoints) = checkpoints.filter(|dir| dir.exists()) {
                    std::fs::remove_dir_all(&checkpoints).map_err(|e| Error::io(&checkpoints, e))?;
                }
                maps.extend(map.map(|map| (contestant.label.clone(), map)));
                runs.push(result);
            }
        }
        left.finish()?;
        let (baseline, controls) = (rows.baseline()?.label.clone(), rows.controls());
        Ok(RegimeResults { range, runs, sites: maps, baseline, controls, mapped })
    }

    fn sections(&self, output: &RegimeResults) -> Result<Vec<Section>> {
        let mut section = Section::new("Training regimes", text(output)?);
        let caption = "Exact match of each regime's bank at its widths";
        section.charts.extend(chart(output)?.map(|chart| Chart::new("regimes.png", caption, chart)));
        let caption = format!("Sub-module sensitivity, {}", short(&output.mapped).join(" against "));
        section.closing_charts.extend(maps(output).map(|maps| Chart::new("regime-sites.png", caption, maps)));
        Ok(vec![section])
    }
}

/// Each site of a trained bank alone at a precision, on the search questions.
fn site_map<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    bench: &Workbench<'_, B, M>,
    trained: &ForQuestionAnswering<B, M>,
    change_to: SitePrecision,
    seed: u64,
) -> Result<Sensitivity> {
    let trained = trained.valid();
    let search = Evaluator::new(&trained, bench.data.search, bench.run.evaluate.clone(), &bench.device())?;
    let how = SensitivityOptions { seed, show: bench.run.show, ..SensitivityOptions::new(Part::Site, change_to) };
    Ok(sensitivity(&search, &bench.uniform_plan(SitePrecision::FULL), &how)?.0)
}

/// Labels up to their comma.
fn short(labels: &[String]) -> Vec<&str> {
    labels.iter().map(|label| label.split(',').next().unwrap_or(label)).collect()
}

/// The low precision where the bank has it, else its lowest.
fn lowest_trained(study: &RegimeStudy, low: SitePrecision) -> SitePrecision {
    let lowest = study.bank.widths().min().unwrap_or(low.weights);
    let bits = if study.bank.widths().any(|width| width == low.weights) { low.weights } else { lowest };
    study.bank.precision(bits)
}

/// Labels of the contestants in their order, each once.
fn labels(runs: &[RegimeRun]) -> Vec<&str> {
    let mut labels: Vec<&str> = Vec::new();
    for run in runs {
        if !labels.contains(&run.contestant.label.as_str()) {
            labels.push(&run.contestant.label);
        }
    }
    labels
}

fn text(regimes: &RegimeResults) -> Result<String> {
    let Some(first) = regimes.runs.first() else { return Ok(String::new()) };
    let range = &regimes.range;
    let baseline = regimes.baseline.as_str();
    let mut text = format!("Precision range test, {} steps at each width:\n\n", range.steps);
    text += "| bits | first loss | last loss | progress, nats |\n|---|---|---|---|\n";
    for width in &range.widths {
        let _ = writeln!(
            text,
            "| {} | {:.3} | {:.3} | {:+.3} |",
            width.bits, width.first_loss, width.last_loss, width.progress
        );
    }
    let lowest = match range.lowest {
        Some(bits) => {
            format!("\nThe lowest width with more than {} nats of progress: {bits} bits.\n\n", range.threshold)
        }
        None => format!("\nNo width makes more than {} nats of progress.\n\n", range.threshold),
    };
    text += &lowest;
    let widths: Vec<BitWidth> = first.widths.iter().map(|width| width.bits).collect();
    let header = |text: &mut String, first: &str| {
        let _ = write!(text, "| regime | {first} |");
        for bits in &widths {
            let _ = write!(text, " {bits} bits |");
        }
        let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(widths.len()));
    };
    let seeds: Vec<String> = {
        let mut seeds: Vec<u64> = regimes.runs.iter().map(|run| run.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        seeds.iter().map(ToString::to_string).collect()
    };
    let _ = write!(
        text,
        "Exact match at each width, mean over seeds {} and {} questions; steps and forward BitOps per token of a run.\n\n",
        seeds.join(", "),
        first.widths[0].accuracy.n
    );
    if seeds.len() < 2 {
        text += "One seed does not say how seeds differ: there are no intervals, and no difference is told from \
                 noise.\n\n";
    }
    header(&mut text, "steps, BitOps");
    for label in labels(&regimes.runs) {
        let of_label: Vec<_> = regimes.runs.iter().filter(|run| run.contestant.label == label).collect();
        let _ = write!(text, "| {label} | {}, {:.2e} |", of_label[0].contestant.steps, of_label[0].bit_ops);
        for &bits in &widths {
            let mean = mean_exact_match(&regimes.runs, label, bits)?;
            let _ = match mean.interval {
                Some(Interval { low, high }) => write!(text, " {:.1} [{low:.1}, {high:.1}] |", mean.mean),
                None => write!(text, " {:.1} |", mean.mean),
            };
        }
        text += "\n";
    }
    text += "\nF1, mean over seeds:\n\n";
    header(&mut text, "final loss, nats");
    for label in labels(&regimes.runs) {
        let of_label: Vec<_> = regimes.runs.iter().filter(|run| run.contestant.label == label).collect();
        let mean = |value: &dyn Fn(&RegimeRun) -> f64| {
            of_label.iter().map(|run| value(run)).sum::<f64>() / of_label.len() as f64
        };
        let _ = write!(text, "| {label} | {:.3} |", mean(&|run| run.final_loss));
        for i in 0..widths.len() {
            let _ = write!(text, " {:.1} |", mean(&|run| run.widths[i].accuracy.f1));
        }
        text += "\n";
    }
    let _ = write!(
        text,
        "\nExact match minus that of `{baseline}`, pairs of the same seed and question, percent points:\n\n"
    );
    header(&mut text, "");
    for label in labels(&regimes.runs).into_iter().filter(|label| *label != baseline) {
        text += &difference_row(&regimes.runs, label, [baseline, label], &widths)?;
    }
    if !regimes.controls.is_empty() {
        text += "\nExact match minus that of its control:\n\n";
        header(&mut text, "");
        for Controlled { contestant, control } in &regimes.controls {
            let label = format!("{contestant} − {control}");
            text += &difference_row(&regimes.runs, &label, [control, contestant], &widths)?;
        }
    }
    if seeds.len() > 1 {
        let compared = (labels(&regimes.runs).len() - 1 + regimes.controls.len()) * widths.len();
        let _ = writeln!(
            text,
            "\nThese are {compared} comparisons, each with an interval of 95 % of its own: were there no difference at all, \
             {:.1} of them would not hold zero.",
            0.05 * compared as f64
        );
    }
    let mapped: Vec<String> = regimes.mapped.iter().map(|label| format!("`{label}`")).collect();
    let mapped = mapped.join(" and ");
    let _ = writeln!(text, "\nHeat maps: {mapped}, first seed, each site alone at the low width.");
    Ok(text)
}

/// A line of the exact match of the second minus that of the first, width by width.
fn difference_row(runs: &[RegimeRun], label: &str, pair: [&str; 2], widths: &[BitWidth]) -> Result<String> {
    let mut row = format!("| {label} | |");
    for &bits in widths {
        let difference = exact_match_difference(runs, pair, bits, 0)?;
        let noise = if difference.is_noise() { ", noise" } else { "" };
        let _ = match difference.interval {
            Some(Interval { low, high }) => write!(row, " {:+.1} [{low:+.1}, {high:+.1}]{noise} |", difference.mean),
            None => write!(row, " {:+.1} |", difference.mean),
        };
    }
    Ok(row + "\n")
}

/// One column for each regime, which may be many; one bar for each width, which are few.
fn chart(regimes: &RegimeResults) -> Result<Option<BarChart>> {
    let Some(first) = regimes.runs.first() else { return Ok(None) };
    let labels = labels(&regimes.runs);
    let mut groups = Vec::new();
    let mut seeds = 0;
    for bits in first.widths.iter().map(|width| width.bits) {
        let mut values = Vec::new();
        for label in &labels {
            let mean = mean_exact_match(&regimes.runs, label, bits)?;
            seeds = mean.seeds;
            values.push(mean.interval.map_or_else(|| mean.mean.into(), |interval| estimate(mean.mean, interval)));
        }
        groups.push(BarGroup::new(format!("{bits} bits"), values));
    }
    Ok(Some(BarChart {
        // Names stand upwards where they are many.
        size: Size { height: 1200, ..Size::default() },
        title: "Training regimes".into(),
        subtitle: format!(
            "at each width of the weights; mean of {seeds} seeds, n = {} questions, {}",
            first.widths[0].accuracy.n,
            if seeds > 1 { "95 % intervals over seeds and questions" } else { "no intervals from one seed" }
        ),
        category_label: "regime".into(),
        categories: labels.into_iter().map(ToOwned::to_owned).collect(),
        value: Axis::new("exact match", "%"),
        groups,
        ..BarChart::default()
    }))
}

fn maps(regimes: &RegimeResults) -> Option<HeatMapChart> {
    let maps: Vec<(&str, &Sensitivity)> = regimes.sites.iter().map(|(label, map)| (label.as_str(), map)).collect();
    let bits = maps.first()?.1.changed_to.weights;
    Some(site_maps(format!("One sub-module at {bits} bits with its trained adapter"), &maps))
}
