//! Quantisation with a random few sites left out.
//!
//! ```text
//! plan'(site) = high(site) for `kept` sites drawn without replacement, else plan(site)
//! ```
//!
//! Everything is quantised but a random few, another few in every step and branch, so that no site
//! relies on the errors of a fixed set of others. Structured dropout of layers: Fan, Grave and
//! Joulin, arXiv:1909.11556; noise on a random part of the weights: Quant-Noise, arXiv:2004.07320.

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use switchable_model::site_plan::SitePlan;
use switchable_model::sites::Site;

use crate::error::{Error, Result};
use crate::train::regimes::{Branch, Regime};

/// Another regime, with a few random sites at the highest width.
#[derive(Debug, Clone)]
pub struct LayerDropout<R> {
    inner: R,
    high: SitePlan,
    kept: usize,
    seed: u64,
}

impl<R: Regime> LayerDropout<R> {
    /// `kept` sites of every quantised plan run as in `high`.
    ///
    /// # Errors
    ///
    /// When as many sites would be kept as there are, or none.
    pub fn new(inner: R, high: SitePlan, kept: usize, seed: u64) -> Result<Self> {
        let sites = high.iter().count();
        if kept == 0 || kept >= sites {
            return Err(Error::option("layer_dropout", kept, format!("from 1 to {} sites", sites - 1)));
        }
        Ok(Self { inner, high, kept, seed })
    }
}

impl<R: Regime> Regime for LayerDropout<R> {
    fn name(&self) -> &'static str {
        "layer_dropout"
    }

    fn parameters(&self) -> Value {
        json!({
            "inner": self.inner.name(), "inner_parameters": self.inner.parameters(), "kept": self.kept,
            "seed": self.seed, "high": self.high.to_precision_plan(),
        })
    }

    fn branches(&self, step: usize) -> Vec<Branch> {
        // One generator per step: what a step draws does not depend on where the run started.
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(step as u64);
        let mut branches = self.inner.branches(step);
        for branch in branches.iter_mut().filter(|branch| branch.plan != self.high) {
            let mut sites: Vec<Site> = self.high.iter().map(|(site, _)| site).collect();
            let (kept, _) = sites.partial_shuffle(&mut rng, self.kept);
            for &mut site in kept {
                branch.plan.set(site, self.high.get(site));
            }
        }
        branches
    }
}
