//! The tensors of a model folder by name, checked on the way out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorInfo};
use serde::Deserialize;

use super::WeightSource;
use crate::{Error, Gpt2Config, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Hugging Face prefixes the body of a model with a head; the files of the original release do not.
const BODY: &str = "transformer.";

/// The tensors of one or several safetensors files.
#[derive(Debug)]
pub(crate) struct WeightSet {
    root: PathBuf,
    sources: Vec<WeightSource>,
    /// Name → (source, where its data starts in the file, what the header says of it).
    entries: BTreeMap<String, (usize, usize, TensorInfo)>,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl WeightSet {
    /// Opens `model.safetensors` or the shards of `model.safetensors.index.json` in a folder.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let single = dir.join(SINGLE);
        if single.exists() {
            return Self::new(&single, vec![WeightSource::open(&single)?]);
        }
        let index_path = dir.join(INDEX);
        if !index_path.exists() {
            return Err(Error::NoWeights { path: dir.into() });
        }
        let text = std::fs::read_to_string(&index_path).map_err(|e| Error::io(&index_path, e))?;
        let index: ShardIndex = serde_json::from_str(&text).map_err(|e| Error::json(&index_path, e))?;
        let files: BTreeSet<&String> = index.weight_map.values().collect();
        let sources = files.into_iter().map(|file| shard(dir, &index_path, file)).collect::<Result<_>>()?;
        let set = Self::new(dir, sources)?;
        let held = |(name, file): &(&String, &String)| {
            set.entries.get(*name).is_some_and(|(source, _, _)| set.sources[*source].name() == dir.join(file))
        };
        match index.weight_map.iter().find(|entry| !held(entry)) {
            Some((name, file)) => Err(Error::MissingTensor { path: dir.join(file), name: name.clone() }),
            None => Ok(set),
        }
    }

    /// Parses and checks the headers of the files.
    pub(crate) fn new(root: impl Into<PathBuf>, sources: Vec<WeightSource>) -> Result<Self> {
        let mut entries = BTreeMap::new();
        for (index, source) in sources.iter().enumerate() {
            let fault = |reason: String| Error::Safetensors { path: source.name().into(), reason };
            let (header, metadata) = SafeTensors::read_metadata(source.bytes()).map_err(|e| fault(e.to_string()))?;
            let data_start = header + size_of::<u64>();
            let data = source.bytes().len() - data_start;
            if data != metadata.data_len() {
                return Err(fault(format!(
                    "the header describes {} bytes of data, {data} follow it",
                    metadata.data_len()
                )));
            }
            for (name, info) in metadata.tensors() {
                if entries.insert(name.clone(), (index, data_start, info.clone())).is_some() {
                    return Err(fault(format!("tensor `{name}` stands in two files")));
                }
            }
        }
        Ok(Self { root: root.into(), sources, entries })
    }

    /// Whether a tensor of this name, with or without the body's prefix, is there.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Checks that the files do not hold more blocks than the configuration.
    pub(crate) fn check_blocks(&self, config: &Gpt2Config) -> Result<()> {
        for (name, (source, _, _)) in &self.entries {
            let block =
                name.strip_prefix(BODY).unwrap_or(name).strip_prefix("h.").and_then(|rest| rest.split('.').next());
            if block.and_then(|b| b.parse::<usize>().ok()).is_some_and(|b| b >= config.n_layer) {
                return Err(Error::ExtraBlock {
                    path: self.sources[*source].name().into(),
                    name: name.clone(),
                    n_layer: config.n_layer,
                });
            }
        }
        Ok(())
    }

    /// The values of a tensor in f32, its shape and its values checked.
    pub(crate) fn data(&self, name: &str, shape: &[usize]) -> Result<TensorData> {
        let Some((found, (source, data_start, info))) = self.find(name) else {
            return Err(Error::MissingTensor { path: self.root.clone(), name: name.into() });
        };
        let source = &self.sources[*source];
        if info.shape != shape {
            return Err(Error::Shape {
                path: source.name().into(),
                name: found.clone(),
                got: info.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        let bytes = &source.bytes()[data_start + info.data_offsets.0..data_start + info.data_offsets.1];
        let values = match info.dtype {
            Dtype::F32 => decode(bytes, f32::from_le_bytes),
            Dtype::F16 => decode(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => decode(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            other => {
                return Err(Error::Dtype {
                    path: source.name().into(),
                    name: found.clone(),
                    got: format!("{other:?}"),
                });
            }
        };
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::NonFinite {
                path: source.name().into(),
                name: found.clone(),
                index,
                value: values[index],
            });
        }
        Ok(TensorData::new(values, shape.to_vec()))
    }

    fn find(&self, name: &str) -> Option<(&String, &(usize, usize, TensorInfo))> {
        self.entries.get_key_value(name).or_else(|| self.entries.get_key_value(name.strip_prefix(BODY)?))
    }
}

fn shard(dir: &Path, index: &Path, file: &str) -> Result<WeightSource> {
    // A shard is a file of this folder: a path that leaves it is not followed.
    if Path::new(file).file_name().is_none_or(|name| name != file) {
        return Err(Error::Config {
            path: index.into(),
            field: "weight_map",
            got: format!("{file:?}"),
            expected: "names of files in the same folder".into(),
        });
    }
    WeightSource::open(dir.join(file))
}

fn decode<const N: usize>(bytes: &[u8], one: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|chunk| one(*chunk)).collect()
}
