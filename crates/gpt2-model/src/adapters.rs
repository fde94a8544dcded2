//! A model's adapters on disk: one folder per width, each as PEFT writes it.
//!
//! `dir/bits-4/adapter_config.json` and `dir/bits-4/adapter_model.safetensors` hold the adapters
//! that belong to 4 bits, and so on; `dir/bits-4/learned_steps.safetensors` the learned steps of the
//! weights at that width, if there are any.

use quant_kernels::QuantBackend;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use switchable_lora::{
    LEARNED_STEPS_FILE, LoraAdapterPair, PeftOptions, list_widths, load_peft, parse_learned_steps, parse_peft,
    save_peft, width_folder,
};

use crate::error::{at_site, in_file};
use crate::{BitWidth, Error, Gpt2, Result, Site};

/// Module path of the body inside a model with a head.
const PREFIX: &str = "transformer.";

impl<B: QuantBackend> Gpt2<B> {
    /// Widths for which every site has an adapter, ascending.
    pub fn adapter_widths(&self) -> Vec<BitWidth> {
        let mut widths = self.held_widths();
        widths.retain(|&width| Site::all(self.config()).all(|site| self.site(site).bank().get(width).is_some()));
        widths
    }

    /// Widths for which at least one site has an adapter, ascending.
    fn held_widths(&self) -> Vec<BitWidth> {
        let widths: BTreeSet<BitWidth> =
            Site::all(self.config()).flat_map(|site| self.site(site).bank().widths().to_vec()).collect();
        widths.into_iter().collect()
    }

    /// Saves the adapters of every width, with their learned steps.
    ///
    /// `base_model` stands in `adapter_config.json` as the model that the adapters belong to.
    ///
    /// # Errors
    ///
    /// When a folder cannot be written.
    pub fn save_adapters(&self, dir: impl AsRef<Path>, base_model: &str) -> Result<()> {
        let options = PeftOptions { prefix: PREFIX.into(), base_model: base_model.into(), task_type: None };
        let sites: Vec<(String, Site)> = Site::all(self.config()).map(|site| (site.to_string(), site)).collect();
        for width in self.held_widths() {
            let pairs = sites
                .iter()
                .filter_map(|(name, site)| self.site(*site).bank().get(width).map(|pair| (name.as_str(), pair)));
            save_peft(width_folder(&dir, width), pairs, &options)?;
        }
        Ok(())
    }

    /// Loads the adapters of every width found in a folder, replacing those of the same width, with
    /// their learned steps.
    ///
    /// # Errors
    ///
    /// When the folder holds no adapter, or one that does not fit this model, such as learned steps for
    /// another quantiser; the error names the file and the tensor or site, and the model stays as it
    /// was.
    pub fn load_adapters(&mut self, dir: impl AsRef<Path>) -> Result<Vec<BitWidth>> {
        let dir = dir.as_ref();
        let widths = list_widths(dir)?;
        if widths.is_empty() {
            return Err(Error::NoAdapters { path: dir.into() });
        }
        let mut loaded = self.clone();
        for &width in &widths {
            loaded.take_adapter(&width_folder(dir, width), width)?;
        }
        *self = loaded;
        Ok(widths)
    }

    /// Loads one adapter folder, as PEFT writes it, for a width.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read or does not fit this model; the error names the file and the
    /// tensor or site, and the model stays as it was.
    pub fn load_adapter(&mut self, dir: impl AsRef<Path>, width: BitWidth) -> Result<()> {
        let mut loaded = self.clone();
        loaded.take_adapter(dir.as_ref(), width)?;
        *self = loaded;
        Ok(())
    }

    /// Takes an adapter from the bytes of PEFT's two files, such as files that are part of a
    /// program; `name` stands in errors. Learned steps follow by
    /// [`parse_learned_steps`](Self::parse_learned_steps).
    ///
    /// # Errors
    ///
    /// As [`Gpt2::load_adapter`].
    pub fn parse_adapter(
        &mut self,
        name: impl AsRef<Path>,
        config: &[u8],
        weights: &[u8],
        width: BitWidth,
    ) -> Result<()> {
        let name = name.as_ref();
        let mut loaded = self.clone();
        let pairs = parse_peft(config, weights, PREFIX, &self.wte.device()).map_err(|e| in_file(name, e))?;
        loaded.insert_pairs([name, name], pairs, width)?;
        *self = loaded;
        Ok(())
    }

    /// Gives the adapters of a width their learned steps from the bytes of a
    /// `learned_steps.safetensors`; `name` stands in errors.
    ///
    /// # Errors
    ///
    /// When the bytes are damaged, or hold steps that do not fit an adapter of the width; the error names
    /// the tensor or site, and the model stays as it was.
    pub fn parse_learned_steps(&mut self, name: impl AsRef<Path>, bytes: &[u8], width: BitWidth) -> Result<()> {
        let name = name.as_ref();
        let pair = |site: Site| Some((site.to_string(), self.site(site).bank().get(width)?.clone()));
        let pairs = Site::all(self.config()).filter_map(pair).collect();
        let pairs = parse_learned_steps(bytes, PREFIX, pairs).map_err(|e| in_file(name, e))?;
        let mut loaded = self.clone();
        loaded.insert_pairs([name, name], pairs, width)?;
        *self = loaded;
        Ok(())
    }

    fn take_adapter(&mut self, dir: &Path, width: BitWidth) -> Result<()> {
        let pairs = load_peft(dir, PREFIX, &self.wte.device())?;
        self.insert_pairs([dir, &dir.join(LEARNED_STEPS_FILE)], pairs, width)
    }

    /// The paths are those that errors of adapters and of learned steps name.
    fn insert_pairs(
        &mut self,
        [dir, steps]: [&Path; 2],
        mut pairs: BTreeMap<String, LoraAdapterPair<B>>,
        width: BitWidth,
    ) -> Result<()> {
        for site in Site::all(self.config()) {
            if let Some(pair) = pairs.remove(&site.to_string()) {
                let linear = self.site_mut(site);
                let bare = pair.clone().without_step();
                linear.insert_adapter(width, bare).map_err(|e| in_file(dir, at_site(site, e)))?;
                linear.insert_adapter(width, pair).map_err(|e| in_file(steps, at_site(site, e)))?;
            }
        }
        match pairs.into_keys().next() {
            Some(site) => Err(Error::UnknownSite { path: dir.into(), site }),
            None => Ok(()),
        }
    }
}
