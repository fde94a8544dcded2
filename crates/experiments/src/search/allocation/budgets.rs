//! Allocations at some budgets: solved, evaluated and refined by swaps.

use quant_kernels::backends::quant_backend::QuantBackend;
use span_reader::evaluation::evaluate::Evaluator;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;

use crate::error::Result;
use crate::running::progress::ShowProgress;
use crate::search::allocation::damage::DamageTable;
use crate::search::allocation::swaps::{RefineFrom, RefineOptions, Refinement};
use crate::search::allocation::verify::Verified;

/// Budgets, and how far to refine at each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetOptions {
    /// Budgets in bytes of the sites.
    pub budgets: Vec<usize>,
    /// Swaps tried at each budget.
    pub swaps: usize,
    /// Whether progress is shown.
    pub show: ShowProgress,
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
    pub fn refined_at<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        evaluator: &Evaluator<'_, B, M>,
        reference: &SitePlan,
        options: &BudgetOptions,
    ) -> Result<Vec<RefinedAllocation>> {
        let BudgetOptions { budgets, swaps, show } = options;
        let chosen = budgets.iter().map(|budget| self.best_under(*budget)).collect::<Result<Vec<_>>>()?;
        let verified = self.verify(evaluator, reference, &chosen)?;
        let refine = |(verified, &budget): (Verified, &usize)| {
            let how = RefineOptions { evaluations: *swaps, show: *show, ..RefineOptions::new(budget) };
            let from = RefineFrom { reference, start: &verified.allocation };
            let (refinement, plan) = self.refine_by_swaps(evaluator, from, &how)?;
            Ok(RefinedAllocation { budget, verified, refinement, plan })
        };
        verified.into_iter().zip(budgets).map(refine).collect()
    }
}
