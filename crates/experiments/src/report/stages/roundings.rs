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
use switchable_model::calibration::{Calibrate as _, ModelMoments};
use switchable_model::model::{SwitchableModel as _, TrainableModel};

use crate::error::Result;
use crate::report::section::{Chart, Section};
use crate::report::stage::Stage;
use crate::report::stages::cells::{em, points};
use crate::report::stages::estimates::{bits_axis, estimate, questions};
use crate::running::progress::Progress;
use crate::search::rounding_table::{Recipe, RoundingRow, RoundingTable, RoundingTableOptions, rounding_table};
use crate::workbench::Workbench;

/// Every recipe on every grid on the report questions, calibrated on the search questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Roundings {
    /// Windows of the search questions that the model is calibrated on.
    pub windows: usize,
}

impl Default for Roundings {
    fn default() -> Self {
        Self { windows: 128 }
    }
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Stage<B, M> for Roundings {
    type Output = RoundingTable;

    const NAME: &'static str = "roundings";

    fn run(&self, bench: &Workbench<'_, B, M>) -> Result<RoundingTable> {
        let (seed, name) = (bench.run.seed, <Self as Stage<B, M>>::NAME);
        let options = json!({ "windows": self.windows, "seed": seed, "recipes": Recipe::ALL });
        let known = bench.memory.parts("rounding-cells", options.clone());
        let table = bench.memory.recall(name, &options, || {
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
        Ok(table)
    }

    fn sections(&self, table: &RoundingTable) -> Result<Vec<Section>> {
        let caption = "Exact match by recipe with one scale per channel";
        let chart = Chart::new("roundings.png", caption, chart(table));
        Ok(vec![Section::new("Roundings that know the inputs", text(table, self.windows)).with_chart(chart)])
    }
}

impl Roundings {
    /// What the inputs are like on windows of the search questions, chosen by the seed.
    fn moments<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        self,
        bench: &Workbench<'_, B, M>,
        model: &M::InnerModule,
    ) -> Result<ModelMoments> {
        let mut windows: Vec<Vec<u32>> =
            bench.data.search.features.windows().iter().map(|window| window.ids.clone()).collect();
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

fn text(table: &RoundingTable, windows: usize) -> String {
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
    text += "\n|---|---|---|";
    text += &"---|".repeat(Recipe::ALL.len());
    text += "\n";
    for rows in table.rows.chunks(Recipe::ALL.len()) {
        let RoundingRow { quantizer, bits, stored_bits, .. } = &rows[0];
        let _ = write!(text, "| {}, {} | {bits} | {stored_bits:.2} |", quantizer.granularity, quantizer.format);
        for row in rows {
            let _ = write!(text, " {:.1}: {} |", row.accuracy.exact_match, points(&row.comparison));
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
