//! The same precision at every site, one width after another.

use gpt2_model::SitePrecision;
use quant_kernels::QuantBackend;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::accuracy::Accuracy;
use crate::evaluate::Evaluator;
use crate::statistics::PairedComparison;

/// Accuracy with every site at one precision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UniformRow {
    /// The precision.
    pub precision: SitePrecision,
    /// Accuracy on the evaluator's questions.
    pub accuracy: Accuracy,
    /// Against the first precision of the sweep, question by question.
    pub comparison: PairedComparison,
}

impl UniformRow {
    /// Whether the precision loses exact match, and more than the noise.
    pub fn is_costly(&self) -> bool {
        self.comparison.difference < 0.0 && !self.comparison.is_noise()
    }
}

/// Evaluates uniform plans; the first precision is what the others are compared with.
///
/// # Errors
///
/// When an adapter is missing, or the work is stopped.
pub fn uniform_sweep<B: QuantBackend>(
    evaluator: &Evaluator<'_, B>,
    precisions: &[SitePrecision],
    seed: u64,
) -> Result<Vec<UniformRow>> {
    let mut rows: Vec<UniformRow> = Vec::with_capacity(precisions.len());
    for &precision in precisions {
        let accuracy = evaluator.evaluate(&evaluator.model().transformer.uniform_plan(precision))?;
        let comparison = rows.first().map_or(&accuracy, |first| &first.accuracy).compare(&accuracy, seed);
        rows.push(UniformRow { precision, accuracy, comparison });
    }
    Ok(rows)
}
