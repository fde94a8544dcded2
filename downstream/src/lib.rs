//! A regime, an attack and a stage that `experiments` does not have.

#[cfg(doctest)]
mod readmes;

use experiments::report::stage::Stage;
use experiments::robustness::attacks::attack::{Access, Attack, Outcome};
use experiments::robustness::protected_example::{EditScope, ProtectedExample, Unattackable};
use experiments::robustness::victim::oracle::Oracle;
use experiments::train::branch::Branch;
use experiments::train::ladder::Ladder;
use experiments::train::regimes::Regime;
use experiments::train::regimes::config::RegimeConfig;
use experiments::train::regimes::table::RegimeFamily;
use experiments::{Result, Section, Workbench};
use quant_kernels::QuantAutodiffBackend;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use switchable_model::model::{SwitchableModel as _, TrainableModel};

/// The lowest width in every step.
#[derive(Debug)]
pub struct Lowest(Ladder);

impl Regime for Lowest {
    fn name(&self) -> &'static str {
        "lowest"
    }

    fn parameters(&self) -> Value {
        json!({ "ladder": self.0.describe() })
    }

    fn branches(&self, _step: usize) -> Vec<Branch> {
        vec![Branch::new(self.0.rungs()[0].plan.clone(), 1.0)]
    }
}

/// Makes [`Lowest`].
#[derive(Debug)]
pub struct LowestFamily;

impl RegimeFamily for LowestFamily {
    fn name(&self) -> &str {
        "lowest"
    }

    fn build(&self, _config: &RegimeConfig, ladder: &Ladder, _steps: usize) -> Result<Box<dyn Regime>> {
        Ok(Box::new(Lowest(ladder.clone())))
    }
}

/// The first word of the question in capitals.
#[derive(Debug)]
pub struct Shout;

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Attack<B, M> for Shout {
    fn name(&self) -> String {
        "shout".into()
    }

    fn settings(&self) -> Value {
        json!({ "words": 1 })
    }

    fn access(&self) -> Access {
        Access::Blind
    }

    fn attack(&self, item: &ProtectedExample, _: &Oracle<'_, B, M>, _: &mut ChaCha8Rng) -> Result<Outcome> {
        let Some(word) = item.words(EditScope::Question).into_iter().next() else {
            return Ok(Outcome::Unattackable(Unattackable::NoEditableWord));
        };
        Ok(Outcome::Attacked(item.edit(&[word.replaced_by(word.text.to_uppercase())])?))
    }
}

/// How many matrices the model has.
#[derive(Debug, Serialize)]
pub struct CountSites;

/// What [`CountSites`] finds.
#[derive(Debug, Serialize, Deserialize)]
pub struct SiteCount {
    /// The number.
    pub sites: usize,
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Stage<B, M> for CountSites {
    type Output = SiteCount;

    const NAME: &'static str = "site-count";

    fn run(&self, bench: &Workbench<'_, B, M>) -> Result<SiteCount> {
        let count = || Ok(SiteCount { sites: bench.plain().transformer.sites().len() });
        bench.memory.recall(<Self as Stage<B, M>>::NAME, &json!(self), count)
    }

    fn sections(&self, output: &SiteCount) -> Result<Vec<Section>> {
        Ok(vec![Section::new("Sites", format!("The model has {} matrices.\n", output.sites))])
    }
}
