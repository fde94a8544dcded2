//! Writing an adapter folder.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, Write as _},
    path::Path,
};

use burn::tensor::{Tensor, backend::Backend};
use safetensors::{Dtype, tensor::TensorView};

use whole_files::{PartialFile, persist_all};

use super::{
    BaseLayer, CONFIG_FILE, MODEL_FILE, PeftOptions, WRAPPER,
    config::{WrittenConfig, number},
    learned_steps::{self, LEARNED_STEPS_FILE},
};
use crate::{
    adapter_pair::LoraAdapterPair,
    error::{Error, Result},
};

/// Writes the adapters of a model's sites for one width as PEFT keeps them, in f32.
///
/// All files are complete on disk before one takes its place. Adapters with learned steps bring a third
/// file, `learned_steps.safetensors`, of which PEFT takes no notice; without any, one that an earlier
/// save left is removed.
///
/// # Errors
///
/// [`Error::NoAdapters`] if there are none, [`Error::Site`] if an adapter or a step holds a NaN or an
/// infinity or a step a zero, or the steps are of several widths, [`Error::Io`] if the folder cannot be written.
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
    let adapters: BTreeMap<_, _> =
        adapters.into_iter().map(|(site, pair)| (format!("{}{site}", options.prefix), pair)).collect();
    let config = config_of(&adapters, options)?;
    let config = serde_json::to_vec_pretty(&config)?;
    let model = tensors_of(&adapters)?;
    let steps = learned_steps::file_of(&adapters)?;
    let dir = dir.as_ref();
    let steps_path = dir.join(LEARNED_STEPS_FILE);
    let mut files = vec![(dir.join(MODEL_FILE), model.as_slice()), (dir.join(CONFIG_FILE), config.as_slice())];
    if let Some(steps) = &steps {
        files.push((steps_path.clone(), steps.as_slice()));
    }
    let mut complete = Vec::with_capacity(files.len());
    for (path, contents) in files {
        let mut file = PartialFile::create(path)?;
        file.fill(|file| file.write_all(contents))?;
        complete.push(file);
    }
    persist_all(complete)?;
    if steps.is_some() {
        return Ok(());
    }
    match fs::remove_file(&steps_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(&steps_path)(error)),
        _ => Ok(()),
    }
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
        modules_to_save: None,
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

fn tensors_of<B: Backend>(adapters: &Adapters<'_, B>) -> Result<Vec<u8>> {
    let mut tensors = Vec::with_capacity(2 * adapters.len());
    for (module, pair) in adapters {
        for (factor, tensor) in [("lora_A", pair.a.val()), ("lora_B", pair.b.val())] {
            let name = format!("{WRAPPER}{module}.{factor}.weight");
            let (shape, bytes) = transposed_bytes(tensor, &name).map_err(|error| error.at_site(module))?;
            tensors.push((name, shape, bytes));
        }
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(safetensors::serialize(views, Some(metadata))?)
}

/// The transpose of a matrix as little-endian f32.
fn transposed_bytes<B: Backend>(tensor: Tensor<B, 2>, name: &str) -> Result<(Vec<usize>, Vec<u8>)> {
    let tensor = tensor.transpose();
    let shape = tensor.dims().to_vec();
    let mut bytes = Vec::with_capacity(4 * tensor.shape().num_elements());
    for (index, value) in tensor.into_data().iter::<f32>().enumerate() {
        if !value.is_finite() {
            return Err(Error::TensorNotFinite { tensor: name.to_owned(), got: value, index });
        }
        bytes.extend(value.to_le_bytes());
    }
    Ok((shape, bytes))
}
