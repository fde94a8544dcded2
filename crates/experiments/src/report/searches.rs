//! The searches of a study: sensitivities, damage, greedy search and exact allocation.
//!
//! Each analysis is a part of the study; what is done of one survives while it is not, site by site,
//! flip by flip, budget by budget.

use quant_kernels::{BitWidth, QuantBackend};
use serde::{Deserialize, Serialize};
use serde_json::json;
use span_reader::cost::Cost;
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::statistics::PairedComparison;
use switchable_lora::SitePrecision;
use switchable_model::config::ModelConfig;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;

use crate::error::Result;
use crate::report::stage::Stages;
use crate::report::study::StudyConfig;
use crate::running::progress::ShowProgress;
use crate::search::allocation::damage::{DamageOptions, DamageTable, measure_damage_remembering};
use crate::search::allocation::equal_bytes::EqualBytes;
use crate::search::allocation::pareto::Allocation;
use crate::search::allocation::swaps::{RefineOptions, Refinement};
use crate::search::allocation::verify::Verified;
use crate::search::greedy::{GreedyOptions, GreedyResult, StopAt, greedy_search_remembering};
use crate::search::sensitivity::{Part, Sensitivity, SensitivityOptions, sensitivity, sensitivity_remembering};

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
    /// Bytes of the sites, scales included.
    pub bytes: usize,
    /// Mean width in bits, weighted by parameters.
    pub average_bits: f64,
    /// Its accuracy.
    pub accuracy: Accuracy,
}

/// What the searches of a study have in common.
pub(super) struct Searches<'s, 'e, B: QuantBackend, M: SwitchableModel<B>> {
    /// The model on the questions that plans are chosen on.
    pub(super) search: &'s Evaluator<'e, B, M>,
    /// The model on the questions of the report.
    pub(super) report: &'s Evaluator<'e, B, M>,
    /// Every site at full precision.
    pub(super) full: &'s SitePlan,
    /// The low precision.
    pub(super) low: SitePrecision,
    pub(super) config: &'s StudyConfig,
    pub(super) show: ShowProgress,
    pub(super) stages: &'s Stages,
}

impl<B: QuantBackend, M: SwitchableModel<B>> Searches<'_, '_, B, M> {
    fn sensitivity_options(&self, part: Part) -> SensitivityOptions {
        SensitivityOptions { part, change_to: self.low, seed: self.config.seed, show: self.show }
    }

    /// Each block alone at the low precision.
    pub(super) fn layers(&self) -> Result<Sensitivity> {
        self.stages.run("layers", &json!({ "low": self.low, "seed": self.config.seed }), || {
            Ok(sensitivity(self.search, self.full, &self.sensitivity_options(Part::Block))?.0)
        })
    }

    /// The damage of every site at every width; `adapted` gives the precision of a width.
    pub(super) fn damage(&self, adapted: impl Fn(BitWidth) -> SitePrecision) -> Result<DamageTable> {
        let (seed, show) = (self.config.seed, self.show);
        let made_from = json!({ "choices": self.config.choices, "seed": seed });
        let parts = self.stages.within("damage");
        let damage = self.stages.run("damage", &made_from, || {
            let mut choices = self.config.choices.clone();
            choices.sort_unstable();
            let precision = |bits: BitWidth| if bits.is_full() { SitePrecision::FULL } else { adapted(bits) };
            let options =
                DamageOptions { seed, show, ..DamageOptions::new(choices.into_iter().map(precision).collect()) };
            measure_damage_remembering(self.search, self.full, &options, &|site, measure| {
                parts.run(site, &made_from, measure)
            })
        })?;
        parts.remove()?;
        Ok(damage)
    }

    /// Each site alone at the low precision, the greedy search in the order of their harm, and exact
    /// allocations of the bytes of its path.
    pub(super) fn greedy(&self, damage: &DamageTable) -> Result<GreedyStudy> {
        let Self { low, full, config: StudyConfig { seed, tolerance, choices, .. }, .. } = *self;
        let made_from = json!({ "low": low, "seed": seed, "tolerance": tolerance, "choices": choices });
        let made_from_sites = json!({ "low": low, "seed": seed });
        let (site_parts, flip_parts) = (self.stages.within("sites"), self.stages.within("flips"));
        let greedy = self.stages.run("greedy", &made_from, || {
            let how = self.sensitivity_options(Part::Site);
            let (sites, kept) = sensitivity_remembering(self.search, full, &how, &|site, measure| {
                site_parts.run(site, &made_from_sites, measure)
            })?;
            let options =
                GreedyOptions { stop_at: StopAt::Tolerance(*tolerance), show: self.show, ..GreedyOptions::new(low) };
            let (search, plan) =
                greedy_search_remembering(self.search, full, &sites, kept, &options, &|flip, try_flip| {
                    flip_parts.run(flip, &made_from, try_flip)
                })?;
            let equal_bytes = damage.compare_at_equal_bytes(self.search, full, &search.path)?;
            let (high, found) = (self.report.evaluate(full)?, self.report.evaluate(&plan)?);
            let comparison = high.compare(&found, *seed);
            let cost = Cost::of(&self.report.model().transformer, &plan);
            Ok(GreedyStudy { low, sites, search, equal_bytes, cost, high, found, comparison })
        })?;
        site_parts.remove()?;
        flip_parts.remove()?;
        Ok(greedy)
    }

    /// Exact allocations at the budgets, refined by swaps and evaluated on the report questions.
    pub(super) fn allocation(&self, damage: &DamageTable) -> Result<AllocationStudy> {
        let StudyConfig { seed, choices, budgets, swaps, .. } = self.config;
        let made_from = json!({ "choices": choices, "budgets": budgets, "swaps": swaps, "seed": seed });
        let parts = self.stages.within("allocation");
        let allocation = self.stages.run("allocation", &made_from, || {
            let shape = self.search.model().config();
            let bytes = budgets.iter().map(|bits| (shape.site_parameters() as f64 * bits / 8.0) as usize);
            let budgets: Vec<usize> = bytes.collect();
            let chosen = budgets.iter().map(|budget| damage.best_under(*budget)).collect::<Result<Vec<_>>>()?;
            let verified = damage.verify(self.search, self.full, &chosen)?;
            let (mut refined, mut reported) = (Vec::new(), Vec::new());
            for (row, &budget) in verified.iter().zip(&budgets) {
                let (refinement, plan) = parts.run(&format!("budget-{budget}"), &made_from, || {
                    let how = RefineOptions { evaluations: *swaps, show: self.show, ..RefineOptions::new(budget) };
                    let (refinement, plan) = damage.refine_by_swaps(self.search, self.full, &row.allocation, &how)?;
                    let average_bits = plan.average_weight_bits();
                    let accuracy = self.report.evaluate(&plan)?;
                    let plan = ReportedPlan { bytes: refinement.bytes, average_bits, accuracy };
                    Ok((refinement, plan))
                })?;
                refined.push(refinement);
                reported.push(plan);
            }
            Ok(AllocationStudy { front: damage.pareto_front(), verified, refined, reported })
        })?;
        parts.remove()?;
        Ok(allocation)
    }
}
