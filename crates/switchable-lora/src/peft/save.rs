//! Writing adapter folders.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    fs,
    path::Path,
};

use burn::tensor::{Tensor, TensorData, backend::Backend};
use safetensors::{Dtype, tensor::TensorView};

use quant_kernels::spec::bit_width::BitWidth;
use whole_files::PartialFolder;

use super::{
    BaseLayer, CONFIG_FILE, FOLDER_PREFIX, MODEL_FILE, PICKLED_FILE, PeftOptions, WRAPPER,
    adapter_config::{WrittenConfig, number},
    learned_steps::{self, LEARNED_STEPS_FILE},
    tensor_names::FactorName,
    trained_for::TRAINED_FOR_FILE,
    width_folder,
};
use crate::{
    adapter_pair::LoraAdapterPair,
    error::{Error, Result},
};

/// The adapters of a model's sites for one width.
#[derive(Debug)]
pub struct WidthAdapters<'a, B: Backend> {
    /// The width that they belong to.
    pub width: BitWidth,
    /// The pairs by the sites' names.
    pub pairs: Vec<(&'a str, &'a LoraAdapterPair<B>)>,
    /// What their files say about the model.
    pub options: PeftOptions,
}

/// Writes the adapters of a model's sites for one width as PEFT keeps them, in f32.
///
/// The folder takes its place when all of it is on the disk; files in it that are not those of an adapter are
/// kept. Adapters with learned steps bring `learned_steps.safetensors`, and [`PeftOptions::trained_for`]
/// brings `switchable_quant.json`; PEFT takes no notice of either. Without them, those that an earlier save left
/// are gone.
///
/// # Errors
///
/// [`Error::NoAdapters`] if there are none, [`Error::Site`] if an adapter or a step holds a NaN or an
/// infinity or a step a zero, or the steps are of several widths, [`Error::Io`] if the folder cannot be written.
/// What was there before stays.
///
/// ```
/// use burn::backend::Flex;
/// use switchable_lora::{BitWidth, LoraAdapterPair, LoraConfig, load_peft, peft::{PeftOptions, list_widths, width_folder}, save_peft};
///
/// let device = Default::default();
/// let config = LoraConfig::new(4, 8.0)?;
/// let pair = LoraAdapterPair::<Flex>::adding_nothing(&config, [16, 48], 0, &device);
///
/// let dir = tempfile::tempdir()?;
/// let options = PeftOptions { prefix: "transformer.".into(), ..Default::default() };
/// let folder = width_folder(&dir, BitWidth::B4);
/// save_peft(&folder, [("h.0.attn.c_attn", &pair)], &options)?;
///
/// assert_eq!(list_widths(&dir)?, [BitWidth::B4]);
/// let loaded = load_peft::<Flex>(&folder, "transformer.", &device)?;
/// assert_eq!(loaded["h.0.attn.c_attn"].adapts(), [16, 48]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save_peft<'a, B: Backend>(
    dir: impl AsRef<Path>,
    adapters: impl IntoIterator<Item = (&'a str, &'a LoraAdapterPair<B>)>,
    options: &PeftOptions,
) -> Result<()> {
    let dir = dir.as_ref();
    let files = files_of(adapters, options)?;
    let folder = PartialFolder::create(dir)?;
    whole_files::carry_over(dir, folder.path(), &is_adapter_file)?;
    write_files(folder.path(), &files)?;
    Ok(folder.persist()?)
}

/// Writes the adapters of several widths, one folder for each, in the place of all those that `dir` has.
///
/// `dir` takes its place when all of it is on the disk, so that it holds the old bank or the new one. What
/// is in it beside the folders of widths is kept, and so are foreign files in the folders of the bank's
/// widths. A bank without a width leaves none, and no folder if there is nothing else in it.
///
/// # Errors
///
/// Those of [`save_peft`].
pub fn save_bank<'a, B: Backend>(
    dir: impl AsRef<Path>,
    bank: impl IntoIterator<Item = WidthAdapters<'a, B>>,
) -> Result<()> {
    let dir = dir.as_ref();
    let bank = bank.into_iter().map(|WidthAdapters { width, pairs, options }| Ok((width, files_of(pairs, &options)?)));
    let bank = bank.collect::<Result<Vec<_>>>()?;
    if bank.is_empty() && !dir.exists() {
        return Ok(());
    }
    let folder = PartialFolder::create(dir)?;
    // Unfinished folders are what a kill leaves of earlier saves.
    let replaced = |name: &OsStr| {
        name.to_str().is_some_and(|name| [FOLDER_PREFIX, ".partial-"].iter().any(|start| name.starts_with(start)))
    };
    whole_files::carry_over(dir, folder.path(), &replaced)?;
    for (width, files) in &bank {
        let new = width_folder(folder.path(), *width);
        whole_files::carry_over(width_folder(dir, *width), &new, &is_adapter_file)?;
        write_files(&new, files)?;
    }
    folder.persist()?;
    if bank.is_empty() {
        // Fails where other things are kept in it.
        _ = fs::remove_dir(dir);
    }
    Ok(())
}

/// A file of an adapter by its name.
type AdapterFile = (&'static str, Vec<u8>);

fn files_of<'a, B: Backend>(
    adapters: impl IntoIterator<Item = (&'a str, &'a LoraAdapterPair<B>)>,
    options: &PeftOptions,
) -> Result<Vec<AdapterFile>> {
    let adapters: Adapters<'_, B> =
        adapters.into_iter().map(|(site, pair)| (format!("{}{site}", options.prefix), pair)).collect();
    let config = serde_json::to_vec_pretty(&config_of(&adapters, options)?)?;
    let mut files = vec![(MODEL_FILE, tensors_of(&adapters, options)?), (CONFIG_FILE, config)];
    let steps = learned_steps::file_of(&adapters)?;
    if let Some(trained_for) = &options.trained_for {
        files.push((TRAINED_FOR_FILE, trained_for.to_json(steps.is_some())?));
    }
    files.extend(steps.map(|steps| (LEARNED_STEPS_FILE, steps)));
    Ok(files)
}

fn write_files(folder: &Path, files: &[AdapterFile]) -> Result<()> {
    files.iter().try_for_each(|(name, bytes)| Ok(whole_files::write(folder.join(name), bytes)?))
}

fn is_adapter_file(name: &OsStr) -> bool {
    [CONFIG_FILE, MODEL_FILE, PICKLED_FILE, LEARNED_STEPS_FILE, TRAINED_FOR_FILE].iter().any(|file| name == *file)
}

type Adapters<'a, B> = BTreeMap<String, &'a LoraAdapterPair<B>>;

fn config_of<'o, B: Backend>(adapters: &Adapters<'_, B>, options: &'o PeftOptions) -> Result<WrittenConfig<'o>> {
    let rank = most_common(adapters.values().map(|pair| pair.rank())).ok_or(Error::NoAdapters)?;
    let alpha_bits = most_common(adapters.values().map(|pair| pair.alpha().to_bits())).ok_or(Error::NoAdapters)?;
    let alpha = f64::from_bits(alpha_bits);
    let number = |alpha| number(alpha).ok_or(Error::Alpha { got: alpha });
    let rank_pattern = adapters
        .iter()
        .filter(|(_, pair)| pair.rank() != rank)
        .map(|(module, pair)| (module.clone(), pair.rank()))
        .collect();
    let alpha_pattern = adapters
        .iter()
        .filter(|(_, pair)| pair.alpha().to_bits() != alpha_bits)
        .map(|(module, pair)| Ok((module.clone(), number(pair.alpha())?)))
        .collect::<Result<_>>()?;
    let saved_modules: Vec<String> = options.saved_modules.iter().map(|module| module.name.clone()).collect();
    Ok(WrittenConfig {
        peft_type: "LORA",
        task_type: options.task_type.as_deref(),
        base_model_name_or_path: &options.base_model,
        inference_mode: true,
        r: rank,
        lora_alpha: number(alpha)?,
        lora_dropout: 0.0,
        target_modules: adapters.keys().cloned().collect(),
        rank_pattern,
        alpha_pattern,
        fan_in_fan_out: options.base_layer == BaseLayer::Conv1d,
        bias: "none",
        use_rslora: false,
        use_dora: false,
        init_lora_weights: true,
        modules_to_save: (!saved_modules.is_empty()).then_some(saved_modules),
    })
}

/// The value that occurs most often, the smallest of several.
fn most_common<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts = BTreeMap::<T, usize>::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts.into_iter().rev().max_by_key(|&(_, count)| count).map(|(value, _)| value)
}

fn tensors_of<B: Backend>(adapters: &Adapters<'_, B>, options: &PeftOptions) -> Result<Vec<u8>> {
    let mut tensors = Vec::with_capacity(2 * (adapters.len() + options.saved_modules.len()));
    for (module, pair) in adapters {
        for (factor, tensor) in [(FactorName::A, pair.a.val()), (FactorName::B, pair.b.val())] {
            let name = factor.tensor(module);
            let tensor = transposed(tensor);
            let bytes = bytes_of(&tensor, &name).map_err(|error| error.at_site(module))?;
            tensors.push((name, tensor.shape.to_vec(), bytes));
        }
    }
    for module in &options.saved_modules {
        for (part, tensor) in [("weight", &module.weight), ("bias", &module.bias)] {
            let name = format!("{WRAPPER}{}.{part}", module.name);
            let bytes = bytes_of(tensor, &name)?;
            tensors.push((name, tensor.shape.to_vec(), bytes));
        }
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(safetensors::serialize(views, Some(metadata))?)
}

fn transposed<B: Backend>(tensor: Tensor<B, 2>) -> TensorData {
    tensor.transpose().into_data()
}

/// The values of a tensor as little-endian f32.
fn bytes_of(tensor: &TensorData, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4 * tensor.num_elements());
    for (index, value) in tensor.iter::<f32>().enumerate() {
        if !value.is_finite() {
            return Err(Error::TensorNotFinite { tensor: name.to_owned(), got: value, index });
        }
        bytes.extend(value.to_le_bytes());
    }
    Ok(bytes)
}
