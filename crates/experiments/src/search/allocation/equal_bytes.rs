//! A greedy path against the exact allocation of the same bytes.

use serde::{Deserialize, Serialize};
use serde_json::json;

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::statistics::PairedComparison;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::SwitchableModel;
use switchable_model::named_plans::NamedPlans as _;
use switchable_model::site_plan::SitePlan;

use crate::error::{Error, Result};
use crate::running::memory::{Memory, Parts};
use crate::running::progress::ShowProgress;
use crate::search::allocation::damage::DamageTable;
use crate::search::allocation::pareto::{Allocation, best_of};
use crate::search::greedy::{Flip, GreedyOptions, GreedyResult, GreedyStart, greedy_search};
use crate::search::sensitivity::{Part, SensitivityOptions, sensitivity};

/// A greedy plan and an exact allocation that needs no more bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EqualBytes {
    /// Bytes of the greedy plan, which are the budget of the allocation.
    pub bytes: usize,
    /// The last site that the greedy plan flipped.
    pub flipped: String,
    /// Accuracy of the greedy plan.
    pub greedy: Accuracy,
    /// The allocation.
    pub allocation: Allocation,
    /// Accuracy of the allocation.
    pub exact: Accuracy,
    /// Exact match of the allocation minus that of the greedy plan, question by question.
    pub comparison: PairedComparison,
}

/// A greedy search from the reference of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GreedyPath {
    /// The precision that sites are flipped to.
    pub low: SitePrecision,
    /// Whether progress is shown.
    pub show: ShowProgress,
    /// Sites and flips known from before.
    pub known: Memory,
}

/// A greedy search, and the exact allocation of the bytes of each of its flips.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgainstGreedy {
    /// The search.
    pub greedy: GreedyResult,
    /// One row for each accepted flip.
    pub equal_bytes: Vec<EqualBytes>,
}

impl DamageTable {
    /// Searches greedily from the reference towards a precision, with the default tolerance, and
    /// compares what it finds on the way with the table at equal bytes.
    ///
    /// # Errors
    ///
    /// As [`greedy_search`] and [`compare_at_equal_bytes`](Self::compare_at_equal_bytes).
    pub fn against_greedy<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        evaluator: &Evaluator<'_, B, M>,
        reference: &SitePlan,
        towards: &GreedyPath,
    ) -> Result<AgainstGreedy> {
        let &GreedyPath { low, show, .. } = towards;
        let (sites, kept) = sensitivity(evaluator, reference, &self.sites_alone(towards))?;
        let start = GreedyStart { reference, sensitivity: &sites, kept };
        let (embeddings, known) = (self.embeddings(), self.of_path(towards, "flips"));
        let how = GreedyOptions { embeddings, show, known, ..GreedyOptions::new(low) };
        let (greedy, _) = greedy_search(evaluator, start, &how)?;
        let equal_bytes = self.compare_at_equal_bytes(evaluator, reference, &greedy.path)?;
        Ok(AgainstGreedy { greedy, equal_bytes })
    }

    /// What each site costs alone, from which [`against_greedy`](Self::against_greedy) searches; its parts are known from
    /// before as that does.
    pub fn sites_alone(&self, towards: &GreedyPath) -> SensitivityOptions {
        SensitivityOptions {
            embeddings: self.embeddings(),
            seed: self.seed,
            show: towards.show,
            known: self.of_path(towards, "sites"),
            ..SensitivityOptions::new(Part::Site, towards.low)
        }
    }

    /// The narrowest width of the embeddings, where the table has them.
    fn embeddings(&self) -> Option<BitWidth> {
        let rows = self.sites.iter().filter(|row| row.site.block.is_none());
        rows.flat_map(|row| &row.choices).map(|choice| choice.precision.weights).min()
    }

    fn of_path(&self, GreedyPath { low, known, .. }: &GreedyPath, name: &str) -> Parts {
        known.parts(name, json!({ "low": low, "embeddings": self.embeddings(), "seed": self.seed }))
    }

    /// Solves at the bytes of every accepted flip and evaluates what is found.
    ///
    /// The flips are from a search in the same program: a path read from a file has lost the scores of
    /// single questions.
    ///
    /// # Errors
    ///
    /// When a flip is of other questions or without their scores, or smaller than every plan of the
    /// table; when an adapter is missing, or the work is stopped.
    pub fn compare_at_equal_bytes<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        evaluator: &Evaluator<'_, B, M>,
        reference: &SitePlan,
        path: &[Flip],
    ) -> Result<Vec<EqualBytes>> {
        let (unchanged, kept) = evaluator.evaluate_keeping(None, reference)?;
        let front = self.pareto_front();
        let mut rows = Vec::new();
        for flip in path.iter().filter(|flip| flip.accepted) {
            let Some(greedy) = flip.accuracy.as_ref().filter(|greedy| greedy.scores.len() == unchanged.scores.len())
            else {
                return Err(Error::option("path", &flip.site, "flips with a score for each of the questions"));
            };
            let allocation = best_of(&front, flip.bytes)?;
            let plan = evaluator.model().transformer.resolve(&allocation.plan)?;
            let exact = evaluator.evaluate_from(&kept, &plan)?;
            rows.push(EqualBytes {
                bytes: flip.bytes,
                flipped: flip.site.clone(),
                greedy: greedy.clone(),
                allocation: allocation.clone(),
                comparison: greedy.compare(&exact, self.seed),
                exact,
            });
        }
        Ok(rows)
    }
}
