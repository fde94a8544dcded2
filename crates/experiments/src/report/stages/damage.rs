//! The damage of every site at every width.

use serde::Serialize;
use serde_json::json;

use quant_kernels::{backends::quant_backend::QuantAutodiffBackend, spec::bit_width::BitWidth};
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::{SwitchableModel as _, TrainableModel};

use crate::error::{Error, Result};
use crate::report::section::Section;
use crate::report::stage::Stage;
use crate::search::allocation::damage::{DamageOptions, DamageTable, damage_names, measure_damage};
use crate::workbench::Workbench;

/// Every site alone at every choice, on the search questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SiteDamages {
    /// The widths, at least one.
    pub choices: Vec<BitWidth>,
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Stage<B, M> for SiteDamages {
    type Output = DamageTable;

    const NAME: &'static str = "damage";

    fn check(&self, _bench: &Workbench<'_, B, M>) -> Result<()> {
        if self.choices.is_empty() {
            return Err(Error::option("choices", "empty", "at least one width"));
        }
        Ok(())
    }

    fn run(&self, bench: &Workbench<'_, B, M>) -> Result<DamageTable> {
        let name = <Self as Stage<B, M>>::NAME;
        let (seed, show) = (bench.run.seed, bench.run.show);
        let made_from = json!({ "choices": self.choices, "seed": seed });
        let known = bench.memory.parts(name, made_from.clone());
        let mut choices = self.choices.clone();
        choices.sort_unstable();
        let precision = |bits: BitWidth| if bits.is_full() { SitePrecision::FULL } else { bench.precision(bits) };
        let choices = choices.into_iter().map(precision).collect();
        let options = DamageOptions { seed, show, known: known.clone(), ..DamageOptions::new(choices) };
        let sites = damage_names(&bench.plain().transformer, &options);
        let damage = bench.memory.gather(name, &made_from, &[(&known, &sites)], || {
            let full = bench.uniform_plan(SitePrecision::FULL);
            measure_damage(&bench.evaluator(bench.data.search)?, &full, &options)
        })?;
        known.forget()?;
        Ok(damage.with_names_of(bench.plain().transformer.sites()))
    }

    fn sections(&self, _damage: &DamageTable) -> Result<Vec<Section>> {
        Ok(Vec::new())
    }
}
