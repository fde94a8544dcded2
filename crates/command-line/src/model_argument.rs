//! What `--model` names, where that is no model.

use std::fs;
use std::path::Path;

use anyhow::bail;
use serde_json::Value;

/// Refuses what is there and is no folder of a model, and says what to name instead. What is in the files of a
/// model is not looked at.
///
/// # Errors
///
/// When the path is that of a file, or the folder has no `config.json`.
pub fn check_model_folder(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    if !path.is_dir() {
        let folder = path.parent().filter(|folder| folder.join(CONFIG).is_file());
        let instead = folder.map_or_else(|| WHAT.to_owned(), |folder| format!("`--model {}`", folder.display()));
        bail!("`--model {shown}` is a file, expected {instead}");
    }
    if path.join(CONFIG).is_file() {
        return Ok(());
    }
    let names = names(path);
    let there = |name: &str| names.iter().any(|known| known == name);
    if there(ADAPTER) {
        let base = base_of(path).unwrap_or_else(|| "BASE".to_owned());
        bail!(
            "`--model {shown}` is an adapter, expected the model that it was trained on: `--model {base} --adapters DIR`, \
             where DIR holds the adapter of each width in a folder of its own, such as DIR/bits-4"
        );
    }
    if names.iter().any(|name| name.starts_with("bits-")) {
        bail!(
            "`--model {shown}` is a folder of adapters, expected the model that they were trained on: \
             `--model BASE --adapters {shown}`"
        );
    }
    if path.join("model").join(CONFIG).is_file() {
        bail!("`--model {shown}` is a folder of results, expected `--model {}`", path.join("model").display());
    }
    let ending = |end: &str| names.iter().find(|name| ends(Path::new(name), end));
    if let Some(file) = ending("gguf") {
        bail!("`--model {shown}` holds {file}, expected that file: `--model {}`", path.join(file).display());
    }
    let weights = ["safetensors", "bin"].into_iter().find_map(ending);
    if let Some(file) = weights {
        bail!(
            "`--model {shown}` holds {file} without a {CONFIG}, expected both: it lies beside the weights on the Hub"
        );
    }
    if there("tokenizer.json") || there("vocab.json") {
        bail!("`--model {shown}` holds a tokenizer alone, expected {WHAT}");
    }
    bail!("`--model {shown}`: {CONFIG} is missing, expected {WHAT}")
}

const CONFIG: &str = "config.json";
const ADAPTER: &str = "adapter_config.json";
const WHAT: &str = "a folder with config.json, weights as safetensors and a tokenizer, or a GGUF file";

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

fn ends(path: &Path, with: &str) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case(with))
}

/// The model that an adapter says it was trained on.
fn base_of(adapter: &Path) -> Option<String> {
    let config: Value = serde_json::from_slice(&fs::read(adapter.join(ADAPTER)).ok()?).ok()?;
    let base = config.get("base_model_name_or_path")?.as_str()?;
    (!base.is_empty()).then(|| base.to_owned())
}
