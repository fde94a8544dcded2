//! Real evaluation of plans that the additive model chose.

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantBackend;
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::statistics::PairedComparison;
use switchable_model::model::SwitchableModel;
use switchable_model::named_plans::NamedPlans as _;
use switchable_model::site_plan::SitePlan;

use crate::error::Result;
use crate::search::allocation::damage::DamageTable;
use crate::search::allocation::pareto::Allocation;

/// An allocation with what it measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    /// The allocation and the damage that the model gave it.
    pub allocation: Allocation,
    /// Its accuracy, with the divergence from the reference.
    pub accuracy: Accuracy,
    /// Exact match against the reference, question by question.
    pub comparison: PairedComparison,
}

impl DamageTable {
    /// Evaluates allocations, each from where it departs from the reference.
    ///
    /// # Errors
    ///
    /// When a plan is not one of this model, or the work is stopped.
    pub fn verify<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        evaluator: &Evaluator<'_, B, M>,
        reference: &SitePlan,
        allocations: &[Allocation],
    ) -> Result<Vec<Verified>> {
        let (unchanged, kept) = evaluator.evaluate_keeping(None, reference)?;
        let verify = |allocation: &Allocation| {
            let plan = evaluator.model().transformer.resolve(&allocation.plan)?;
            let accuracy = evaluator.evaluate_from(&kept, &plan)?;
            let comparison = unchanged.compare(&accuracy, self.seed);
            Ok(Verified { allocation: allocation.clone(), accuracy, comparison })
        };
        allocations.iter().map(verify).collect()
    }
}
