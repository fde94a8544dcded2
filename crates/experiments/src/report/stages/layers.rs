//! One block at a time.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use charts::{Axis, BarChart, BarGroup, Mark};
use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::TrainableModel;

use crate::error::Result;
use crate::report::section::{Chart, Section};
use crate::report::stage::Stage;
use crate::report::stages::cells::{em, f1, points};
use crate::report::stages::estimates::{exact_match, questions};
use crate::report::stages::low_width::LowWidth;
use crate::search::sensitivity::{Part, Sensitivity, SensitivityOptions, sensitivity};
use crate::workbench::Workbench;

/// Each block alone at the low width, on the search questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Layers {
    /// The width.
    pub low: LowWidth,
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Stage<B, M> for Layers {
    type Output = Sensitivity;

    const NAME: &'static str = "layers";

    fn run(&self, bench: &Workbench<'_, B, M>) -> Result<Sensitivity> {
        let (low, seed) = (*self.low.output(bench)?, bench.run.seed);
        bench.memory.recall(<Self as Stage<B, M>>::NAME, &json!({ "low": low, "seed": seed }), || {
            let how = SensitivityOptions { seed, show: bench.run.show, ..SensitivityOptions::new(Part::Block, low) };
            let full = bench.uniform_plan(SitePrecision::FULL);
            Ok(sensitivity(&bench.evaluator(bench.data.search)?, &full, &how)?.0)
        })
    }

    fn sections(&self, layers: &Sensitivity) -> Result<Vec<Section>> {
        let chart = Chart::new("layers.png", "Exact match with one block at the low width", chart(layers));
        Ok(vec![Section::new("One block at a time", text(layers)).with_chart(chart)])
    }
}

fn text(layers: &Sensitivity) -> String {
    let mut text = format!("Every block alone at {} bits, n = {}.\n\n", layers.changed_to.weights, layers.reference.n);
    text += "| block | EM | F1 | divergence, nats | EM against 32 bits |\n|---|---|---|---|---|\n";
    for effect in &layers.effects {
        let divergence = effect.accuracy.divergence.map_or("–".to_string(), |d| format!("{d:.4}"));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {divergence} | {} |",
            effect.block.unwrap_or_default(),
            em(&effect.accuracy),
            f1(&effect.accuracy),
            points(&effect.comparison)
        );
    }
    text
}

fn chart(layers: &Sensitivity) -> BarChart {
    BarChart {
        title: format!("One block at {} bits, all others at 32", layers.changed_to.weights),
        subtitle: questions(&layers.reference),
        category_label: "block".into(),
        categories: layers.effects.iter().map(|effect| effect.block.unwrap_or_default().to_string()).collect(),
        value: Axis::new("exact match", "%"),
        groups: vec![BarGroup::new("", layers.effects.iter().map(|e| exact_match(&e.accuracy)).collect::<Vec<_>>())],
        horizontal_marks: vec![Mark::new(layers.reference.exact_match, "all at 32")],
        ..BarChart::default()
    }
}
