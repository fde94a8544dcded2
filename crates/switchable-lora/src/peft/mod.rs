//! Adapters on disk as Hugging Face's PEFT keeps them.
//!
//! ```text
//! <dir>/bits-4/adapter_config.json           r, lora_alpha, target_modules, …
//! <dir>/bits-4/adapter_model.safetensors     base_model.model.<prefix><site>.lora_A.weight  [r, d_in]
//!                                            base_model.model.<prefix><site>.lora_B.weight  [d_out, r]
//!                                            base_model.model.qa_outputs.weight, .bias; a head that it brings
//! <dir>/bits-4/learned_steps.safetensors     <prefix><site>.step; only if a site has a learned step
//! <dir>/bits-4/switchable_quant.json         what it was trained for; not in folders of PEFT's alone
//! ```
//!
//! One folder holds the adapters of all sites for one width. The factors are transposed on disk:
//! PEFT keeps them as the weights of `torch.nn.Linear`, whatever the layer that they adapt, which
//! `fan_in_fan_out` tells. `r` and `lora_alpha` are those of most sites; sites with others
//! are listed in `rank_pattern` and `alpha_pattern`.

mod adapter_config;
pub mod learned_steps;
pub mod load;
mod module_names;
mod ordered_map;
pub mod save;
pub mod saved_module;
mod stored_floats;
mod tensor_names;
pub mod trained_for;

use std::{
    fs,
    path::{Path, PathBuf},
};

use quant_kernels::spec::bit_width::BitWidth;

use self::{saved_module::SavedModule, trained_for::TrainedFor};
use crate::error::{Error, Result};

const CONFIG_FILE: &str = "adapter_config.json";
const MODEL_FILE: &str = "adapter_model.safetensors";
/// The tensors as PEFT wrote them before it knew safetensors.
const PICKLED_FILE: &str = "adapter_model.bin";
/// What PEFT puts before the name of every module of the model that it wraps.
const WRAPPER: &str = "base_model.model.";
const FOLDER_PREFIX: &str = "bits-";

/// The class of the layers that PEFT finds at a model's sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BaseLayer {
    /// GPT-2's `Conv1D`, whose weight is `[d_in, d_out]`: `fan_in_fan_out`.
    #[default]
    Conv1d,
    /// `torch.nn.Linear`, whose weight is `[d_out, d_in]`.
    Linear,
}

/// What an adapter's files say about the model that it belongs to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PeftOptions {
    /// What the model's own names have before a site's, such as `transformer.`.
    pub prefix: String,
    /// The name or folder of the base model.
    pub base_model: String,
    /// PEFT's task type, such as `CAUSAL_LM` or `QUESTION_ANS`.
    pub task_type: Option<String>,
    /// What the sites are in the model that PEFT adapts.
    pub base_layer: BaseLayer,
    /// Modules that the adapter brings as a whole, such as the head of a task.
    pub saved_modules: Vec<SavedModule>,
    /// What the adapter was trained for.
    pub trained_for: Option<TrainedFor>,
}

/// The folder for the adapters of one width: `bits-4` in `dir`.
///
/// ```
/// use switchable_lora::{BitWidth, peft::width_folder};
///
/// assert!(width_folder("adapters", BitWidth::B4).ends_with("adapters/bits-4"));
/// ```
pub fn width_folder(dir: impl AsRef<Path>, width: BitWidth) -> PathBuf {
    dir.as_ref().join(format!("{FOLDER_PREFIX}{width}"))
}

/// The widths that `dir` has a folder for, in rising order.
///
/// # Errors
///
/// [`Error::Io`] if `dir` cannot be read; in an [`Error::File`], [`Error::WidthFolder`] for a folder `bits-…`
/// that is not that of a width, or has no `adapter_config.json`.
pub fn list_widths(dir: impl AsRef<Path>) -> Result<Vec<BitWidth>> {
    let dir = dir.as_ref();
    let mut widths = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(width) = name.strip_prefix(FOLDER_PREFIX).filter(|_| path.is_dir()) else { continue };
        let refused = |expected| Err(Error::WidthFolder { expected }.in_file(&path));
        match width.parse::<BitWidth>() {
            // Not `bits-04`: two folders would be of one width.
            Ok(width) if width_folder(dir, width) != path => return refused("no zeros before the width"),
            Ok(_) if !path.join(CONFIG_FILE).is_file() => return refused("an adapter_config.json in it"),
            Ok(width) => widths.push(width),
            Err(_) => return refused("a width of 1 to 16 or 32 in its name"),
        }
    }
    widths.sort_unstable();
    Ok(widths)
}

#[cfg(test)]
#[expect(clippy::default_trait_access, reason = "there is one device, that of the backend")]
mod tests;
