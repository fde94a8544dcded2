//! Reading an adapter folder.

use std::{collections::BTreeMap, fs, path::Path};

use burn::tensor::{Tensor, TensorData, backend::Backend, bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{CONFIG_FILE, MODEL_FILE, WRAPPER, config::ReadConfig, learned_steps};
use crate::{
    adapter_pair::LoraAdapterPair,
    error::{Error, Result},
};

/// Reads the adapters of a model's sites for one width as PEFT keeps them, by the sites' names.
///
/// `prefix` is what the model's own names have before a site's, such as `transformer.`. Tensors may
/// be f32, f16 or bf16. Where the folder has a `learned_steps.safetensors`, the adapters get its steps.
///
/// # Errors
///
/// [`Error::Io`] if a file cannot be read. In an [`Error::File`]: [`Error::Json`] and
/// [`Error::Field`] for a configuration that is malformed or asks for more than LoRA,
/// [`Error::Safetensors`] for a truncated or malformed file, and the `Tensor…` errors for tensors
/// that are missing, unexpected, of the wrong shape or type, or not finite, or steps that are 0.
pub fn load_peft<B: Backend>(
    dir: impl AsRef<Path>,
    prefix: &str,
    device: &B::Device,
) -> Result<BTreeMap<String, LoraAdapterPair<B>>> {
    let dir = dir.as_ref();
    let path = dir.join(CONFIG_FILE);
    let text = fs::read(&path).map_err(Error::io(&path))?;
    let config = parse_config(&text).map_err(|error| error.in_file(&path))?;
    let path = dir.join(MODEL_FILE);
    let bytes = fs::read(&path).map_err(Error::io(&path))?;
    let pairs = read_pairs(&bytes, &config, prefix, device).map_err(|error| error.in_file(&path))?;
    learned_steps::load_into(dir, prefix, pairs)
}

/// The same from the bytes of PEFT's two files, such as files that are part of a program. Learned steps
/// come with [`parse_learned_steps`](crate::peft::learned_steps::parse_learned_steps).
///
/// # Errors
///
/// As [`load_peft`], but for files that cannot be read; the errors name no file.
pub fn parse_peft<B: Backend>(
    config: &[u8],
    weights: &[u8],
    prefix: &str,
    device: &B::Device,
) -> Result<BTreeMap<String, LoraAdapterPair<B>>> {
    read_pairs(weights, &parse_config(config)?, prefix, device)
}

fn parse_config(text: &[u8]) -> Result<ReadConfig> {
    let config: ReadConfig = serde_json::from_slice(text)?;
    config.check()?;
    Ok(config)
}

fn read_pairs<B: Backend>(
    bytes: &[u8],
    config: &ReadConfig,
    prefix: &str,
    device: &B::Device,
) -> Result<BTreeMap<String, LoraAdapterPair<B>>> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut factors = BTreeMap::<&str, [Option<TensorView<'_>>; 2]>::new();
    let names = file.names();
    for name in names {
        let Some((module, factor)) = parse_name(name) else {
            let expected = format!("{WRAPPER}<module>.lora_A.weight or .lora_B.weight");
            return Err(Error::TensorUnexpected { tensor: name.to_owned(), expected });
        };
        factors.entry(module).or_default()[factor] = Some(file.tensor(name)?);
    }
    let mut pairs = BTreeMap::new();
    for (module, factors) in factors {
        let Some(site) = module.strip_prefix(prefix) else {
            return Err(Error::TensorUnexpected {
                tensor: format!("{WRAPPER}{module}.lora_A.weight"),
                expected: format!("{WRAPPER}{prefix}<site>.lora_A.weight"),
            });
        };
        pairs.insert(site.to_owned(), read_pair(module, factors, config, device)?);
    }
    Ok(pairs)
}

/// The module and the factor (0 for A, 1 for B) of a tensor. PEFT's own saves leave the adapter's
/// name out; a state dictionary taken from a live model has it.
fn parse_name(name: &str) -> Option<(&str, usize)> {
    let name = name.strip_prefix(WRAPPER)?.strip_suffix(".weight")?;
    let name = name.strip_suffix(".default").unwrap_or(name);
    let (module, factor) = name.rsplit_once('.')?;
    match factor {
        "lora_A" => Some((module, 0)),
        "lora_B" => Some((module, 1)),
        _ => None,
    }
}

fn read_pair<B: Backend>(
    module: &str,
    [a, b]: [Option<TensorView<'_>>; 2],
    config: &ReadConfig,
    device: &B::Device,
) -> Result<LoraAdapterPair<B>> {
    let rank = config.rank(module);
    let [a_name, b_name] = ["lora_A", "lora_B"].map(|factor| format!("{WRAPPER}{module}.{factor}.weight"));
    let a = a.ok_or_else(|| Error::TensorMissing { tensor: a_name.clone() })?;
    let b = b.ok_or_else(|| Error::TensorMissing { tensor: b_name.clone() })?;
    match (a.shape(), b.shape()) {
        (&[a_rank, d_in], &[d_out, b_rank]) if a_rank == rank && b_rank == rank => {
            let a = read_matrix::<B>(&a, &a_name, [rank, d_in], device)?;
            let b = read_matrix::<B>(&b, &b_name, [d_out, rank], device)?;
            LoraAdapterPair::from_factors(a.transpose(), b.transpose(), config.alpha(module))
        }
        (&[a_rank, _], b_shape) if a_rank == rank => {
            Err(Error::TensorShape { tensor: b_name, got: b_shape.to_vec(), expected: format!("[d_out, {rank}]") })
        }
        (a_shape, _) => {
            Err(Error::TensorShape { tensor: a_name, got: a_shape.to_vec(), expected: format!("[{rank}, d_in]") })
        }
    }
}

fn read_matrix<B: Backend>(
    view: &TensorView<'_>,
    name: &str,
    shape: [usize; 2],
    device: &B::Device,
) -> Result<Tensor<B, 2>> {
    let values = read_floats(view).ok_or_else(|| Error::TensorDtype { tensor: name.to_owned(), got: view.dtype() })?;
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::TensorNotFinite { tensor: name.to_owned(), got: values[index], index });
    }
    Ok(Tensor::from_data(TensorData::new(values, shape), device))
}

pub(super) fn read_floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    let (pairs, fours) = (bytes.as_chunks::<2>().0, bytes.as_chunks::<4>().0);
    match view.dtype() {
        Dtype::F32 => Some(fours.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()),
        Dtype::F16 => Some(pairs.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect()),
        Dtype::BF16 => Some(pairs.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect()),
        _ => None,
    }
}
