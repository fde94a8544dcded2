//! Extra steps in which only chosen sites are quantised.
//!
//! ```text
//! step t is an extra one where ⌊(t + 1)·share⌋ > ⌊t·share⌋
//! ```
//!
//! The most sensitive sub-modules get more gradient than the others: in an extra step they run at a
//! low width and everything else at the highest.

use serde_json::{Value, json};

use switchable_lora::site_precision::SitePrecision;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::Site;

use crate::error::{Error, Result};
use crate::train::regimes::{Branch, Regime, check_share};

/// Another regime, with a share of extra steps for the sites that need them most.
#[derive(Debug, Clone)]
pub struct Specialised<R> {
    inner: R,
    plan: SitePlan,
    share: f64,
}

impl<R: Regime> Specialised<R> {
    /// `high` is the plan of the extra steps before the `sites` are set to `low`; `share` of the
    /// steps are extra ones.
    ///
    /// # Errors
    ///
    /// When no site is given, or the share is outside [0, 1].
    pub fn new(inner: R, high: &SitePlan, sites: &[Site], low: SitePrecision, share: f64) -> Result<Self> {
        if sites.is_empty() {
            return Err(Error::option("specialised_sites", "empty", "at least one site"));
        }
        let plan = sites.iter().fold(high.clone(), |plan, &site| plan.with(site, low));
        Ok(Self { inner, plan, share: check_share("specialised_share", share)? })
    }

    /// How many of the first `steps` are extra ones.
    fn extra_before(&self, steps: usize) -> usize {
        (steps as f64 * self.share).floor() as usize
    }
}

impl<R: Regime> Regime for Specialised<R> {
    fn name(&self) -> &'static str {
        "specialised"
    }

    fn parameters(&self) -> Value {
        json!({
            "inner": self.inner.name(), "inner_parameters": self.inner.parameters(), "share": self.share,
            "plan": self.plan.to_precision_plan(),
        })
    }

    fn branches(&self, step: usize) -> Vec<Branch> {
        let before = self.extra_before(step);
        if self.extra_before(step + 1) > before {
            vec![Branch::new(self.plan.clone(), 1.0)]
        } else {
            // The inner regime sees its own steps one after another.
            self.inner.branches(step - before)
        }
    }
}
