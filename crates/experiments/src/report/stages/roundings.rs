//! Roundings and ranges beside each other.

use std::fmt::Write as _;

use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde::Serialize;
use serde_json::json;

use charts::{Axis, LineChart, Mark, Point, Series};
use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use quant_kernels::spec::granularity::Granularity;
use span_reader::evaluation::evaluate::Evaluator;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::calibration::{Calibrate as _, ModelMoments};
use switchable_model::model::{SwitchableModel as _, TrainableModel};

use crate::banks::learned_grid::{LearnedGrid, StepTraining, learn_grid};
use crate::error::Result;
use crate::report::section::{Chart, Section};
use crate::report::stage::Stage;
use crate::report::stages::cells::{em, points};
use crate::report::stages::estimates::{bits_axis, estimate, questions};
use crate::running::progress::Progress;
use crate::search::rounding_table::{
    Recipe, RoundingRow, RoundingTable, RoundingTableOptions, cell_names, rounding_table,
};
use crate::workbench::Workbench;

/// Every recipe on every grid on the report questions, calibrated on the search questions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Roundings {
    /// Windows of the search questions that the model is calibrated on.
    pub windows: usize,
    /// How steps are learned on the training questions, for each grid and width; `None` leaves them out.
    pub learned: Option<StepTraining>,
}

/// Recipes that train nothing, and steps that are learned.
#[derive(Debug, Clone, PartialEq)]
pub struct RoundingResults {
    /// Every recipe.
    pub table: RoundingTable,
    /// Learned steps, grid by grid, in each width by width; none where they are left out.
    pub learned: Vec<LearnedGrid>,
}

impl Default for Roundings {
    fn default() -> Self {
        Self { windows: 128, learned: None }
    }
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Stage<B, M> for Roundings {
    type Output = RoundingResults;

    const NAME: &'static str = "roundings";

    fn check(&self, bench: &Workbench<'_, B, M>) -> Result<()> {
        let Some(StepTraining { lora, train }) = &self.learned else { return Ok(()) };
        train.check()?;
        Ok(bench.model.transformer.check_lora(lora)?)
    }

    fn run(&self, bench: &Workbench<'_, B, M>) -> Result<RoundingResults> {
        let (seed, name) = (bench.run.seed, <Self as Stage<B, M>>::NAME);
        let options = json!({ "windows": self.windows, "seed": seed, "recipes": Recipe::ALL,
            "of_activations": Recipe::OF_ACTIVATIONS });
        let known = bench.memory.parts("rounding-cells", options.clone());
        let cells = cell_names(&RoundingTableOptions::default());
        let table = bench.memory.gather(name, &options, &[(&known, &cells)], || {
            let mut model = bench.plain().clone();
            let moments = self.moments(bench, &model.transformer)?;
            model.transformer = moments.given_to(model.transformer)?;
            let evaluator = Evaluator::new(&model, bench.data.report, bench.run.evaluate.clone(), &bench.device())?;
            let options = RoundingTableOptions {
                seed,
                show: bench.run.show,
                known: known.clone(),
                ..RoundingTableOptions::default()
            };
            rounding_table(&evaluator, &options)
        })?;
        known.forget()?;
        let learned = self.learned.as_ref().map(|how| self.learn(bench, &table, how)).transpose()?;
        Ok(RoundingResults { table, learned: learned.unwrap_or_default() })
    }

    fn sections(&self, results: &RoundingResults) -> Result<Vec<Section>> {
        let caption = "Exact match by recipe with one scale per channel";
        let chart = Chart::new("roundings.png", caption, chart(&results.table));
        Ok(vec![Section::new("Roundings that know the inputs", self.text(results)).with_chart(chart)])
    }
}

impl Roundings {
    /// What the inputs are like on windows of the search questions, chosen by the seed.
    fn moments<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        bench: &Workbench<'_, B, M>,
        model: &M::InnerModule,
    ) -> Result<ModelMoments> {
        let mut windows = bench.data.search.texts();
        windows.shuffle(&mut ChaCha8Rng::seed_from_u64(bench.run.seed));
        windows.truncate(self.windows);
        let mut progress = Progress::start("calibration", 0, model.sites().blocks(), bench.run.show);
        let moments = model.collect_moments(&windows, &mut |block| {
            progress.step(format!("block {block}"));
            Ok(())
        })?;
        progress.finish();
        Ok(moments)
    }
}

impl Roundings {
    /// The steps of every grid at every width, each kept as soon as it is known.
    fn learn<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        bench: &Workbench<'_, B, M>,
        table: &RoundingTable,
        how: &StepTraining,
    ) -> Result<Vec<LearnedGrid>> {
        let options = json!({ "windows": self.windows, "seed": bench.run.seed, "learned": how });
        let cells: Vec<&RoundingRow> = table.rows.chunks(Recipe::ALL.len()).map(|rows| &rows[0]).collect();
        let known = bench.memory.parts("learned-grid-cells", options.clone());
        let names: Vec<String> = (1..=cells.len()).map(|cell| format!("cell-{cell:03}")).collect();
        bench.memory.gather("learned-grids", &options, &[(&known, &names)], || {
            let moments = self.moments(bench, &bench.plain().transformer)?;
            // A table that was read again does not know its questions any more.
            let reference = bench.evaluator(bench.data.report)?.evaluate(&bench.uniform_plan(SitePrecision::FULL))?;
            let learned = known.each(&names, |index| {
                let RoundingRow { quantizer, bits, .. } = cells[index];
                learn_grid(bench, &moments, (quantizer.granularity, *bits), (how, &reference))
            })?;
            known.forget()?;
            Ok(learned)
        })
    }

    fn text(&self, RoundingResults { table, learned }: &RoundingResults) -> String {
        let mut text = weights_text(table, learned, self.windows);
        if let Some(StepTraining { lora, train }) = &self.learned {
            let _ = writeln!(
                text,
                "\nLearned steps: {} steps of {} questions with adapters of rank {}, started from GPTQ's scales, symmetric \
                 in groups too; their bits per weight are those of the adapters as well.",
                train.steps,
                train.batch_size,
                lora.rank()
            );
        }
        text + &activations_text(table)
    }
}

/// Activations of few bits.
fn activations_text(table: &RoundingTable) -> String {
    let mut text =
        "\nWeights of 4 bits, one scale per channel, by GPTQ within `importance`; activations with a scale for each \
                    token, as they are, with factors (`smooth`), rotated (`hadamard`):\n\n| activations |"
            .to_owned();
    for recipe in Recipe::OF_ACTIVATIONS {
        let _ = write!(text, " {recipe} |");
    }
    text += "\n|---|";
    text += &"---|".repeat(Recipe::OF_ACTIVATIONS.len());
    text += "\n";
    for rows in table.of_activations.chunks(Recipe::OF_ACTIVATIONS.len()) {
        let _ = write!(text, "| {} |", rows[0].activations);
        for row in rows {
            let _ = write!(text, " {:.1}: {} |", row.accuracy.exact_match, points(&row.comparison));
        }
        text += "\n";
    }
    text
}

fn weights_text(table: &RoundingTable, learned: &[LearnedGrid], windows: usize) -> String {
    let mut text = format!(
        "\nEvery site at one width, without adapters and without training, n = {}; full precision: EM {}. `importance`, \
         `gptq` and `awq` know the inputs of at most {windows} windows of the search questions. Bits per weight count scales and \
         zero points.\n\n",
        table.reference.n,
        em(&table.reference)
    );
    text += "| weights | bits | per weight |";
    for recipe in Recipe::ALL {
        let _ = write!(text, " {recipe} |");
    }
    text += if learned.is_empty() { "" } else { " learned steps | per weight |" };
    text += "\n|---|---|---|";
    text += &"---|".repeat(Recipe::ALL.len());
    text += if learned.is_empty() { "" } else { "---|---|" };
    text += "\n";
    for (index, rows) in table.rows.chunks(Recipe::ALL.len()).enumerate() {
        let RoundingRow { quantizer, bits, stored_bits, .. } = &rows[0];
        let _ = write!(text, "| {}, {} | {bits} | {stored_bits:.2} |", quantizer.granularity, quantizer.format);
        for row in rows {
            let _ = write!(text, " {:.1}: {} |", row.accuracy.exact_match, points(&row.comparison));
        }
        if let Some(LearnedGrid { accuracy, comparison, stored_bits, .. }) = learned.get(index) {
            let _ = write!(text, " {:.1}: {} | {stored_bits:.2} |", accuracy.exact_match, points(comparison));
        }
        text += "\n";
    }
    text + "\nEach cell: EM, and its points above full precision with their interval.\n"
}

/// The recipes at every width with one scale per channel.
fn chart(table: &RoundingTable) -> LineChart {
    let of_recipe = |recipe: Recipe| {
        let rows = table
            .rows
            .iter()
            .filter(move |row| row.recipe == recipe && row.quantizer.granularity == Granularity::PerChannel);
        let points = rows.map(|row| Point {
            x: f64::from(row.bits.bits()),
            y: estimate(row.accuracy.exact_match, row.accuracy.exact_match_interval),
        });
        Series::new(recipe.to_string(), points.collect::<Vec<_>>())
    };
    LineChart {
        title: "Roundings and ranges, one scale per channel".into(),
        subtitle: questions(&table.reference),
        x: bits_axis(),
        y: Axis::new("exact match", "%").including([0.0]),
        series: Recipe::ALL.map(of_recipe).into(),
        horizontal_marks: vec![Mark::new(table.reference.exact_match, "all at 32")],
        ..LineChart::default()
    }
}
