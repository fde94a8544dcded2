//! What results depend on: the files of a model, the flags that say how it is read, the questions.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use switchable_quant::burn::tensor::backend::Backend;
use switchable_quant::default_model;
use switchable_quant::identity::{ContentHash, Hasher, Identity};
use switchable_quant::kernels::QuantBackend;
use switchable_quant::reader::EvaluateOptions;
use switchable_quant::reader::evaluation::question_task::TaskRef;
use switchable_quant::transformer::model::SwitchableModel;

use crate::adapter_place::AdapterPlace;

/// Files of a model folder that say what it computes, by the ends of their names, and what they are called
/// in messages.
const KINDS: [(&str, &str); 11] = [
    (".safetensors.index.json", "weights"),
    (".safetensors", "weights"),
    (".bin.index.json", "weights"),
    (".bin", "weights"),
    ("tokens.json", "tokenizer"),
    ("tokens_map.json", "tokenizer"),
    ("tokenizer.json", "tokenizer"),
    ("tokenizer_config.json", "tokenizer"),
    ("vocab.json", "tokenizer"),
    ("merges.txt", "tokenizer"),
    ("config.json", "config"),
];

/// What a model that is one file is called, whatever its name.
const GGUF: &str = "model.gguf";

/// The contents of a model folder or of a GGUF file: weights, tokenizer and configuration, and the adapters beside them or, in
/// their place, those of another folder. Where the folder lies and what else is in it does not count.
///
/// # Errors
///
/// When a file cannot be read.
pub fn of_folder(dir: &Path, adapters: &AdapterPlace) -> anyhow::Result<Identity> {
    let mut identity = Identity::default();
    if dir.is_file() {
        identity = identity.with_content("weights", GGUF, ContentHash::of_file(dir)?);
        return match adapters {
            AdapterPlace::Folder(adapters) => with_adapters(identity, adapters),
            AdapterPlace::Own | AdapterPlace::LeftOut => Ok(identity),
        };
    }
    for path in sorted(dir)? {
        let name = name_of(&path);
        let kind = KINDS.into_iter().find(|(end, _)| name.ends_with(end));
        if let Some((_, kind)) = kind.filter(|_| path.is_file()) {
            identity = identity.with_content(kind, name, ContentHash::of_file(&path)?);
        }
    }
    let beside = dir.join("adapters");
    match adapters {
        AdapterPlace::Folder(adapters) => with_adapters(identity, adapters),
        AdapterPlace::Own if beside.is_dir() => with_adapters(identity, &beside),
        AdapterPlace::Own | AdapterPlace::LeftOut => Ok(identity),
    }
}

/// The same with all files of a folder of adapters: those of each width, PEFT's and ours.
fn with_adapters(mut identity: Identity, dir: &Path) -> anyhow::Result<Identity> {
    for width in sorted(dir)?.into_iter().filter(|path| path.is_dir()) {
        for path in sorted(&width)?.into_iter().filter(|path| path.is_file()) {
            let name = format!("{}/{}", name_of(&width), name_of(&path));
            identity = identity.with_content("adapter", name, ContentHash::of_file(&path)?);
        }
    }
    Ok(identity)
}

fn sorted(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort_unstable();
    Ok(paths)
}

/// The last part of a path, for messages.
pub fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The contents of the model that is part of the program.
///
/// # Errors
///
/// When a file of adapters in the place of its own cannot be read.
pub fn of_built_in(adapters: &AdapterPlace) -> anyhow::Result<Identity> {
    let files = default_model::FILES;
    let hash = |bytes: &[u8]| ContentHash::of_bytes(bytes);
    let mut identity = Identity::default()
        .with_content("weights", "of the built-in model", hash(files.weights))
        .with_content("tokenizer", "of the built-in model", hash(files.tokenizer))
        .with_content("config", "of the built-in model", hash(files.config.as_bytes()));
    match adapters {
        AdapterPlace::Folder(adapters) => return with_adapters(identity, adapters),
        AdapterPlace::LeftOut => return Ok(identity),
        AdapterPlace::Own => {}
    }
    for adapter in files.adapters {
        let both = [adapter.config, adapter.weights].concat();
        identity = identity.with_content("adapter", adapter.name, hash(&both));
    }
    Ok(identity)
}

/// The parameters of a language model, which training starts from.
pub fn of_parameters<B: QuantBackend, M: SwitchableModel<B>>(model: &M) -> ContentHash {
    let mut hasher = Hasher::default();
    for (name, parameter) in model.named_parameters() {
        hasher.floats(&name, &parameter.values());
    }
    hasher.finish()
}

/// The backend that computes, which decides the last bits.
pub fn backend<B: Backend>() -> String {
    B::name(&B::Device::default())
}

/// The contents of some questions in their windows, or prompts, by the name of their file, and how prompts ask them.
pub fn of_questions<'a>(content: &str, name: &str, task: impl Into<TaskRef<'a>>) -> Identity {
    let task = task.into();
    // How they are asked is named before the contents, which depend on it.
    let asked = Identity::default().with_options(task.how_asked());
    asked.with_content(content, name_of(Path::new(name)), task.content())
}

/// What results depend on in how questions are read. Workers are not among it.
pub fn of_reading(options: &EvaluateOptions) -> Identity {
    let decode = format!("{:?}", options.decode);
    Identity::default().with_options(
        json!({ "batch": options.batch_size, "activation_bytes": options.activation_bytes, "decode": decode }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("adapters/bits-4")).unwrap();
        for file in [
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "added_tokens.json",
            "special_tokens_map.json",
            "merges.txt",
            "vocab.json",
            "adapters/bits-4/adapter_config.json",
            "adapters/bits-4/adapter_model.safetensors",
            "adapters/bits-4/learned_steps.safetensors",
        ] {
            std::fs::write(dir.path().join(file), file).unwrap();
        }
        dir
    }

    fn difference(dir: &Path, before: &Identity) -> Option<String> {
        Some(before.first_difference(&of_folder(dir, &AdapterPlace::Own).unwrap())?.to_string())
    }

    #[test]
    fn every_file_that_says_what_a_model_computes_counts() {
        let dir = folder();
        let before = of_folder(dir.path(), &AdapterPlace::Own).unwrap();
        for (file, expected) in [
            ("config.json", "config changed: config.json"),
            ("model.safetensors", "weights changed: model.safetensors"),
            ("tokenizer.json", "tokenizer changed: tokenizer.json"),
            ("added_tokens.json", "tokenizer changed: added_tokens.json"),
            ("special_tokens_map.json", "tokenizer changed: special_tokens_map.json"),
            ("merges.txt", "tokenizer changed: merges.txt"),
            ("vocab.json", "tokenizer changed: vocab.json"),
            ("adapters/bits-4/adapter_config.json", "adapter changed: bits-4/adapter_config.json"),
            ("adapters/bits-4/learned_steps.safetensors", "adapter changed: bits-4/learned_steps.safetensors"),
        ] {
            let path = dir.path().join(file);
            // Of the same length: contents count, not sizes.
            std::fs::write(&path, file.to_uppercase()).unwrap();
            // The time differs even where the clock of the file system is coarse.
            let later = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
            assert_eq!(difference(dir.path(), &before).as_deref(), Some(expected));
            std::fs::write(&path, file).unwrap();
            assert_eq!(difference(dir.path(), &before), None);
        }
    }

    #[test]
    fn places_and_results_do_not_count() {
        let dir = folder();
        let before = of_folder(dir.path(), &AdapterPlace::Own).unwrap();
        for result in ["plan.json", "allocation.json", "README.md"] {
            std::fs::write(dir.path().join(result), "result").unwrap();
        }
        let moved = dir.path().with_extension("moved");
        std::fs::rename(dir.path(), &moved).unwrap();
        assert_eq!(difference(&moved, &before), None);
        std::fs::rename(&moved, dir.path()).unwrap();
        let adapters = dir.path().join("elsewhere");
        std::fs::rename(dir.path().join("adapters"), &adapters).unwrap();
        assert_eq!(
            before.first_difference(&of_folder(dir.path(), &AdapterPlace::Folder(adapters.clone())).unwrap()),
            None
        );
        let bare = difference(dir.path(), &before).unwrap();
        assert!(bare.contains("bits-4/adapter_config.json is missing"), "{bare}");
    }

    #[test]
    fn a_model_of_one_file_is_its_contents_whatever_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, text) in [("a.gguf", "GGUF"), ("b", "GGUF"), ("c.gguf", "GGUG")] {
            std::fs::write(at(name), text).unwrap();
        }
        let before = of_folder(&at("a.gguf"), &AdapterPlace::Own).unwrap();
        assert_eq!(difference(&at("b"), &before), None);
        assert_eq!(difference(&at("c.gguf"), &before).as_deref(), Some("weights changed: model.gguf"));
    }

    #[test]
    fn a_model_of_half_a_gigabyte_is_hashed_within_a_second() {
        // Sparse, so that the disk is not asked for them.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        std::fs::File::create(&path).unwrap().set_len(500 << 20).unwrap();
        let start = std::time::Instant::now();
        of_folder(dir.path(), &AdapterPlace::Own).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        println!("{seconds:.3} s");
        // The machine may be busy with other tests: ten times the time that it should take is a fault.
        assert!(seconds < 10.0, "{seconds} s");
    }
}
