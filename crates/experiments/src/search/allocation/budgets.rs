//! Allocations at some budgets: solved, evaluated and refined by swaps.

use serde::{Deserialize, Serialize};
use serde_json::json;

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use span_reader::cost::site_bytes;
use span_reader::evaluation::evaluate::Evaluator;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::SwitchableModel;
use switchable_model::named_plans::NamedPlans as _;
use switchable_model::site_plan::SitePlan;

use crate::error::Result;
use crate::running::memory::Memory;
use crate::running::progress::ShowProgress;
use crate::search::allocation::damage::{DamageTable, choices_of_sites};
use crate::search::allocation::pareto::Allocation;
use crate::search::allocation::swaps::{RefineFrom, RefineOptions, Refinement};
use crate::search::allocation::verify::Verified;

/// Budgets, and how far to refine at each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BudgetOptions {
    /// Budgets in bytes of the sites, as [`site_bytes`] counts them: scales and adapters included.
    pub budgets: Vec<usize>,
    /// Swaps tried at each budget.
    pub swaps: usize,
    /// Whether progress is shown.
    pub show: ShowProgress,
    /// Budgets known from before, one by one.
    pub known: Memory,
}

/// The allocation at one budget.
#[derive(Debug, Clone, PartialEq)]
pub struct RefinedAllocation {
    /// Bytes that neither plan exceeds.
    pub budget: usize,
    /// The plan that the additive model chose, evaluated.
    pub verified: Verified,
    /// The swaps from there.
    pub refinement: Refinement,
    /// The plan after the swaps.
    pub plan: SitePlan,
}

/// Bytes of the sites that allocations over some choices reach, known before anything is measured: of the
/// weights, their scales and the adapters that the choices use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetRange {
    /// Bytes of the smallest plan.
    pub least: usize,
    /// Bytes of the largest plan, which a greater budget does not better.
    pub most: usize,
    /// Weights of the sites.
    pub parameters: usize,
}

impl BudgetRange {
    /// The range of a model: of its linear sites, and of its embeddings where there are widths for them.
    pub fn of<B: QuantBackend, M: SwitchableModel<B>>(
        model: &M,
        choices: &[SitePrecision],
        embeddings: &[BitWidth],
    ) -> Self {
        let mut range = Self { least: 0, most: 0, parameters: 0 };
        for (site, choices) in choices_of_sites(model, choices, embeddings) {
            let bytes = || choices.iter().map(|&precision| site_bytes(model, site, precision));
            range.least += bytes().min().unwrap_or(0);
            range.most += bytes().max().unwrap_or(0);
            range.parameters += model.sites().parameters(site);
        }
        range
    }

    /// Bytes of the sites at a mean width; rounded down.
    ///
    /// ```text
    /// bytes = parameters · bits / 8
    /// ```
    pub fn bytes_at(&self, average_bits: f64) -> usize {
        (self.parameters as f64 * average_bits / 8.0) as usize
    }

    /// Bits per weight of some bytes.
    pub fn bits_of(&self, bytes: usize) -> f64 {
        bytes as f64 * 8.0 / self.parameters as f64
    }

    /// The least mean width that is a budget, in hundredths: as it can be asked for.
    pub fn least_bits(&self) -> f64 {
        let mut hundredths = (self.bits_of(self.least) * 100.0).floor() as u64;
        while self.bytes_at(hundredths as f64 / 100.0) < self.least {
            hundredths += 1;
        }
        hundredths as f64 / 100.0
    }

    /// Budgets for the choices at hand, as bits per weight: the first four of 2.5, 3, 4, 6, 8 and 12 that lie
    /// between the smallest and the largest plan, or three between the two where fewer than two do.
    pub fn defaults(&self) -> Vec<f64> {
        let lies_between = |bits: &f64| (self.least..self.most).contains(&self.bytes_at(*bits));
        let usual: Vec<f64> = [2.5, 3.0, 4.0, 6.0, 8.0, 12.0].into_iter().filter(lies_between).take(4).collect();
        if usual.len() > 1 {
            return usual;
        }
        let (least, most) = (self.least_bits(), self.bits_of(self.most));
        let between = [0.25, 0.5, 0.75].map(|share| ((least + share * (most - least)) * 100.0).ceil() / 100.0);
        let mut budgets: Vec<f64> = between.into_iter().filter(lies_between).collect();
        budgets.dedup();
        if budgets.is_empty() { vec![least] } else { budgets }
    }
}

impl DamageTable {
    /// Bytes of the sites at a mean width; rounded down.
    ///
    /// ```text
    /// bytes = parameters · bits / 8
    /// ```
    pub fn bytes_at(&self, average_bits: f64) -> usize {
        let parameters: usize = self.sites.iter().map(|site| site.parameters).sum();
        (parameters as f64 * average_bits / 8.0) as usize
    }

    /// Solves at every budget, evaluates what is found and refines it by swaps. `reference` is the plan
    /// that the damage was measured from.
    ///
    /// # Errors
    ///
    /// When a budget is smaller than every plan, the table is of another model, or the work is stopped.
    ///
    /// # Panics
    ///
    /// Never: each allocation is verified for itself.
    pub fn refined_at<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        evaluator: &Evaluator<'_, B, M>,
        reference: &SitePlan,
        options: &BudgetOptions,
    ) -> Result<Vec<RefinedAllocation>> {
        let BudgetOptions { budgets, swaps, show, known } = options;
        let chosen = budgets.iter().map(|budget| self.best_under(*budget)).collect::<Result<Vec<_>>>()?;
        let refine = |(allocation, &budget): (Allocation, &usize)| {
            let made_from = json!({ "budget": budget, "swaps": swaps, "allocation": allocation });
            let (verified, refinement, plan) = known.recall(&format!("budget-{budget}"), &made_from, || {
                let mut verified = self.verify(evaluator, reference, &[allocation])?;
                let verified = verified.pop().expect("one allocation was verified");
                let how = RefineOptions { evaluations: *swaps, show: *show, ..RefineOptions::new(budget) };
                let from = RefineFrom { reference, start: &verified.allocation };
                let (refinement, plan) = self.refine_by_swaps(evaluator, from, &how)?;
                Ok((verified, refinement, evaluator.model().named_plan(&plan)))
            })?;
            let plan = evaluator.model().transformer.resolve(&plan)?;
            Ok(RefinedAllocation { budget, verified, refinement, plan })
        };
        chosen.into_iter().zip(budgets).map(refine).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_budgets_lie_between_the_smallest_and_the_largest_plan() {
        // 1000 weights at 3 to 8 bits, with scales of 8 bytes.
        let range = BudgetRange { least: 375 + 8, most: 1000 + 8, parameters: 1000 };
        assert_eq!(range.defaults(), [4.0, 6.0, 8.0]);
        assert!((range.least_bits() - 3.07).abs() < 1e-9);
        // At 16 to 32 bits none of the usual ones does.
        let wide = BudgetRange { least: 2000, most: 4000, parameters: 1000 };
        assert_eq!(wide.defaults(), [20.0, 24.0, 28.0]);
        // With adapters that take more than the weights.
        let adapted = BudgetRange { least: 900, most: 4600, parameters: 1000 };
        assert_eq!(adapted.defaults(), [8.0, 12.0]);
        let narrow = BudgetRange { least: 1100, most: 1600, parameters: 1000 };
        assert_eq!(narrow.defaults().len(), 3, "12 bits alone are too few: {:?}", narrow.defaults());
        let single = BudgetRange { least: 500, most: 500, parameters: 1000 };
        assert_eq!(single.defaults(), [4.0]);
        for range in [range, wide, adapted, narrow, single] {
            let budgets = range.defaults();
            assert!(budgets.iter().all(|bits| range.bytes_at(*bits) >= range.least), "{range:?}: {budgets:?}");
            assert!(range.bytes_at(range.least_bits()) >= range.least, "{range:?}");
        }
    }
}
