//! A model's adapters on disk: one folder per width, each as PEFT writes it.
//!
//! `dir/bits-4/adapter_config.json` and `dir/bits-4/adapter_model.safetensors` hold the adapters
//! that belong to 4 bits, and so on; `dir/bits-4/learned_steps.safetensors` the learned steps of the
//! weights at that width, if there are any; `dir/bits-4/switchable_quant.json` what they were trained for,
//! which has to be what the model computes with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use switchable_lora::{
    adapter_pair::LoraAdapterPair,
    peft::{
        BaseLayer, PeftOptions,
        learned_steps::{LEARNED_STEPS_FILE, parse_learned_steps},
        list_widths,
        load::{AdapterBytes, AdapterNames, PeftAdapter, parse_adapter, read_adapter},
        save::{WidthAdapters, save_bank},
        trained_for::{TRAINED_FOR_FILE, TrainedFor},
        width_folder,
    },
    site_precision::SitePrecision,
    switchable_linear::windows_of,
};

use crate::config::ModelConfig;
use crate::error::{Error, Result, at_site, in_file};
use crate::model::SwitchableModel;
use crate::no_adapters::no_adapters;
use crate::parameters::WeightLayout;
use crate::sites::Site;

/// What was loaded of a folder of adapters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedAdapters {
    /// The widths, in rising order.
    pub widths: Vec<BitWidth>,
    /// Folders that do not say which quantiser they were trained for.
    pub unknown: Vec<PathBuf>,
}

/// A line for each folder of which something is not known; nothing where all is.
impl fmt::Display for LoadedAdapters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, path) in self.unknown.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}: no {TRAINED_FOR_FILE}, ", path.display())?;
            f.write_str("so the quantiser that the adapter was trained for is not known")?;
        }
        Ok(())
    }
}

/// A model's adapters on disk, and those in the bytes of such files.
///
/// It is implemented for every model.
pub trait AdapterFolders<B: QuantBackend>: SwitchableModel<B> {
    /// Widths for which at least one site has an adapter, ascending.
    fn adapter_widths(&self) -> Vec<BitWidth> {
        let sites = self.sites().iter();
        let widths: BTreeSet<BitWidth> = sites.flat_map(|site| self.site(site).bank().widths().to_vec()).collect();
        widths.into_iter().collect()
    }

    /// The widths that run with an adapter: their own, or one that they share; ascending.
    fn served_widths(&self) -> Vec<BitWidth> {
        let of_site = |site| {
            let bank = self.site(site).bank();
            bank.widths()
                .iter()
                .flat_map(|width| bank.sharers(*width))
                .chain(bank.widths())
                .copied()
                .collect::<Vec<_>>()
        };
        self.sites().iter().flat_map(of_site).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Widths whose adapters were trained on codes that went by other windows than those of this model, ascending.
    /// A model that was not calibrated has none.
    fn widths_of_other_calibrations(&self) -> Vec<BitWidth> {
        let Some(here) = self.calibration().map(windows_of) else { return Vec::new() };
        let is_other = |width: &BitWidth| {
            let mut then = self.sites().iter().filter_map(|site| self.site(site).calibrated_on(*width));
            then.any(|windows| windows != here)
        };
        self.adapter_widths().into_iter().filter(is_other).collect()
    }

    /// How many sites have an adapter of a width.
    fn adapter_sites(&self, width: BitWidth) -> usize {
        self.sites().iter().filter(|site| self.site(*site).bank().get(width).is_some()).count()
    }

    /// The precision of a width with its adapter and the one that it shares, or without where no site has one.
    ///
    /// Where some have one and others none, it is that of the first: see
    /// [`precision_for`](SwitchableModel::precision_for).
    fn precision_at(&self, bits: BitWidth) -> SitePrecision {
        let precision = SitePrecision::uniform(bits);
        let has_own = self.adapter_sites(bits) > 0;
        match self.sites().iter().find_map(|site| self.site(site).bank().shared_at(bits)) {
            Some(shared) if has_own && shared != bits => precision.with_shared(shared),
            Some(shared) if !has_own => precision.with_adapter(shared),
            _ if has_own => precision,
            _ => precision.without_adapter(),
        }
    }

    /// Saves the adapters of every width, with their learned steps and what they were trained for, in the
    /// place of all that the folder has: see [`save_bank`].
    ///
    /// `base_model` stands in `adapter_config.json` as the model that the adapters belong to.
    ///
    /// # Errors
    ///
    /// When a folder cannot be written; what was there before stays.
    fn save_adapters(&self, dir: impl AsRef<Path>, base_model: &str) -> Result<()> {
        let options = |width| peft_options(self, Self::Config::BODY, base_model, width);
        save_widths(self, dir.as_ref(), options)
    }

    /// Loads the adapters of every width found in a folder, replacing those of the same width, with
    /// their learned steps.
    ///
    /// # Errors
    ///
    /// When the folder holds no adapter, or one that does not fit this model, such as one for another
    /// quantiser or with a head of its own; the error names the file and the tensor, field or site, and the model
    /// stays as it was.
    fn load_adapters(&mut self, dir: impl AsRef<Path>) -> Result<LoadedAdapters> {
        let (loaded, folders) = read_widths::<B, Self>(self, dir.as_ref(), &[])?;
        let mut changed = self.clone();
        for folder in folders {
            take_adapter(&mut changed, folder)?;
        }
        *self = changed;
        Ok(loaded)
    }

    /// Loads one adapter folder, as PEFT writes it, for a width.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read or does not fit this model; the error names the file and the
    /// tensor, field or site, and the model stays as it was.
    fn load_adapter(&mut self, dir: impl AsRef<Path>, width: BitWidth) -> Result<LoadedAdapters> {
        let folder = read_folder::<B, Self>(self, dir.as_ref(), width, &[])?;
        let loaded = folder.as_loaded();
        let mut changed = self.clone();
        take_adapter(&mut changed, folder)?;
        *self = changed;
        Ok(loaded)
    }

    /// Takes an adapter from the bytes of its files, such as files that are part of a
    /// program; `name` stands in errors. Learned steps follow by
    /// [`parse_learned_steps`](Self::parse_learned_steps).
    ///
    /// # Errors
    ///
    /// As [`load_adapter`](Self::load_adapter).
    fn parse_adapter(
        &mut self,
        name: impl AsRef<Path>,
        bytes: AdapterBytes<'_>,
        width: BitWidth,
    ) -> Result<LoadedAdapters> {
        let folder = parse_folder::<B, Self>(self, name.as_ref(), bytes, width)?;
        let loaded = folder.as_loaded();
        let mut changed = self.clone();
        take_adapter(&mut changed, folder)?;
        *self = changed;
        Ok(loaded)
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
        for site in self.sites().iter() {
            let (before, layer) = (self.site(site), loaded.site_mut(site));
            if let Some(settings) = before.trained_for(width) {
                layer.set_trained_for(width, settings);
            }
            if let Some(windows) = before.calibrated_on(width) {
                layer.set_calibrated_on(width, windows);
            }
            let by = before.bank().sharers(width);
            if !by.is_empty() {
                layer.share_adapter(width, by);
            }
        }
        *self = loaded;
        Ok(())
    }
}

impl<B: QuantBackend, M: SwitchableModel<B>> AdapterFolders<B> for M {}

/// An adapter that was read for a model and not yet given to it.
pub(crate) struct AdapterFolder<B: QuantBackend> {
    pub(crate) path: PathBuf,
    pub(crate) width: BitWidth,
    pub(crate) adapter: PeftAdapter<B>,
}

impl<B: QuantBackend> AdapterFolder<B> {
    pub(crate) fn as_loaded(&self) -> LoadedAdapters {
        let unknown = self.adapter.trained_for.is_none().then(|| self.path.clone());
        LoadedAdapters { widths: vec![self.width], unknown: unknown.into_iter().collect() }
    }
}

/// What the files of a width say about a model; `body` stands before its sites' names.
pub(crate) fn peft_options<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    body: &str,
    base_model: &str,
    width: BitWidth,
) -> PeftOptions {
    let shared_by = model.sites().iter().map(|site| model.site(site).bank().sharers(width)).find(|by| !by.is_empty());
    let shared_by = shared_by.unwrap_or_default().to_vec();
    let settings = model.settings().quantisation();
    let calibration = model.calibration().filter(|_| settings.rounding.needs_moments(settings.weight));
    let calibration = calibration.map(|calibration| windows_of(calibration).to_owned());
    PeftOptions {
        prefix: body.into(),
        base_model: base_model.into(),
        task_type: None,
        base_layer: match M::Config::LAYOUT {
            WeightLayout::InOut => BaseLayer::Conv1d,
            WeightLayout::OutIn => BaseLayer::Linear,
        },
        saved_modules: Vec::new(),
        trained_for: Some(TrainedFor { bits: width, settings, shared_by, calibration, base: None }),
    }
}

/// Saves the adapters of every width, each with its own options.
pub(crate) fn save_widths<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    dir: &Path,
    options: impl Fn(BitWidth) -> PeftOptions,
) -> Result<()> {
    let sites: Vec<(String, Site)> = model.sites().iter().map(|site| (model.sites().name(site), site)).collect();
    let bank = model.adapter_widths().into_iter().map(|width| WidthAdapters {
        width,
        pairs: sites
            .iter()
            .filter_map(|(name, site)| model.site(*site).bank().get(width).map(|pair| (name.as_str(), pair)))
            .collect(),
        options: options(width),
    });
    Ok(save_bank(dir, bank)?)
}

/// Reads the adapters of every width of a folder.
pub(crate) fn read_widths<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    dir: &Path,
    saved_modules: &[&str],
) -> Result<(LoadedAdapters, Vec<AdapterFolder<B>>)> {
    let widths = if dir.is_file() { Vec::new() } else { list_widths(dir)? };
    if widths.is_empty() {
        return Err(no_adapters(dir));
    }
    let read = |&width: &BitWidth| read_folder(model, &width_folder(dir, width), width, saved_modules);
    let folders = widths.iter().map(read).collect::<Result<Vec<_>>>()?;
    let unknown = folders.iter().flat_map(|folder| folder.as_loaded().unknown).collect();
    Ok((LoadedAdapters { widths, unknown }, folders))
}

/// Reads an adapter and checks that it is for this model: that each of its targets is there, and that it
/// was trained for the width and the model's quantisers.
pub(crate) fn read_folder<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    dir: &Path,
    width: BitWidth,
    saved_modules: &[&str],
) -> Result<AdapterFolder<B>> {
    let adapter = read_adapter(dir, names::<B, M>(saved_modules), &model.device())?;
    checked(model, AdapterFolder { path: dir.into(), width, adapter })
}

fn parse_folder<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    name: &Path,
    bytes: AdapterBytes<'_>,
    width: BitWidth,
) -> Result<AdapterFolder<B>> {
    let adapter = parse_adapter(bytes, names::<B, M>(&[]), &model.device()).map_err(|e| in_file(name, e))?;
    checked(model, AdapterFolder { path: name.into(), width, adapter })
}

fn names<'a, B: QuantBackend, M: SwitchableModel<B>>(saved_modules: &'a [&'a str]) -> AdapterNames<'a> {
    AdapterNames { prefixes: &[M::Config::BODY, M::Config::SPAN_BODY, ""], saved_modules }
}

fn checked<B: QuantBackend, M: SwitchableModel<B>>(model: &M, folder: AdapterFolder<B>) -> Result<AdapterFolder<B>> {
    let sites = model.sites();
    let AdapterFolder { path, width, adapter } = &folder;
    if let Some(site) = adapter.pairs.keys().find(|site| sites.find(site).is_none()) {
        return Err(Error::UnknownSite { path: path.clone(), site: site.clone() });
    }
    adapter.check_sites(sites.iter().map(|site| sites.name(site))).map_err(|e| in_file(path, e))?;
    if let Some(trained_for) = &adapter.trained_for {
        // Codes have quantisers site by site: where a plan uses the adapter is checked with the plan.
        let fits = |site| trained_for.check(*width, &model.site(site).settings().quantisation());
        if !adapter.pairs.keys().filter_map(|site| sites.find(site)).any(|site| fits(site).is_ok()) {
            let settings = model.settings().quantisation();
            trained_for.check(*width, &settings).map_err(|e| in_file(&path.join(TRAINED_FOR_FILE), e))?;
        }
    }
    Ok(folder)
}

/// Gives a model the pairs of an adapter.
pub(crate) fn take_adapter<B: QuantBackend, M: SwitchableModel<B>>(
    model: &mut M,
    folder: AdapterFolder<B>,
) -> Result<()> {
    let AdapterFolder { path, width, adapter } = folder;
    let sites: Vec<Site> = adapter.pairs.keys().filter_map(|site| model.sites().find(site)).collect();
    for site in model.sites().clone().iter() {
        // What was shared with an adapter that goes was of another bank; that of this one comes last, as the widest.
        model.site_mut(site).unshare_adapters(&[width]);
    }
    insert_pairs(model, [&path, &path.join(LEARNED_STEPS_FILE)], adapter.pairs, width)?;
    if let Some(trained_for) = adapter.trained_for {
        for site in sites {
            let layer = model.site_mut(site);
            layer.set_trained_for(width, trained_for.settings);
            if let Some(windows) = &trained_for.calibration {
                layer.set_calibrated_on(width, windows);
            }
            if !trained_for.shared_by.is_empty() {
                layer.share_adapter(width, &trained_for.shared_by);
            }
        }
    }
    Ok(())
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
