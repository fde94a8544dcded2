//! A model's adapters on disk: one folder per width, each as PEFT writes it.
//!
//! `dir/bits-4/adapter_config.json` and `dir/bits-4/adapter_model.safetensors` hold the adapters
//! that belong to 4 bits, and so on.

use std::path::Path;

use burn::tensor::backend::Backend;
use switchable_lora::{PeftOptions, list_widths, load_peft, save_peft, width_folder};

use crate::{BitWidth, Error, Gpt2, Result, Site};

/// Module path of the body inside a model with a head.
const PREFIX: &str = "transformer.";

impl<B: Backend> Gpt2<B> {
    /// Widths for which every site has an adapter, ascending.
    pub fn adapter_widths(&self) -> Vec<BitWidth> {
        let mut sites = Site::all(self.config());
        let first = sites.next().map(|site| self.site(site).bank().widths().to_vec()).unwrap_or_default();
        let rest: Vec<Site> = sites.collect();
        first
            .into_iter()
            .filter(|width| rest.iter().all(|&site| self.site(site).bank().get(*width).is_some()))
            .collect()
    }

    /// Saves the adapters of every width.
    ///
    /// `base_model` stands in `adapter_config.json` as the model that the adapters belong to.
    ///
    /// # Errors
    ///
    /// When a folder cannot be written.
    pub fn save_adapters(&self, dir: impl AsRef<Path>, base_model: &str) -> Result<()> {
        let options = PeftOptions { prefix: PREFIX.into(), base_model: base_model.into(), task_type: None };
        for width in self.adapter_widths() {
            let sites: Vec<(String, Site)> = Site::all(self.config()).map(|site| (site.to_string(), site)).collect();
            let pairs = sites
                .iter()
                .filter_map(|(name, site)| self.site(*site).bank().get(width).map(|pair| (name.as_str(), pair)));
            save_peft(width_folder(&dir, width), pairs, &options)?;
        }
        Ok(())
    }

    /// Loads the adapters of every width found in a folder, replacing those of the same width.
    ///
    /// # Errors
    ///
    /// When the folder holds no adapter, or one that does not fit this model; the error names the
    /// file and the tensor or site.
    pub fn load_adapters(&mut self, dir: impl AsRef<Path>) -> Result<Vec<BitWidth>> {
        let dir = dir.as_ref();
        let widths = list_widths(dir)?;
        if widths.is_empty() {
            return Err(Error::NoAdapters { path: dir.into() });
        }
        for &width in &widths {
            self.load_adapter(width_folder(dir, width), width)?;
        }
        Ok(widths)
    }

    /// Loads one adapter folder, as PEFT writes it, for a width.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read or names a site that this model does not have.
    pub fn load_adapter(&mut self, dir: impl AsRef<Path>, width: BitWidth) -> Result<()> {
        let dir = dir.as_ref();
        let device = self.wte.device();
        let mut pairs = load_peft(dir, PREFIX, &device)?;
        for site in Site::all(&self.config().clone()) {
            if let Some(pair) = pairs.remove(&site.to_string()) {
                self.site_mut(site).insert_adapter(width, pair)?;
            }
        }
        match pairs.into_keys().next() {
            Some(site) => Err(Error::UnknownSite { path: dir.into(), site }),
            None => Ok(()),
        }
    }
}
