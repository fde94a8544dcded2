//! Attacks on the model, and training on them.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use charts::{Axis, ColourScale, Estimate, HeatMapChart, Panel};
use quant_kernels::{backends::quant_backend::QuantAutodiffBackend, spec::bit_width::BitWidth};
use span_reader::statistics::Interval;
use squad_data::Example;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::TrainableModel;

use crate::error::{Error, Result};
use crate::report::section::{Chart, Section};
use crate::report::stage::Stage;
use crate::report::stages::estimates::estimate;
use crate::robustness::attacks::attack_kind::AttackKind;
use crate::robustness::attacks::budget::AttackBudget;
use crate::robustness::hardening::adversarial_study::{HardenedModel, Hardening, HardeningData, plans_and_sources};
use crate::robustness::hardening::adversarial_training::{AdversarialTraining, HardeningRun};
use crate::robustness::protocol::craft::{ItemChoice, NO_SOURCE, RobustnessOptions};
use crate::robustness::protocol::matrix::{AttackMatrix, MatrixRow, RobustnessProtocol};
use crate::robustness::protocol::robust_accuracy::RobustAccuracy;
use crate::robustness::protocol::threat::{Threat, ThreatAccuracy};
use crate::robustness::victim::model_under_attack::Victim;
use crate::running::share::Left;
use crate::train::config::TrainConfig;
use crate::train::ladder::Ladder;
use crate::train::trainer::TrainRun;
use crate::workbench::Workbench;

/// Attacks on the model and on models trained against them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RobustnessStudy {
    /// Widths that are attacked and that answer.
    pub widths: Vec<BitWidth>,
    /// The attacks, by name.
    pub attacks: Vec<String>,
    /// Report questions that are attacked, the first ones.
    pub items: usize,
    /// How long attacks search.
    #[serde(skip_serializing_if = "AttackBudget::is_default")]
    pub budget: AttackBudget,
    /// Training on attacks, plain and at random precision; `None` leaves it out.
    pub training: Option<AdversarialTraining>,
    /// The attack of that training, tried on the trained models as well.
    pub training_attack: String,
}

impl Default for RobustnessStudy {
    /// All attacks at 32, 8, 4 and 3 bits on 60 questions; training on HotFlip in 8 rounds of 32 steps.
    fn default() -> Self {
        Self {
            widths: vec![BitWidth::FULL, BitWidth::B8, BitWidth::B4, BitWidth::B3],
            attacks: AttackKind::ALL.map(|kind| kind.name().to_owned()).to_vec(),
            items: 60,
            budget: AttackBudget::default(),
            training: Some(AdversarialTraining::default()),
            training_attack: AttackKind::HotFlipWord.name().to_owned(),
        }
    }
}

/// What the attacks did.
#[derive(Debug, Clone, PartialEq)]
pub struct RobustnessResults {
    /// Every attack on the model, with the adapters that it has: the items that the source answers.
    pub matrices: Vec<AttackMatrix>,
    /// The model and those trained on attacks of themselves, without adapters: all items.
    pub hardened: Vec<HardenedModel>,
    /// Seed of everything random.
    pub seed: u64,
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Stage<B, M> for RobustnessStudy {
    type Output = RobustnessResults;

    const NAME: &'static str = "robustness";

    fn check(&self, bench: &Workbench<'_, B, M>) -> Result<()> {
        bench.data.report.spans("an attack")?;
        for (field, empty) in [("robustness.widths", self.widths.is_empty()), ("attacks", self.attacks.is_empty())] {
            if empty {
                return Err(Error::option(field, "empty", "at least one"));
            }
        }
        if self.items == 0 {
            return Err(Error::option("robustness.items", 0, "at least 1"));
        }
        for attack in self.attacks.iter().chain(self.training.iter().map(|_| &self.training_attack)) {
            bench.attacks.get_with(attack, self.budget)?;
        }
        self.training.as_ref().map_or(Ok(()), AdversarialTraining::check)
    }

    fn run(&self, bench: &Workbench<'_, B, M>) -> Result<RobustnessResults> {
        let (seed, data) = (bench.run.seed, bench.data);
        let ladder_of = |precision: &dyn Fn(BitWidth) -> SitePrecision| {
            Ladder::new(self.widths.iter().map(|&bits| (bits, bench.uniform_plan(precision(bits)))))
        };
        let reading = bench.victim_options();
        let corpus = data.report.dataset().limited(self.items);
        let items: Vec<Example> = corpus.examples();
        let mut shared = json!({ "widths": self.widths, "items": self.items, "seed": seed });
        if !self.budget.is_default() {
            shared["budget"] = json!(self.budget);
        }

        let (inference, sources) = plans_and_sources(&ladder_of(&|bits| bench.precision(bits))?);
        let (mut matrices, mut left) = (Vec::new(), Left::default());
        for attack in &self.attacks {
            let matrix = bench.memory.recall(&format!("attack-{attack}"), &shared, || {
                let victim = Victim::new(bench.model, data.tokenizer, &corpus, reading.clone())?;
                let options = RobustnessOptions {
                    items: ItemChoice::CorrectWhenClean,
                    seed,
                    show: bench.run.show,
                    ..RobustnessOptions::default()
                };
                let protocol = RobustnessProtocol::new(&victim, &items, inference.clone(), options)?;
                protocol.matrix(bench.attacks.get_with(attack, self.budget)?.as_ref(), &sources)
            });
            matrices.extend(left.unless(matrix)?);
        }

        let mut hardened = Vec::new();
        if let Some(training) = &self.training {
            let training =
                AdversarialTraining { train: TrainConfig { seed, ..training.train.clone() }, ..training.clone() };
            let ladder = ladder_of(&|bits| SitePrecision::uniform(bits).without_adapter())?;
            let options = json!({ "shared": shared, "training": training, "attack": self.training_attack });
            let attack = bench.attacks.get_with(&self.training_attack, self.budget)?;
            for hardening in Hardening::ALL {
                let result = bench.memory.recall(&format!("hardening-{hardening}"), &options, || {
                    let run = TrainRun { dir: None, ..bench.run.train.clone() };
                    let how = HardeningRun {
                        ladder: &ladder,
                        training: &training,
                        tokenizer: data.tokenizer,
                        reading: &reading,
                        run: &run,
                    };
                    let data = HardeningData { train: data.train.dataset(), items: &items };
                    hardening.harden_and_attack(bench.model, data, attack.as_ref(), how)
                });
                hardened.extend(left.unless(result)?);
            }
        }
        left.finish()?;
        Ok(RobustnessResults { matrices, hardened, seed })
    }

    fn sections(&self, output: &RobustnessResults) -> Result<Vec<Section>> {
        let mut sections = vec![Section::new("Robustness", robustness_text(output))];
        let caption = "Right answers made wrong: attacks made on each width, tried on each";
        sections[0].charts.extend(success_maps(output).map(|maps| Chart::new("robustness.png", caption, maps)));
        if !output.hardened.is_empty() {
            let mut section = Section::new("Training on attacks", hardening_text(output));
            let caption = "Exact match under attack after training on attacks";
            section.charts.extend(hardened_maps(output).map(|maps| Chart::new("hardening.png", caption, maps)));
            sections.push(section);
        }
        Ok(sections)
    }
}

fn robustness_text(results: &RobustnessResults) -> String {
    let mut text =
        "Every attack is made on the width of its row and tried on the width of its column; `all` is made on \
                    all widths at once. Attacked are the questions that the width of the row answers exactly. Share of \
                    right answers made wrong, percent; `mean` over the widths, `drawn` with a width drawn for each \
                    question.\n"
            .to_string();
    for matrix in &results.matrices {
        text += &matrix_text(matrix);
    }
    text
}

/// Training on attacks: its figure stands before it.
fn hardening_text(results: &RobustnessResults) -> String {
    let (hardened, seed) = (&results.hardened, results.seed);
    let Some(first) = hardened.first() else { return String::new() };
    let mut text = format!(
        "The model as it is and after training on `{}` of itself, at the highest width (`{}`) or at a width drawn for \
         each round (`{}`). Exact match of all attacked questions without adapters: clean; attacked where the attacker \
         knows the width; where he takes another for it; where the width is drawn and he guesses one; where it is drawn \
         and he averages over all.\n\n",
        first.matrix.attack,
        Hardening::Adversarial,
        Hardening::RandomPrecision
    );
    let header = |text: &mut String| {
        let _ = write!(text, "| model |");
        for threat in Threat::ALL {
            let _ = write!(text, " {} |", threat.name());
        }
        let _ = writeln!(text, "\n|---|{}", "---|".repeat(Threat::ALL.len()));
    };
    header(&mut text);
    for model in hardened {
        let _ = write!(text, "| {} |", model.hardening);
        for threat in Threat::ALL {
            let cell = model.matrix.under(threat).map(|under| {
                let (value, interval) = under.exact_match();
                format!("{value:.1} [{:.1}, {:.1}], n = {}", interval.low, interval.high, under.n())
            });
            let _ = write!(text, " {} |", cell.unwrap_or_else(|| "–".into()));
        }
        text += "\n";
    }
    text += "\nOne model minus another, item by item, percent points:\n\n";
    header(&mut text);
    let pairs =
        hardened.iter().enumerate().flat_map(|(index, to)| hardened[..index].iter().map(move |from| (to, from)));
    for (to, from) in pairs {
        let _ = write!(text, "| {} − {} |", to.hardening, from.hardening);
        for threat in Threat::ALL {
            let under = [to, from].map(|model| model.matrix.under(threat));
            let _ = write!(text, " {} |", difference(&under, seed));
        }
        text += "\n";
    }
    text
}

fn difference([of, from]: &[Option<ThreatAccuracy>; 2], seed: u64) -> String {
    let difference = of.as_ref().zip(from.as_ref()).and_then(|(of, from)| of.minus(from, seed));
    difference.map_or_else(
        || "–".into(),
        |(by, interval)| {
            let noise = if interval.contains(0.0) { ", noise" } else { "" };
            format!("{by:+.1} [{:+.1}, {:+.1}]{noise}", interval.low, interval.high)
        },
    )
}

fn matrix_text(matrix: &AttackMatrix) -> String {
    let mut text = format!("\n`{}`:\n\n| made on | n | unattackable |", matrix.attack);
    for label in &matrix.inference {
        let _ = write!(text, " {label} |");
    }
    text += " mean | drawn | EM drop, drawn | queries | words changed |\n";
    let _ = writeln!(text, "|---|---|---|{}---|---|---|---|---|", "---|".repeat(matrix.inference.len()));
    for row in &matrix.rows {
        let unattackable: usize = row.craft.unattackable.values().sum();
        let _ = write!(text, "| {} | {} | {unattackable} |", row.source, row.craft.attacked);
        let empty = matrix.inference.len() - row.cells.len();
        for cell in &row.cells {
            let _ = write!(text, " {} |", success(cell));
        }
        text += &" – |".repeat(empty);
        match &row.random_precision {
            Some(random) => {
                let mean = random.mean_success_rate.map_or("–".into(), |rate| format!("{rate:.1}"));
                let drop = &random.sampled.exact_match_drop;
                let Interval { low, high } = drop.interval.scaled(100.0);
                let by = 100.0 * drop.difference;
                let _ = write!(text, " {mean} | {} | {by:+.1} [{low:+.1}, {high:+.1}] |", success(&random.sampled));
            }
            None => text += " – | – | – |",
        }
        let _ = writeln!(text, " {:.1} | {:.1} |", row.craft.mean_queries, row.craft.mean_words);
    }
    text
}

fn success(cell: &RobustAccuracy) -> String {
    let Interval { low, high } = cell.success_interval;
    cell.success_rate.map_or_else(|| "–".into(), |rate| format!("{rate:.1} [{low:.0}, {high:.0}]"))
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
