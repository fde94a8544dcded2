//! Accuracy of a bank, one uniform plan after another.

use serde::{Deserialize, Serialize};

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::text::plan_row;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::SwitchableModel;

use crate::error::Result;

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

/// Evaluates the uniform plans of some precisions, each when it is asked for.
///
/// # Errors
///
/// Each item, when an adapter is missing or the work is stopped.
pub fn bank_accuracies<'e, B: QuantBackend, M: SwitchableModel<B>>(
    evaluator: &'e Evaluator<'_, B, M>,
    precisions: impl IntoIterator<Item = SitePrecision> + 'e,
) -> impl Iterator<Item = Result<BankAccuracy>> + 'e {
    precisions.into_iter().map(move |precision| {
        let accuracy = evaluator.evaluate(&evaluator.model().transformer.uniform_plan(precision))?;
        Ok(BankAccuracy { accuracy, adapter: precision.adapter, bits: precision.weights })
    })
}
