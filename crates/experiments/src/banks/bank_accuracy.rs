//! Accuracy of a bank, one uniform plan after another.

use serde::{Deserialize, Serialize};
use serde_json::json;

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::text::plan_row;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::SwitchableModel;

use crate::error::Result;
use crate::running::memory::Memory;
use crate::running::progress::{EvaluationProgress, ShowProgress};

/// How a bank is evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BankEvaluation {
    /// Whether progress is shown.
    pub show: ShowProgress,
    /// Rows known from before, one by one.
    pub known: Memory,
}

/// What shows whether training helped: the base at full precision; then, at each width, the base and the
/// base with its adapter.
pub fn rows_of_bank(adapted: impl IntoIterator<Item = SitePrecision>) -> Vec<SitePrecision> {
    let mut rows = vec![SitePrecision::FULL];
    for precision in adapted {
        for row in [precision.without_adapter(), precision] {
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
    }
    rows
}

/// A width of a bank on some questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BankAccuracy {
    /// The accuracy.
    pub accuracy: Accuracy,
    /// The width whose adapter was used, if any.
    pub adapter: Option<BitWidth>,
    /// The width of the weights.
    pub bits: BitWidth,
}

impl BankAccuracy {
    /// One line of a table: ` 4 bits` with a label after it, accuracy, width.
    pub fn row(&self, label: &str) -> String {
        let width = format!("{:>2} bits{label}", self.bits);
        plan_row(&width, &self.accuracy, f64::from(self.bits.bits()))
    }

    /// The same, with a label that says whether the adapter was used.
    pub fn row_with_adapter(&self) -> String {
        self.row(if self.adapter.is_some() { " with adapter" } else { " without" })
    }
}

/// Evaluates the uniform plans of some precisions, each when it is asked for and not known.
///
/// # Errors
///
/// Each item, when an adapter is missing, what is known is of other work, or the work is stopped.
pub fn bank_accuracies<'e, B: QuantBackend, M: SwitchableModel<B>>(
    evaluator: &'e Evaluator<'_, B, M>,
    precisions: Vec<SitePrecision>,
    options: BankEvaluation,
) -> impl Iterator<Item = Result<BankAccuracy>> + 'e {
    let BankEvaluation { show, known } = options;
    let progress = EvaluationProgress::start("evaluation", evaluator, precisions.len(), show);
    precisions.into_iter().enumerate().map(move |(i, precision)| {
        known.recall(&format!("row-{:03}", i + 1), &json!({ "precision": precision }), || {
            let plan = evaluator.model().transformer.uniform_plan(precision);
            let (accuracy, _) = progress.predict(evaluator, &plan)?;
            Ok(BankAccuracy { accuracy, adapter: precision.adapter, bits: precision.weights })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_a_bank_are_the_base_and_every_width_with_and_without_its_adapter() {
        let [full, four] = [BitWidth::FULL, BitWidth::B4].map(SitePrecision::uniform);
        let expected = [SitePrecision::FULL, full, four.without_adapter(), four];
        assert_eq!(rows_of_bank([full, four]), expected);
        // Without adapters each width has one row.
        assert_eq!(rows_of_bank([full.without_adapter(), four.without_adapter()]), [expected[0], expected[2]]);
    }
}
