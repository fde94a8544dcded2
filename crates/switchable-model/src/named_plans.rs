//! Plans by the names of their sites: checked against a model, and said so that they mean the same to any.

use std::path::Path;

use quant_kernels::backends::quant_backend::QuantBackend;
use quant_kernels::spec::rotation::Rotation;
use switchable_lora::{
    precision_plan::PrecisionPlan,
    quantisation_settings::QuantisationSettings,
    site_precision::{SitePrecision, SiteRounding},
};

use crate::error::{Error, Result};
use crate::kv_rounding::KV_CACHE_SPEC;
use crate::model::SwitchableModel;
use crate::site_plan::SitePlan;

/// A model's plans as people write and save them.
///
/// It is implemented for every model.
pub trait NamedPlans<B: QuantBackend>: SwitchableModel<B> {
    /// The plan by position, its names and adapter widths checked against this model.
    ///
    /// # Errors
    ///
    /// When the plan names a site or a block that the model does not have, a width without an adapter
    /// or one that the quantiser cannot do; the error names the site or block.
    fn resolve(&self, plan: &PrecisionPlan) -> Result<SitePlan> {
        let sites = self.sites();
        let widths = sites.iter().map(|site| (sites.name(site), self.site(site).bank().widths().to_vec()));
        plan.validate_with_embeddings(widths, &sites.embedding_names())?;
        plan.validate_kv_cache((0..sites.blocks()).map(|block| sites.block_name(block)), KV_CACHE_SPEC)?;
        self.check_scaling(plan.scaling())?;
        let plan = self.implicit_plan(&SitePlan::of_plan(sites, plan));
        self.check_plan(&plan)?;
        Ok(plan)
    }

    /// Reads a plan from a JSON file and [resolves](Self::resolve) it.
    ///
    /// # Errors
    ///
    /// As [`PrecisionPlan::load`] and [`resolve`](Self::resolve); the error names the file.
    fn load_plan(&self, path: impl AsRef<Path>) -> Result<SitePlan> {
        let path = path.as_ref();
        self.resolve(&PrecisionPlan::load(path)?).map_err(|error| error.in_file(path))
    }

    /// The plan with site names, to be saved: it says of every site how weights and activations are
    /// quantised and rounded and where the adapter is added, so that it means the same whatever the
    /// settings of the model that reads it.
    fn named_plan(&self, plan: &SitePlan) -> PrecisionPlan {
        let full = SitePrecision::FULL.with_rounding(SiteRounding::from(self.settings().rounding));
        let default = full.with_quantisation(self.settings().quantisation());
        let calibration = self.calibration().filter(|_| self.scaling().is_some() || self.goes_by_inputs(plan));
        let mut named = PrecisionPlan::uniform(default)
            .with_span_head(plan.span_head())
            .with_scaling(self.scaling())
            .with_calibration(calibration);
        for (site, precision) in plan.iter().chain(plan.embeddings()) {
            if self.implicit_at(site, &precision) != SitePrecision::FULL {
                let said = self.explicit_at(site, &precision);
                // Left out it would be the default's.
                let rotation = said.rotation.or(default.rotation.map(|_| Rotation::None));
                named.set(self.sites().name(site), SitePrecision { rotation, ..said });
            }
        }
        for block in 0..plan.blocks() {
            let bits = plan.kv_cache(block);
            if !bits.is_full() {
                named.set_kv_cache_block(self.sites().block_name(block), bits);
            }
        }
        named
    }

    /// Whether the codes of some site depend on its inputs.
    fn goes_by_inputs(&self, plan: &SitePlan) -> bool {
        plan.iter().any(|(site, precision)| {
            let QuantisationSettings { weight, rounding, .. } = self.site(site).quantisation(&precision);
            !precision.weights.is_full() && rounding.needs_moments(weight)
        })
    }

    /// Checks that a plan is of the model as it was scaled. Codes were scaled before they were found.
    ///
    /// # Errors
    ///
    /// [`Error::PlanScaling`] where the plan says another scaling.
    fn check_scaling(&self, of_plan: Option<&str>) -> Result<()> {
        let is_coded = || self.sites().iter().any(|site| self.site(site).packed_weights().is_some());
        match of_plan {
            Some(plan) if self.scaling() != Some(plan) && !is_coded() => {
                let model = self.scaling().unwrap_or("none").to_owned();
                Err(Error::PlanScaling { plan: plan.to_owned(), model })
            }
            _ => Ok(()),
        }
    }
}

impl<B: QuantBackend, M: SwitchableModel<B>> NamedPlans<B> for M {}
