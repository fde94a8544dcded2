//! One sub-module at a time, and the greedy search in the order of their harm.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::json;

use charts::{Axis, LineChart, Mark, Point, Series};
use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use span_reader::cost::Cost;
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::work::Work;
use span_reader::statistics::PairedComparison;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::{SwitchableModel as _, TrainableModel};

use crate::error::Result;
use crate::report::lost_questions::{LostQuestion, lost_questions, lost_text};
use crate::report::section::{Chart, Section};
use crate::report::stage::Stage;
use crate::report::stages::cells::{em, f1, percent, points};
use crate::report::stages::damage::SiteDamages;
use crate::report::stages::estimates::{exact_match, questions};
use crate::report::stages::low_width::LowWidth;
use crate::report::stages::site_maps::site_maps;
use crate::search::allocation::equal_bytes::EqualBytes;
use crate::search::greedy::{GreedyOptions, GreedyResult, GreedyStart, StopAt, check_tolerance, greedy_search};
use crate::search::harm_order::HarmOrder;
use crate::search::sensitivity::{Effect, Part, Sensitivity, SensitivityOptions, sensitivity, sensitivity_names};
use crate::workbench::Workbench;

/// Each site alone at the low width, the greedy search, and exact allocations of the bytes of its path.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Greedy {
    /// The width that sites are flipped to.
    pub low: LowWidth,
    /// Share of the exact match that may be lost, in (0, 1).
    pub tolerance: f64,
    /// Damage that the exact allocations are solved from.
    pub damage: SiteDamages,
}

/// A greedy search, checked on questions that it did not see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GreedyStudy {
    /// The width that sites are flipped to.
    pub low: SitePrecision,
    /// Each site alone.
    pub sites: Sensitivity,
    /// The search.
    pub search: GreedyResult,
    /// The exact allocation at the bytes of each flip.
    pub equal_bytes: Vec<EqualBytes>,
    /// What the plan found costs.
    pub cost: Cost,
    /// The plan with every site high, on the report questions.
    pub high: Accuracy,
    /// The plan found, on the report questions.
    pub found: Accuracy,
    /// Found against high.
    pub comparison: PairedComparison,
    /// The report questions that the plan found loses.
    #[serde(default)]
    pub lost: Vec<LostQuestion>,
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Stage<B, M> for Greedy {
    type Output = GreedyStudy;

    const NAME: &'static str = "greedy";

    fn check(&self, bench: &Workbench<'_, B, M>) -> Result<()> {
        check_tolerance(self.tolerance)?;
        Stage::check(&self.damage, bench)
    }

    fn run(&self, bench: &Workbench<'_, B, M>) -> Result<GreedyStudy> {
        let (low, damage) = (*self.low.output(bench)?, self.damage.output(bench)?);
        let (seed, show) = (bench.run.seed, bench.run.show);
        let made_from =
            json!({ "low": low, "seed": seed, "tolerance": self.tolerance, "choices": self.damage.choices });
        let sites_known = bench.memory.parts("sites", json!({ "low": low, "seed": seed }));
        let flips_known = bench.memory.parts("flips", made_from.clone());
        let how =
            SensitivityOptions { seed, show, known: sites_known.clone(), ..SensitivityOptions::new(Part::Site, low) };
        let names = sensitivity_names(bench.plain().transformer.sites(), &how);
        let greedy = bench.memory.gather(<Self as Stage<B, M>>::NAME, &made_from, &[(&sites_known, &names)], || {
            let (search, report) = (bench.evaluator(bench.data.search)?, bench.evaluator(bench.data.report)?);
            let full = bench.uniform_plan(SitePrecision::FULL);
            let (sites, kept) = sensitivity(&search, &full, &how)?;
            let options = GreedyOptions {
                stop_at: StopAt::Tolerance(self.tolerance),
                show,
                known: flips_known.clone(),
                ..GreedyOptions::new(low)
            };
            let start = GreedyStart { reference: &full, sensitivity: &sites, kept };
            let (found, plan) = greedy_search(&search, start, &options)?;
            let equal_bytes = damage.compare_at_equal_bytes(&search, &full, &found.path)?;
            let cost = Cost::of(&bench.plain().transformer, &plan);
            let ((high, answers), (plan, changed)) = (report.predict(&full)?, report.predict(&plan)?);
            let comparison = high.compare(&plan, seed);
            let lost = lost_questions(bench.data.report.dataset(), (&high, &answers), (&plan, &changed));
            Ok(GreedyStudy { low, sites, search: found, equal_bytes, cost, high, found: plan, comparison, lost })
        })?;
        sites_known.forget()?;
        flips_known.forget()?;
        Ok(greedy)
    }

    fn sections(&self, greedy: &GreedyStudy) -> Result<Vec<Section>> {
        let map = site_maps(
            format!("One sub-module at {} bits, all others at 32", greedy.sites.changed_to.weights),
            &[("", &greedy.sites)],
        );
        let map = Chart::new("sites.png", "Exact match lost by each sub-module alone", map);
        let path = Chart::new("greedy.png", "The path of the greedy search", path_chart(greedy));
        Ok(vec![
            Section::new("One sub-module at a time", sites_text(greedy)).with_chart(map),
            Section::new("Greedy search", greedy_text(greedy)).with_chart(path),
            Section::new(
                "Questions that the plan of the greedy search loses",
                lost_text(&greedy.lost, greedy.comparison.only_first, "greedy.json"),
            ),
        ])
    }
}

fn sites_text(greedy: &GreedyStudy) -> String {
    let sites = &greedy.sites;
    let costly: Vec<&Effect> = (sites.by_harm(HarmOrder::Divergence).into_iter().rev())
        .filter(|effect| effect.comparison.difference < 0.0 && !effect.comparison.is_noise())
        .collect();
    let mut text = format!(
        "Every site alone at {} bits, n = {}. {} of {} cost more than the noise",
        sites.changed_to.weights,
        sites.reference.n,
        costly.len(),
        sites.effects.len()
    );
    // A test at 5 % calls one site in twenty an effect where there is none.
    let _ = write!(text, " (of so many tests {:.1} are expected to by chance).\n\n", 0.05 * sites.effects.len() as f64);
    let by_divergence = sites.by_harm(HarmOrder::Divergence);
    let shown = by_divergence.len().min(5);
    let mut table = |title: &str, effects: &[&Effect]| {
        let _ = writeln!(text, "{title}\n\n| site | divergence, nats | EM against 32 bits |\n|---|---|---|");
        for effect in effects {
            let divergence = effect.accuracy.divergence.unwrap_or(0.0);
            let _ = writeln!(text, "| `{}` | {divergence:.4} | {} |", effect.name, points(&effect.comparison));
        }
        text += "\n";
    };
    table("Least diverging:", &by_divergence[..shown]);
    table("Most diverging:", &by_divergence.iter().rev().copied().take(shown).collect::<Vec<_>>());
    let modules = sites.site_losses().map_or_else(Vec::new, |losses| losses.modules);
    let by_module = modules.iter().map(|&module| {
        let of: Vec<f64> = (sites.effects.iter())
            .filter(|effect| effect.module == Some(module))
            .map(|effect| effect.accuracy.divergence.unwrap_or(0.0))
            .collect();
        format!("`{module}` {:.4}", span_reader::statistics::mean(&of))
    });
    text + &format!("Mean divergence by sub-module, nats: {}.\n", by_module.collect::<Vec<_>>().join(", "))
}

fn greedy_text(greedy: &GreedyStudy) -> String {
    let search = &greedy.search;
    let asked_for = match search.threshold {
        Some(0.0) => ": with no answer right there is nothing to lose, and every step is undone".to_owned(),
        Some(threshold) => format!(", at least {threshold:.1} asked for"),
        None => String::new(),
    };
    let mut text = format!(
        "From 32 to {} bits in the order of least harm; {} of {} sites flipped, {:.2} bits on average. On the search \
         questions (n = {}) EM {}{}.\n\n",
        greedy.low.weights,
        search.flipped.len(),
        greedy.sites.effects.len(),
        greedy.cost.average_bits,
        search.accuracy.n,
        em(&search.accuracy),
        asked_for
    );
    let _ = write!(
        text,
        "On the report questions (n = {}): EM {} with every site at 32 bits, {} with the plan; difference {}. F1 {} \
         and {}.\n\n",
        greedy.found.n,
        em(&greedy.high),
        em(&greedy.found),
        points(&greedy.comparison),
        f1(&greedy.high),
        f1(&greedy.found)
    );
    let cost = &greedy.cost;
    let _ = write!(
        text,
        "Saved: {} of the sites, {} of the model against fp32, {} against fp16, {} as stored.\n\n",
        percent(cost.sites.saved),
        percent(cost.whole_vs_fp32.saved),
        percent(cost.whole_vs_fp16.saved),
        percent(cost.stored.saved)
    );
    let work = |name: &str, work: Work| {
        format!(
            "{name}: {} block passes of {} that the plain loop needs ({} saved). ",
            work.blocks_computed,
            work.blocks_plain,
            percent(work.saved())
        )
    };
    text + &work("Sensitivity", greedy.sites.work) + &work("Search", search.work) + "\n"
}

fn path_chart(greedy: &GreedyStudy) -> LineChart {
    let search = &greedy.search;
    let path = search.path.iter().enumerate();
    let flips = path.filter_map(|(i, flip)| Some(Point { x: (i + 1) as f64, y: exact_match(flip.accuracy.as_ref()?) }));
    let start = Point { x: 0.0, y: exact_match(&search.reference) };
    let threshold = search.threshold.map(|threshold| Mark::new(threshold, "threshold"));
    LineChart {
        title: format!("Greedy search, 32 to {} bits", greedy.low.weights),
        subtitle: questions(&search.reference),
        x: Axis::new("sub-modules flipped", ""),
        y: Axis::new("exact match", "%"),
        series: vec![Series::new("", std::iter::once(start).chain(flips).collect::<Vec<_>>())],
        horizontal_marks: threshold.into_iter().collect(),
        ..LineChart::default()
    }
}
