//! The tensors of a model folder by name, checked on the way out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde::Deserialize;
use serde_json::Value;

use super::entry::{Entry, Held};
use super::source::WeightSource;
use super::values::Values;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::folder_names::{OUTPUT_MATRIX, PACKED_FILE};
use crate::gguf::family::{Place, RowOrder};
use crate::gguf::fault::fault;
use crate::gguf::tensor_info::TensorInfo;
use crate::gguf::{GgufFamily, GgufFile};
use crate::json_text::{parse_json, read_text};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// What follows the name of a matrix of int8 codes in the name of its scales, one for each row.
const SCALE: &str = ".scale";

/// What wrappers of torch put before the name of every tensor.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// Tensors of heads beside the body, which change nothing that it computes.
const OTHER_HEADS: [&str; 5] = ["qa_outputs.", "score.", "classifier.", "multiple_choice_head.", "v_head."];

/// The tensors of one or several safetensors files.
#[derive(Debug)]
pub(crate) struct WeightSet {
    root: PathBuf,
    body: Body,
    /// What stands before every name in the files, such as `module.`.
    wrapped: String,
    sources: Vec<WeightSource>,
    entries: BTreeMap<String, Entry>,
    /// What the files call a tensor that is not there, where that is not its Hugging Face name.
    called: fn(&str) -> Option<String>,
}

/// What Hugging Face puts before the names of the body: in a language model, and in a model with a span
/// head. The files of a bare body have neither.
#[derive(Debug, Clone, Copy)]
struct Body {
    language_model: &'static str,
    span: &'static str,
}

impl Body {
    /// A name of the body without either prefix.
    fn bare(self, name: &str) -> &str {
        name.strip_prefix(self.language_model).or_else(|| name.strip_prefix(self.span)).unwrap_or(name)
    }
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl WeightSet {
    /// Opens `model.safetensors` or the shards of `model.safetensors.index.json` in a folder.
    pub(crate) fn open<C: ModelConfig>(dir: &Path) -> Result<Self> {
        let single = dir.join(SINGLE);
        check_not_beside_packed(dir)?;
        if single.exists() {
            return Self::new::<C>(&single, vec![WeightSource::open(&single)?]);
        }
        let index_path = dir.join(INDEX);
        if !index_path.exists() {
            return Err(Error::NoWeights { path: dir.into(), found: found_instead::<C>(dir) });
        }
        let index: ShardIndex = parse_json(&read_text(&index_path)?, &index_path)?;
        let files: BTreeSet<&String> = index.weight_map.values().collect();
        let sources = files.into_iter().map(|file| shard(dir, &index_path, file)).collect::<Result<_>>()?;
        let set = Self::new::<C>(dir, sources)?;
        let held = |(name, file): &(&String, &String)| {
            set.entries.get(set.unwrapped(name)).is_some_and(|entry| set.sources[entry.source].name() == dir.join(file))
        };
        match index.weight_map.iter().find(|entry| !held(entry)) {
            Some((name, file)) => Err(Error::MissingTensor { path: dir.join(file), name: name.clone() }),
            None => Ok(set),
        }
    }

    /// Parses and checks the headers of the files.
    pub(crate) fn new<C: ModelConfig>(root: impl Into<PathBuf>, sources: Vec<WeightSource>) -> Result<Self> {
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
                let bytes = data_start + info.data_offsets.0..data_start + info.data_offsets.1;
                let (shape, held) = (info.shape.clone(), Held::Safetensors(info.dtype));
                let entry = Entry { source: index, bytes, shape, held, called: None };
                if entries.insert(name.clone(), entry).is_some() {
                    return Err(fault(format!("tensor `{name}` stands in two files")));
                }
            }
        }
        let mut wrapped = String::new();
        let is_before_all = |prefix: &str| entries.keys().all(|name: &String| name.starts_with(prefix));
        while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| is_before_all(&format!("{wrapped}{wrapper}"))) {
            if entries.is_empty() {
                break;
            }
            wrapped.push_str(wrapper);
        }
        let entries = entries.into_iter().map(|(name, entry)| (name[wrapped.len()..].to_owned(), entry)).collect();
        let body = Body { language_model: C::BODY, span: C::SPAN_BODY };
        Ok(Self { root: root.into(), body, wrapped, sources, entries, called: |_| None })
    }

    /// The tensors of a GGUF file under their Hugging Face names.
    pub(crate) fn of_gguf<C: ModelConfig>(file: GgufFile, family: &'static GgufFamily<C>, config: &C) -> Result<Self> {
        let root = file.path().to_owned();
        let (source, tensors) = file.into_parts();
        let mut entries = BTreeMap::new();
        for (name, TensorInfo { mut shape, block_type, bytes }) in tensors {
            if family.beside.contains(&name.as_str()) {
                continue;
            }
            let Some(Place { name: own, order }) = family.place(config, &name, (shape.len(), C::LAYOUT)) else {
                let (place, expected) = (format!("tensor `{name}`"), format!("no such tensor in a {}", C::MODEL_TYPE));
                return Err(fault(&root, &place, "there".into(), expected));
            };
            if order == RowOrder::Transposed {
                shape.reverse();
            }
            let held = Held::Gguf(block_type, order);
            entries.insert(own, Entry { source: 0, bytes, shape, held, called: Some(name) });
        }
        let body = Body { language_model: C::BODY, span: C::SPAN_BODY };
        let called = |name: &str| C::GGUF.and_then(|family| family.name_in_file(name));
        Ok(Self { root, body, wrapped: String::new(), sources: vec![source], entries, called })
    }

    /// A name of the files without what a wrapper put before all of them.
    fn unwrapped<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(&self.wrapped).unwrap_or(name)
    }

    /// Checks that every tensor is one of the model's, or known to change nothing.
    pub(crate) fn check_names<C: ModelConfig>(&self, parameters: impl Iterator<Item = String>) -> Result<()> {
        let read: BTreeSet<&String> = parameters.filter_map(|name| self.find(&name).map(|(found, _)| found)).collect();
        let is_scale = |name: &str| {
            let of = name.strip_suffix(SCALE).and_then(|name| self.entries.get_key_value(name));
            of.is_some_and(|(name, entry)| entry.is_int8() && read.contains(name))
        };
        let is_harmless = |name: &str| {
            name == OUTPUT_MATRIX
                || is_scale(name)
                || OTHER_HEADS.iter().any(|head| name.starts_with(head))
                || C::BUFFERS.iter().any(|buffer| name.ends_with(buffer))
        };
        match self.entries.iter().find(|(name, _)| !read.contains(name) && !is_harmless(name)) {
            Some((name, entry)) => {
                let path = self.sources[entry.source].name().into();
                Err(Error::UnknownTensor { path, name: format!("{}{}", self.wrapped, entry.shown(name)) })
            }
            None => Ok(()),
        }
    }

    /// Whether a tensor of this name, with or without the body's prefix, is there.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Checks that the files do not hold more blocks than the configuration.
    pub(crate) fn check_blocks<C: ModelConfig>(&self, config: &C) -> Result<()> {
        let sites = config.sites();
        let beyond = |name: &str| sites.block_of(self.body.bare(name)).is_some_and(|block| block >= sites.blocks());
        match self.entries.iter().find(|(name, _)| beyond(name)) {
            Some((name, entry)) => Err(Error::ExtraBlock {
                path: self.sources[entry.source].name().into(),
                name: entry.shown(name),
                field: C::BLOCKS_FIELD,
                blocks: sites.blocks(),
            }),
            None => Ok(()),
        }
    }

    /// The values of a tensor in f32, its shape and its values checked. One of int8 codes `u` stands beside its
    /// scales: row `r` is `s[r]·u[r]`.
    pub(crate) fn data(&self, name: &str, shape: &[usize]) -> Result<TensorData> {
        let Some((found, entry)) = self.find(name) else {
            let name = (self.called)(name).unwrap_or_else(|| name.into());
            return Err(Error::MissingTensor { path: self.root.clone(), name });
        };
        let source = &self.sources[entry.source];
        if entry.shape != shape {
            return Err(Error::Shape {
                path: source.name().into(),
                name: entry.shown(found),
                got: entry.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        let values = match (entry.values(source.bytes()), entry.held) {
            (Some(values), _) => values,
            // Codes, with a scale for each row; a scale of a scale there is not.
            (None, Held::Safetensors(Dtype::I8)) if !found.ends_with(SCALE) && !shape.is_empty() => {
                let scales = self.data(&format!("{found}{SCALE}"), &shape[..1])?;
                let scales = scales.as_slice::<f32>().expect("tensors are read as f32");
                let columns = shape[1..].iter().product::<usize>().max(1);
                let codes = source.bytes()[entry.bytes.clone()].iter().map(|byte| f32::from(byte.cast_signed()));
                codes
                    .zip(scales.iter().flat_map(|scale| std::iter::repeat_n(scale, columns)))
                    .map(|(u, s)| u * s)
                    .collect()
            }
            (None, Held::Safetensors(other)) => {
                return Err(Error::Dtype {
                    path: source.name().into(),
                    name: found.clone(),
                    got: format!("{other:?}"),
                });
            }
            (None, Held::Gguf(..)) => unreachable!("all of these are decoded"),
        };
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::NonFinite {
                path: source.name().into(),
                name: entry.shown(found),
                index,
                value: values[index],
            });
        }
        Ok(TensorData::new(values, shape.to_vec()))
    }

    fn find(&self, name: &str) -> Option<(&String, &Entry)> {
        let entry = |name: &str| self.entries.get_key_value(name);
        entry(name).or_else(|| {
            let bare = name.strip_prefix(self.body.language_model)?;
            entry(bare).or_else(|| entry(&format!("{}{bare}", self.body.span)))
        })
    }
}

impl Values for &WeightSet {
    fn contains(&self, name: &str) -> bool {
        WeightSet::contains(self, name)
    }

    fn contradicts_tie(&self, name: &str) -> bool {
        WeightSet::contains(self, name)
    }

    fn data(&mut self, name: &str, shape: &[usize]) -> Result<TensorData> {
        WeightSet::data(self, name, shape)
    }
}

/// Refuses a folder that holds packed weights and others.
pub(crate) fn check_alone(dir: &Path) -> Result<()> {
    match [SINGLE, INDEX].into_iter().find(|name| dir.join(name).exists()) {
        Some(other) => Err(Error::TwoWeights { path: dir.into(), files: [PACKED_FILE, other].map(str::to_owned) }),
        None => Ok(()),
    }
}

/// Refuses floats beside packed weights: of the two, neither is known to be meant.
pub(crate) fn check_not_beside_packed(dir: &Path) -> Result<()> {
    if dir.join(PACKED_FILE).exists() { check_alone(dir) } else { Ok(()) }
}

/// What a folder without weights that are read holds instead.
fn found_instead<C: ModelConfig>(dir: &Path) -> String {
    let there = |name: &str| dir.join(name).exists();
    let torch = ["pytorch_model.bin", "pytorch_model.bin.index.json"].into_iter().find(|name| there(name));
    let other = ["tf_model.h5", "flax_model.msgpack", "consolidated.00.pth"].into_iter().find(|name| there(name));
    if let Some(file) = torch.or(other) {
        let config = read_text(&dir.join("config.json")).ok();
        let config: Option<Value> = config.and_then(|text| serde_json::from_str(&text).ok());
        let class = config.and_then(|config| Some(config.get("architectures")?.get(0)?.as_str()?.to_owned()));
        let known = |class: &String| [C::LANGUAGE_MODEL, C::QUESTION_ANSWERING].contains(&class.as_str());
        let class = class.filter(known).unwrap_or_else(|| C::LANGUAGE_MODEL.to_owned());
        let dir = dir.display();
        return format!(
            "; `{file}` is not read: it can run code when it is. These lines of Python convert it:\n    \
             import transformers\n    \
             transformers.{class}.from_pretrained(\"{dir}\").save_pretrained(\"{dir}\")"
        );
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut gguf = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "gguf"));
    if let Some(file) = gguf.next().as_deref().and_then(Path::file_name) {
        let file = file.display();
        return format!("; `{file}` is a model of its own: name the file in the place of the folder");
    }
    if there("adapter_config.json") {
        return "; the folder is that of a PEFT adapter: open the model that it belongs to, and name it as its adapters"
            .to_owned();
    }
    String::new()
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
