//! When a search for an edit ends, and which of the edits that it has read it gives back.
//!
//! A search that ends at its first success gives back edits that are barely answered wrongly, after as many readings as
//! it took: what such an edit does at another width says as much of where the search stopped as of the widths. One that goes on
//! gives every item the same chances, and its edits are the strongest that were read.

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use switchable_model::model::TrainableModel;

use crate::error::{Error, Result};
use crate::robustness::protected_example::ProtectedExample;
use crate::robustness::victim::oracle::{Oracle, Reading};

/// Where a search ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchEnd {
    /// At the first edit that is answered wrongly, or at its last step.
    #[default]
    FirstSuccess,
    /// At its last step.
    LastStep,
}

/// How long a search may go on.
///
/// | option | default | range |
/// |---|---|---|
/// | `end` | the first success | |
/// | `readings` | as many as its steps take | at least 1 |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttackBudget {
    /// Where it ends.
    pub end: SearchEnd,
    /// Times that the model may be asked about an item, for an answer, a gradient or proposals, under each of the plans.
    pub readings: Option<usize>,
}

impl AttackBudget {
    /// # Errors
    ///
    /// When there is no reading.
    pub fn check(self) -> Result<()> {
        if self.readings == Some(0) { Err(Error::option("readings", 0, "at least 1")) } else { Ok(()) }
    }

    /// Whether it is the usual one, which saved results do not name.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Readings that are left.
    pub(crate) fn left<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, oracle: &Oracle<'_, B, M>) -> usize {
        self.readings.map_or(usize::MAX, |most| most.saturating_sub(oracle.readings()))
    }
}

/// The strongest edit of those read: one that is answered wrongly before one that is not, then the higher loss.
#[derive(Debug)]
pub(crate) struct Strongest {
    edited: ProtectedExample,
    is_fooled: bool,
    loss: f64,
}

impl Strongest {
    /// The item as it is, with its loss: edits that all lower the loss are a failed attack.
    pub(crate) fn unedited(item: &ProtectedExample, loss: f64) -> Self {
        Self { edited: item.clone(), is_fooled: false, loss }
    }

    /// Looks at another edit.
    pub(crate) fn consider(&mut self, edited: &ProtectedExample, reading: &Reading) {
        let (is_fooled, loss) = (reading.is_fooled(), reading.loss.unwrap_or(f64::NEG_INFINITY));
        let is_stronger = is_fooled.cmp(&self.is_fooled).then(loss.total_cmp(&self.loss)).is_gt();
        if is_stronger {
            *self = Self { edited: edited.clone(), is_fooled, loss };
        }
    }

    /// Whether it is answered wrongly.
    pub(crate) fn is_fooled(&self) -> bool {
        self.is_fooled
    }

    /// The edit.
    pub(crate) fn into_edited(self) -> ProtectedExample {
        self.edited
    }
}
