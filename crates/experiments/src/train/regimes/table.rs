//! Regimes by name: those of this crate, and those of others.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::train::ladder::Ladder;
use crate::train::regimes::Regime;
use crate::train::regimes::config::{RegimeConfig, RegimeKind};

/// Makes the regimes of one name.
pub trait RegimeFamily: fmt::Debug + Send + Sync {
    /// The name, as [`RegimeConfig::kind`] gives it.
    fn name(&self) -> &str;

    /// The fewest steps of a run.
    fn least_steps(&self, _config: &RegimeConfig) -> usize {
        1
    }

    /// The regime of a run of so many steps, before extra steps and layer dropout are wrapped around it.
    ///
    /// # Errors
    ///
    /// When an option does not fit the ladder or the number of steps.
    fn build(&self, config: &RegimeConfig, ladder: &Ladder, steps: usize) -> Result<Box<dyn Regime>>;
}

/// Every regime that can be asked for by name: those of this crate by default.
#[derive(Debug, Clone, Default)]
pub struct Regimes(Vec<Arc<dyn RegimeFamily>>);

impl Regimes {
    /// These and another; one of the same name is replaced, but not one of this crate.
    #[must_use]
    pub fn with(mut self, family: impl RegimeFamily + 'static) -> Self {
        self.0.retain(|known| known.name() != family.name());
        self.0.push(Arc::new(family));
        self
    }

    /// All names.
    pub fn names(&self) -> Vec<String> {
        let own = RegimeKind::ALL.iter().map(|kind| kind.name().to_owned());
        own.chain(self.0.iter().map(|family| family.name().to_owned())).collect()
    }

    /// The regime of a run of so many steps.
    ///
    /// # Errors
    ///
    /// When there is no regime of that name, or an option does not fit the ladder or the number of steps.
    pub fn build(&self, config: &RegimeConfig, ladder: &Ladder, steps: usize) -> Result<Box<dyn Regime>> {
        match &config.kind {
            RegimeKind::Other(name) => config.wrapped(self.family(name)?.build(config, ladder, steps)?, ladder),
            _ => config.build(ladder, steps),
        }
    }

    /// The fewest steps of a run.
    ///
    /// # Errors
    ///
    /// When there is no regime of that name.
    pub fn least_steps(&self, config: &RegimeConfig) -> Result<usize> {
        match &config.kind {
            RegimeKind::Other(name) => Ok(self.family(name)?.least_steps(config)),
            _ => Ok(config.least_steps()),
        }
    }

    fn family(&self, name: &str) -> Result<&dyn RegimeFamily> {
        let found = self.0.iter().find(|family| family.name() == name);
        found.map(AsRef::as_ref).ok_or_else(|| Error::option("regime", name, self.names().join(", ")))
    }
}
