//! A model's adapters on disk: one folder per width, each as PEFT writes it.
//!
//! `dir/bits-4/adapter_config.json` and `dir/bits-4/adapter_model.safetensors` hold the adapters
//! that belong to 4 bits, and so on; `dir/bits-4/learned_steps.safetensors` the learned steps of the
//! weights at that width, if there are any.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use switchable_lora::{
    adapter_pair::LoraAdapterPair,
    peft::{
        BaseLayer, PeftOptions,
        learned_steps::{LEARNED_STEPS_FILE, parse_learned_steps},
        list_widths,
        load::{load_peft, parse_peft},
        save::save_peft,
        width_folder,
    },
    site_precision::SitePrecision,
};

use crate::config::ModelConfig;
use crate::error::{Error, Result, at_site, in_file};
use crate::model::SwitchableModel;
use crate::parameters::WeightLayout;
use crate::sites::Site;

/// A model's adapters on disk, and those in the bytes of such files.
///
/// It is implemented for every model.
pub trait AdapterFolders<B: QuantBackend>: SwitchableModel<B> {
    /// Widths for which every site has an adapter, ascending.
    fn adapter_widths(&self) -> Vec<BitWidth> {
        let mut widths = held_widths(self);
        widths.retain(|&width| self.sites().iter().all(|site| self.site(site).bank().get(width).is_some()));
        widths
    }

    /// The precision of a width with its adapter, or without where not every site has one.
    fn precision_at(&self, bits: BitWidth) -> SitePrecision {
        let precision = SitePrecision::uniform(bits);
        if self.adapter_widths().contains(&bits) { precision } else { precision.without_adapter() }
    }

    /// Saves the adapters of every width, with their learned steps.
    ///
    /// `base_model` stands in `adapter_config.json` as the model that the adapters belong to.
    ///
    /// # Errors
    ///
    /// When a folder cannot be written.
    fn save_adapters(&self, dir: impl AsRef<Path>, base_model: &str) -> Result<()> {
        let options = PeftOptions {
            prefix: Self::Config::BODY.into(),
            base_model: base_model.into(),
            task_type: None,
            base_layer: match Self::Config::LAYOUT {
                WeightLayout::InOut => BaseLayer::Conv1d,
                WeightLayout::OutIn => BaseLayer::Linear,
            },
        };
        let sites: Vec<(String, Site)> = self.sites().iter().map(|site| (self.sites().name(site), site)).collect();
        for width in held_widths(self) {
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
    fn load_adapters(&mut self, dir: impl AsRef<Path>) -> Result<Vec<BitWidth>> {
        let dir = dir.as_ref();
        let widths = list_widths(dir)?;
        if widths.is_empty() {
            return Err(Error::NoAdapters { path: dir.into() });
        }
        let mut loaded = self.clone();
        for &width in &widths {
            take_adapter(&mut loaded, &width_folder(dir, width), width)?;
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
    fn load_adapter(&mut self, dir: impl AsRef<Path>, width: BitWidth) -> Result<()> {
        let mut loaded = self.clone();
        take_adapter(&mut loaded, dir.as_ref(), width)?;
        *self = loaded;
        Ok(())
    }

    /// Takes an adapter from the bytes of PEFT's two files, such as files that are part of a
    /// program; `name` stands in errors. Learned steps follow by
    /// [`parse_learned_steps`](Self::parse_learned_steps).
    ///
    /// # Errors
    ///
    /// As [`load_adapter`](Self::load_adapter).
    fn parse_adapter(&mut self, name: impl AsRef<Path>, config: &[u8], weights: &[u8], width: BitWidth) -> Result<()> {
        let name = name.as_ref();
        let mut loaded = self.clone();
        let pairs = parse_peft(config, weights, Self::Config::BODY, &self.device()).map_err(|e| in_file(name, e))?;
        insert_pairs(&mut loaded, [name, name], pairs, width)?;
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
    fn parse_learned_steps(&mut self, name: impl AsRef<Path>, bytes: &[u8], width: BitWidth) -> Result<()> {
        let name = name.as_ref();
        let pair = |site: Site| Some((self.sites().name(site), self.site(site).bank().get(width)?.clone()));
        let pairs = self.sites().iter().filter_map(pair).collect();
        let pairs = parse_learned_steps(bytes, Self::Config::BODY, pairs).map_err(|e| in_file(name, e))?;
        let mut loaded = self.clone();
        insert_pairs(&mut loaded, [name, name], pairs, width)?;
        *self = loaded;
        Ok(())
    }
}

impl<B: QuantBackend, M: SwitchableModel<B>> AdapterFolders<B> for M {}

/// Widths for which at least one site has an adapter, ascending.
fn held_widths<B: QuantBackend, M: SwitchableModel<B>>(model: &M) -> Vec<BitWidth> {
    let sites = model.sites().iter();
    let widths: BTreeSet<BitWidth> = sites.flat_map(|site| model.site(site).bank().widths().to_vec()).collect();
    widths.into_iter().collect()
}

fn take_adapter<B: QuantBackend, M: SwitchableModel<B>>(model: &mut M, dir: &Path, width: BitWidth) -> Result<()> {
    let pairs = load_peft(dir, M::Config::BODY, &model.device())?;
    insert_pairs(model, [dir, &dir.join(LEARNED_STEPS_FILE)], pairs, width)
}

/// The paths are those that errors of adapters and of learned steps name.
fn insert_pairs<B: QuantBackend, M: SwitchableModel<B>>(
    model: &mut M,
    [dir, steps]: [&Path; 2],
    mut pairs: BTreeMap<String, LoraAdapterPair<B>>,
    width: BitWidth,
) -> Result<()> {
    let sites = model.sites().clone();
    for site in sites.iter() {
        if let Some(pair) = pairs.remove(&sites.name(site)) {
            let linear = model.site_mut(site);
            let bare = pair.clone().without_step();
            linear.insert_adapter(width, bare).map_err(|e| in_file(dir, at_site(sites.name(site), e)))?;
            linear.insert_adapter(width, pair).map_err(|e| in_file(steps, at_site(sites.name(site), e)))?;
        }
    }
    match pairs.into_keys().next() {
        Some(site) => Err(Error::UnknownSite { path: dir.into(), site }),
        None => Ok(()),
    }
}
