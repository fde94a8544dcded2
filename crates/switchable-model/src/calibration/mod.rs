//! Calibration: what the inputs of every site are like, on some text.
//!
//! ```text
//! H = XᵀX / n,   mean,   max |x|          X [n, d_in]: the inputs of a site at full precision
//! ```
//!
//! Windows run through the model block by block, so that beside the model there are never more than the hidden
//! states of all windows and the sums of one block. The statistics are those of the unquantised model: they do not
//! depend on a plan, and serve every width and every plan.

mod collect;
mod file;

use std::collections::BTreeMap;
use std::sync::Arc;

use quant_kernels::backends::quant_backend::QuantBackend;
use quant_kernels::calibrated::input_moments::InputMoments;

use crate::error::{Error, Result, at_site};
use crate::model::SwitchableModel;

pub use collect::Calibrate;

/// The moments of every linear site of a model.
#[derive(Debug, Clone, Default)]
pub struct ModelMoments {
    by_site: BTreeMap<String, Arc<InputMoments>>,
    made_from: Option<Arc<str>>,
}

impl ModelMoments {
    /// The moments of a site, by its name.
    pub fn get(&self, site: &str) -> Option<&InputMoments> {
        self.by_site.get(site).map(Arc::as_ref)
    }

    /// Names and moments in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &InputMoments)> {
        self.by_site.iter().map(|(name, moments)| (name.as_str(), moments.as_ref()))
    }

    /// The bytes that they occupy.
    pub fn bytes(&self) -> usize {
        self.by_site.values().map(|moments| moments.bytes()).sum()
    }

    pub(crate) fn insert(&mut self, site: String, moments: InputMoments) {
        self.by_site.insert(site, Arc::new(moments));
    }

    /// The same, said to be made from something: the hash of a model and of windows, which plans of the model then say.
    #[must_use]
    pub fn made_from(self, hash: &str) -> Self {
        Self { made_from: Some(hash.into()), ..self }
    }

    /// The model whose sites know them. Forms of its weights that were kept are made anew.
    ///
    /// # Errors
    ///
    /// [`Error::NoMoments`] for a site without, and an error that names the site where they are of another number
    /// of inputs.
    pub fn given_to<B: QuantBackend, M: SwitchableModel<B>>(&self, mut model: M) -> Result<M> {
        let sites = model.sites().clone();
        for site in sites.iter() {
            let name = sites.name(site);
            let Some(moments) = self.by_site.get(&name) else { return Err(Error::NoMoments { site: name }) };
            let layer = model.site_mut(site);
            let known = layer.clone().with_moments(Arc::clone(moments)).map_err(|error| at_site(name, error))?;
            *layer = known.with_calibration(self.made_from.clone());
        }
        Ok(model)
    }
}
