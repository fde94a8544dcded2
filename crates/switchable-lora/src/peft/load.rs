//! Reading an adapter folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use burn::tensor::{Tensor, TensorData, backend::Backend};
use safetensors::{SafeTensors, tensor::TensorView};

use super::{
    CONFIG_FILE, MODEL_FILE, PICKLED_FILE, WRAPPER,
    adapter_config::AdapterConfig,
    learned_steps::{self, LEARNED_STEPS_FILE},
    saved_module::SavedModule,
    stored_floats::read_floats,
    tensor_names::{FactorName, NamedTensor, parse_name},
    trained_for::{TRAINED_FOR_FILE, TrainedFor},
};
use crate::{
    adapter_pair::LoraAdapterPair,
    error::{Error, Result},
};

/// The names by which a model knows the modules in an adapter's files.
#[derive(Debug, Clone, Copy)]
pub struct AdapterNames<'a> {
    /// What may stand before the sites' names, such as `transformer.`; the first that some module has is
    /// that of all. The empty name fits every module and stands last.
    pub prefixes: &'a [&'a str],
    /// The modules that an adapter may bring as a whole (`modules_to_save`).
    pub saved_modules: &'a [&'a str],
}

/// The bytes of an adapter's files, such as files that are part of a program.
#[derive(Debug, Clone, Copy)]
pub struct AdapterBytes<'a> {
    /// `adapter_config.json`.
    pub config: &'a [u8],
    /// `adapter_model.safetensors`.
    pub weights: &'a [u8],
    /// `switchable_quant.json`, if there is one.
    pub trained_for: Option<&'a [u8]>,
}

/// An adapter of one width, as its files give it.
#[derive(Debug, Clone)]
pub struct PeftAdapter<B: Backend> {
    /// The pairs of the sites, by the sites' names; at least one.
    pub pairs: BTreeMap<String, LoraAdapterPair<B>>,
    /// The modules that it brings as a whole.
    pub saved_modules: Vec<SavedModule>,
    /// What it was trained for; `None` for a folder of PEFT's alone, which does not say.
    pub trained_for: Option<TrainedFor>,
    prefix: String,
    config: AdapterConfig,
}

impl<B: Backend> PeftAdapter<B> {
    /// Checks that every site that the configuration gives an adapter to has one.
    ///
    /// # Errors
    ///
    /// [`Error::TensorMissing`] for the first that has none.
    pub fn check_sites<S: AsRef<str>>(&self, sites: impl IntoIterator<Item = S>) -> Result<()> {
        for site in sites {
            let module = format!("{}{}", self.prefix, site.as_ref());
            if self.config.targets(&module) && !self.pairs.contains_key(site.as_ref()) {
                return Err(Error::TensorMissing { tensor: FactorName::A.tensor(&module) });
            }
        }
        Ok(())
    }
}

/// Reads the adapter of one width as PEFT keeps it, with the learned steps and what it was trained for
/// where the folder has files of them.
///
/// Tensors may be f32, f16 or bf16. That every site has its adapter is checked by
/// [`PeftAdapter::check_sites`].
///
/// # Errors
///
/// [`Error::Io`] if a file cannot be read, [`Error::Pickled`] if the tensors are only there as a pickle. In an
/// [`Error::File`]: [`Error::Json`], [`Error::AdapterField`], [`Error::Pattern`] and [`Error::UnmatchedPattern`]
/// for a configuration that is malformed or asks for more than LoRA, [`Error::Safetensors`] for a truncated or
/// malformed file, [`Error::NoAdapters`] for one without pairs, and the `Tensor…` errors for tensors that are
/// missing, unexpected, of the wrong shape or type, or not finite, or steps that are 0.
pub fn read_adapter<B: Backend>(
    dir: impl AsRef<Path>,
    names: AdapterNames<'_>,
    device: &B::Device,
) -> Result<PeftAdapter<B>> {
    let dir = dir.as_ref();
    let [config_path, model_path, trained_for_path] =
        [CONFIG_FILE, MODEL_FILE, TRAINED_FOR_FILE].map(|file| dir.join(file));
    let config = fs::read(&config_path).map_err(Error::io(&config_path))?;
    let config = read_config(&config, &config_path, names)?;
    let weights = match fs::read(&model_path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir.join(PICKLED_FILE).exists() => {
            return Err(Error::Pickled { path: dir.join(PICKLED_FILE) });
        }
        read => read.map_err(Error::io(&model_path))?,
    };
    let mut adapter = read_tensors(&weights, config, names, device).map_err(|error| error.in_file(&model_path))?;
    let described = match fs::read(&trained_for_path) {
        Ok(text) => Some(TrainedFor::from_json(&text).map_err(|error| error.in_file(&trained_for_path))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io(&trained_for_path)(error)),
    };
    let steps_path = dir.join(LEARNED_STEPS_FILE);
    if let Some(described) = described {
        if described.learned_steps != steps_path.exists() {
            let got = described.learned_steps.to_string();
            let expected = format!(
                "{}, as {LEARNED_STEPS_FILE} is{} there",
                !described.learned_steps,
                if described.learned_steps { " not" } else { "" }
            );
            return Err(Error::AdapterField { field: "learned_steps".into(), got, expected }.in_file(&trained_for_path));
        }
        adapter.trained_for = Some(described.trained_for);
    }
    let PeftAdapter { pairs, prefix, .. } = adapter;
    let pairs = learned_steps::load_into(dir, &prefix, pairs)?;
    Ok(PeftAdapter { pairs, prefix, ..adapter })
}

/// The same from bytes, but for learned steps, which come with
/// [`parse_learned_steps`](crate::peft::learned_steps::parse_learned_steps).
///
/// # Errors
///
/// As [`read_adapter`], but for files that cannot be read; the errors name the file alone.
pub fn parse_adapter<B: Backend>(
    bytes: AdapterBytes<'_>,
    names: AdapterNames<'_>,
    device: &B::Device,
) -> Result<PeftAdapter<B>> {
    let config = read_config(bytes.config, Path::new(CONFIG_FILE), names)?;
    let adapter = read_tensors(bytes.weights, config, names, device).map_err(|error| error.in_file(MODEL_FILE))?;
    let described = bytes.trained_for.map(TrainedFor::from_json).transpose();
    let described = described.map_err(|error| error.in_file(TRAINED_FOR_FILE))?;
    Ok(PeftAdapter { trained_for: described.map(|described| described.trained_for), ..adapter })
}

/// Reads the adapters of a model's sites for one width as PEFT keeps them, by the sites' names, where no
/// model is at hand.
///
/// `prefix` is what the model's own names have before a site's, such as `transformer.`. As the sites are not
/// known, each of the configuration's targets has to have an adapter somewhere. What the folder says of the
/// quantiser is read by [`read_adapter`].
///
/// # Errors
///
/// Those of [`read_adapter`], and [`Error::UnmatchedPattern`] for a target without an adapter.
pub fn load_peft<B: Backend>(
    dir: impl AsRef<Path>,
    prefix: &str,
    device: &B::Device,
) -> Result<BTreeMap<String, LoraAdapterPair<B>>> {
    let dir = dir.as_ref();
    let adapter = read_adapter(dir, AdapterNames { prefixes: &[prefix], saved_modules: &[] }, device)?;
    let modules: Vec<_> = adapter.pairs.keys().map(|site| format!("{prefix}{site}")).collect();
    let checked = adapter.config.check_targets(&modules.iter().map(String::as_str));
    checked.map_err(|error| error.in_file(dir.join(CONFIG_FILE)))?;
    Ok(adapter.pairs)
}

/// The configuration, and the name of its file for errors.
struct NamedConfig<'a> {
    config: AdapterConfig,
    path: &'a Path,
}

fn read_config<'a>(text: &[u8], path: &'a Path, names: AdapterNames<'_>) -> Result<NamedConfig<'a>> {
    let config = AdapterConfig::from_json(text).map_err(|error| error.in_file(path))?;
    match config.saved_modules().iter().find(|module| !names.saved_modules.contains(&module.as_str())) {
        Some(module) => Err(Error::AdapterField {
            field: "modules_to_save".into(),
            got: module.clone(),
            expected: match names.saved_modules {
                [] => "nothing: this model has no head that an adapter can bring".into(),
                modules => format!("{}, the modules that an adapter can bring", modules.join(", ")),
            },
        }
        .in_file(path)),
        None => Ok(NamedConfig { config, path }),
    }
}

/// The tensors of one module; each part once.
type Parts<'a, const N: usize> = [Option<NamedView<'a>>; N];

/// A tensor under its name in the file.
struct NamedView<'a> {
    name: &'a str,
    view: TensorView<'a>,
}

fn put<'a, const N: usize>(parts: &mut Parts<'a, N>, part: usize, found: NamedView<'a>) -> Result<()> {
    if let Some(first) = &parts[part] {
        let expected = format!("{}, which names the same module, alone", first.name);
        Err(Error::TensorUnexpected { tensor: found.name.to_owned(), expected })
    } else {
        parts[part] = Some(found);
        Ok(())
    }
}

fn read_tensors<B: Backend>(
    bytes: &[u8],
    NamedConfig { config, path }: NamedConfig<'_>,
    names: AdapterNames<'_>,
    device: &B::Device,
) -> Result<PeftAdapter<B>> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut factors = BTreeMap::<&str, Parts<'_, 2>>::new();
    let mut saved: BTreeMap<&str, Parts<'_, 2>> =
        config.saved_modules().iter().map(|module| (module.as_str(), Parts::default())).collect();
    // In their order, so that of several faults the same one is named in every run.
    let in_order: BTreeSet<&str> = file.names().into_iter().collect();
    for name in in_order {
        let found = NamedView { name, view: file.tensor(name)? };
        match parse_name(name, &saved) {
            Some(NamedTensor::Factor { module, factor }) => {
                put(factors.entry(module).or_default(), factor as usize, found)?;
            }
            Some(NamedTensor::Saved { module, part }) => {
                if let Some(parts) = saved.get_mut(module) {
                    put(parts, part as usize, found)?;
                }
            }
            None => {
                let saved = saved.keys().map(|module| format!(", or {WRAPPER}{module}.weight or .bias"));
                let expected =
                    format!("{WRAPPER}<module>.lora_A.weight or .lora_B.weight{}", saved.collect::<String>());
                return Err(Error::TensorUnexpected { tensor: name.to_owned(), expected });
            }
        }
    }
    if factors.is_empty() {
        return Err(Error::NoAdapters);
    }
    config.check_modules(&factors.keys().copied()).map_err(|error| error.in_file(path))?;
    let prefix = names.prefixes.iter().find(|prefix| factors.keys().any(|module| module.starts_with(**prefix)));
    let prefix = prefix.or(names.prefixes.first()).copied().unwrap_or_default();
    let mut pairs = BTreeMap::new();
    for (module, factors) in factors {
        let Some(site) = module.strip_prefix(prefix) else {
            return Err(Error::TensorUnexpected {
                tensor: FactorName::A.tensor(module),
                expected: FactorName::A.tensor(&format!("{prefix}<site>")),
            });
        };
        // The configuration may have the names of the whole model where the tensors have those of its body.
        let called = |prefix: &&str| !config.leaves_out(&format!("{prefix}{site}"));
        if config.leaves_out(module) && !names.prefixes.iter().any(called) {
            // PEFT makes no adapter there, and passes over the tensors.
            let expected = format!("none of a module that {CONFIG_FILE} does not target");
            return Err(Error::TensorUnexpected { tensor: FactorName::A.tensor(module), expected });
        }
        pairs.insert(site.to_owned(), read_pair(module, factors, &config, device)?);
    }
    let saved_modules = saved.into_iter().map(|(module, parts)| read_saved(module, parts)).collect::<Result<_>>()?;
    Ok(PeftAdapter { pairs, saved_modules, trained_for: None, prefix: prefix.to_owned(), config })
}

fn read_pair<B: Backend>(
    module: &str,
    [a, b]: Parts<'_, 2>,
    config: &AdapterConfig,
    device: &B::Device,
) -> Result<LoraAdapterPair<B>> {
    let rank = config.rank(module);
    let missing = |factor: FactorName| move || Error::TensorMissing { tensor: factor.tensor(module) };
    let a = a.ok_or_else(missing(FactorName::A))?;
    let b = b.ok_or_else(missing(FactorName::B))?;
    let shape = |found: &NamedView<'_>, expected: String| Error::TensorShape {
        tensor: found.name.to_owned(),
        got: found.view.shape().to_vec(),
        expected,
    };
    match (a.view.shape(), b.view.shape()) {
        (&[a_rank, d_in], &[d_out, b_rank]) if a_rank == rank && b_rank == rank => {
            let a = read_matrix::<B>(&a, [rank, d_in], device)?;
            let b = read_matrix::<B>(&b, [d_out, rank], device)?;
            LoraAdapterPair::from_factors(a.transpose(), b.transpose(), config.alpha(module))
        }
        (&[a_rank, _], _) if a_rank == rank => Err(shape(&b, format!("[d_out, {rank}]"))),
        _ => Err(shape(&a, format!("[{rank}, d_in]"))),
    }
}

fn read_saved(module: &str, [weight, bias]: Parts<'_, 2>) -> Result<SavedModule> {
    let read = |part: &str, found: Option<NamedView<'_>>| -> Result<TensorData> {
        let missing = || Error::TensorMissing { tensor: format!("{WRAPPER}{module}.{part}") };
        let found = found.ok_or_else(missing)?;
        Ok(TensorData::new(read_values(&found)?, found.view.shape().to_vec()))
    };
    Ok(SavedModule { name: module.to_owned(), weight: read("weight", weight)?, bias: read("bias", bias)? })
}

fn read_matrix<B: Backend>(found: &NamedView<'_>, shape: [usize; 2], device: &B::Device) -> Result<Tensor<B, 2>> {
    Ok(Tensor::from_data(TensorData::new(read_values(found)?, shape), device))
}

/// The values of a tensor, all of them finite.
fn read_values(found: &NamedView<'_>) -> Result<Vec<f32>> {
    let tensor = || found.name.to_owned();
    let dtype = || Error::TensorDtype { tensor: tensor(), got: found.view.dtype() };
    let values = read_floats(&found.view).ok_or_else(dtype)?;
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(Error::TensorNotFinite { tensor: tensor(), got: values[index], index }),
        None => Ok(values),
    }
}
