//! Attacks by name: those of this crate, and those of others.

use std::sync::Arc;

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use switchable_model::model::TrainableModel;

use crate::error::{Error, Result};
use crate::robustness::attacks::attack::Attack;
use crate::robustness::attacks::attack_kind::AttackKind;
use crate::robustness::attacks::budget::AttackBudget;

/// Every attack that can be asked for by name: those of this crate by default.
#[derive(Debug, Clone)]
pub struct Attacks<B: QuantAutodiffBackend, M: TrainableModel<B>>(Vec<Arc<dyn Attack<B, M>>>);

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Default for Attacks<B, M> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Attacks<B, M> {
    /// These and another, which replaces one of the same name.
    #[must_use]
    pub fn with(mut self, attack: impl Attack<B, M> + 'static) -> Self {
        self.0.retain(|known| known.name() != attack.name());
        self.0.push(Arc::new(attack));
        self
    }

    /// All names.
    pub fn names(&self) -> Vec<String> {
        let own = AttackKind::ALL.map(|kind| kind.name().to_owned()).into_iter();
        own.chain(self.0.iter().map(|attack| attack.name())).collect()
    }

    /// The attack of a name, by its usual budget.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn get(&self, name: &str) -> Result<Arc<dyn Attack<B, M>>> {
        self.get_with(name, AttackBudget::default())
    }

    /// The attack of a name; one of this crate that searches has the budget, others have their own.
    ///
    /// # Errors
    ///
    /// When there is none, or the budget is too small for it.
    pub fn get_with(&self, name: &str, budget: AttackBudget) -> Result<Arc<dyn Attack<B, M>>> {
        if let Some(attack) = self.0.iter().find(|attack| attack.name() == name) {
            return Ok(attack.clone());
        }
        let kind = AttackKind::ALL.into_iter().find(|kind| kind.name() == name);
        let kind = kind.ok_or_else(|| Error::option("attack", name, self.names().join(", ")))?;
        Ok(Arc::from(kind.build::<B, M>(budget)?))
    }
}
