//! Adapters on disk as Hugging Face's PEFT keeps them.
//!
//! ```text
//! <dir>/bits-4/adapter_config.json           r, lora_alpha, target_modules, …
//! <dir>/bits-4/adapter_model.safetensors     base_model.model.<prefix><site>.lora_A.weight  [r, d_in]
//!                                            base_model.model.<prefix><site>.lora_B.weight  [d_out, r]
//! <dir>/bits-4/learned_steps.safetensors     <prefix><site>.step; only if a site has a learned step
//! ```
//!
//! One folder holds the adapters of all sites for one width. The factors are transposed on disk:
//! PEFT keeps them as the weights of `torch.nn.Linear`, whatever the layer that they adapt, which
//! `fan_in_fan_out` tells. `r` and `lora_alpha` are those of most sites; sites with others
//! are listed in `rank_pattern` and `alpha_pattern`.

mod config;
pub mod learned_steps;
pub mod load;
pub mod save;

use std::{
    fs,
    path::{Path, PathBuf},
};

use quant_kernels::spec::bit_width::BitWidth;

use crate::error::{Error, Result};

const CONFIG_FILE: &str = "adapter_config.json";
const MODEL_FILE: &str = "adapter_model.safetensors";
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeftOptions {
    /// What the model's own names have before a site's, such as `transformer.`.
    pub prefix: String,
    /// The name or folder of the base model.
    pub base_model: String,
    /// PEFT's task type, such as `CAUSAL_LM` or `QUESTION_ANS`.
    pub task_type: Option<String>,
    /// What the sites are in the model that PEFT adapts.
    pub base_layer: BaseLayer,
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
/// [`Error::Io`] if `dir` cannot be read.
pub fn list_widths(dir: impl AsRef<Path>) -> Result<Vec<BitWidth>> {
    let dir = dir.as_ref();
    let mut widths = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let entry = entry.map_err(Error::io(dir))?;
        let name = entry.file_name();
        let width = name.to_str().and_then(|name| name.strip_prefix(FOLDER_PREFIX));
        if let Some(width) = width.and_then(|width| width.parse::<BitWidth>().ok())
            && entry.path().join(CONFIG_FILE).is_file()
        {
            widths.push(width);
        }
    }
    widths.sort_unstable();
    Ok(widths)
}

#[cfg(test)]
#[expect(clippy::default_trait_access, reason = "there is one device, that of the backend")]
mod tests;
