//! What an adapter was trained for, beside the files that PEFT reads.
//!
//! ```text
//! <dir>/bits-4/switchable_quant.json
//! {
//!   "format": "switchable-lora.adapter",
//!   "version": 1,
//!   "bits": 4,
//!   "settings": { "weight": "per-channel,symmetric,min-max", "activation": …, "placement": "residual" },
//!   "learned_steps": true,      whether learned_steps.safetensors is part of the folder
//!   "shared_by": [2, 4, 8],     optional: the widths that add the adapter too
//!   "calibration": "…",         optional: the hash of the windows that the codes went by
//!   "base": "…"                 optional: the identity of the base's weights
//! }
//! ```
//!
//! An adapter repairs the error of one quantiser. PEFT's files do not say which, and PEFT takes no notice
//! of this one.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use quant_kernels::spec::bit_width::BitWidth;

use crate::{
    error::{Error, Result},
    quantisation_settings::QuantisationSettings,
};

/// The file of what an adapter was trained for in the folder of a width.
pub const TRAINED_FOR_FILE: &str = "switchable_quant.json";

const FORMAT: &str = "switchable-lora.adapter";
const VERSION: u64 = 1;

/// What an adapter was trained for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainedFor {
    /// The width of the weights that it repairs.
    pub bits: BitWidth,
    /// The quantisers, and where it is added.
    pub settings: QuantisationSettings,
    /// The widths that add it too, where it is shared.
    pub shared_by: Vec<BitWidth>,
    /// The hash of the windows that the base's codes went by, where they did.
    pub calibration: Option<String>,
    /// The identity of the base's weights, where it is known.
    pub base: Option<String>,
}

impl TrainedFor {
    /// Refuses an adapter for another width or other settings.
    ///
    /// # Errors
    ///
    /// [`Error::TrainedFor`], which names the first difference.
    pub fn check(&self, bits: BitWidth, settings: &QuantisationSettings) -> Result<()> {
        let difference = |field, trained: String, here: String| Err(Error::TrainedFor { field, trained, here });
        if self.bits != bits {
            return difference("bits", self.bits.to_string(), bits.to_string());
        }
        match self.settings.first_difference(settings) {
            Some(found) => difference(found.field, found.got, found.expected),
            None => Ok(()),
        }
    }

    /// The file's text; `learned_steps` says whether the steps' file stands beside it.
    pub(super) fn to_json(&self, learned_steps: bool) -> Result<Vec<u8>> {
        let Self { bits, settings, shared_by, calibration, base } = self.clone();
        let (format, version) = (FORMAT.into(), VERSION);
        let file = TrainedForFile { format, version, bits, settings, learned_steps, shared_by, calibration, base };
        let mut text = serde_json::to_vec_pretty(&file)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads the file's text, and whether the steps' file belongs to the folder.
    pub(super) fn from_json(text: &[u8]) -> Result<Described> {
        // The version first: a file of another one may well have fields that this one has not.
        let Versioned { format, version } = serde_json::from_slice(text)?;
        let refused =
            |field: &str, got: String, expected: String| Error::AdapterField { field: field.into(), got, expected };
        if format != FORMAT {
            return Err(refused("format", format, FORMAT.into()));
        }
        if version != VERSION {
            return Err(refused("version", version.to_string(), VERSION.to_string()));
        }
        let file: TrainedForFile = serde_json::from_slice(text)?;
        let TrainedForFile { bits, settings, learned_steps, shared_by, calibration, base, .. } = file;
        Ok(Described { trained_for: Self { bits, settings, shared_by, calibration, base }, learned_steps })
    }
}

/// The settings that the adapters of a folder of widths (`bits-4`, `bits-8`, …) were trained for; `None` where their
/// files do not say it, or not the same.
///
/// # Errors
///
/// When a file cannot be read or is not what it should be.
pub fn settings_of_bank(dir: impl AsRef<Path>) -> Result<Option<QuantisationSettings>> {
    let dir = dir.as_ref();
    let mut found: Option<QuantisationSettings> = None;
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path().join(TRAINED_FOR_FILE);
        if !path.is_file() {
            continue;
        }
        let text = fs::read(&path).map_err(Error::io(&path))?;
        let Described { trained_for, .. } = TrainedFor::from_json(&text).map_err(|error| error.in_file(&path))?;
        match found {
            Some(settings) if settings != trained_for.settings => return Ok(None),
            _ => found = Some(trained_for.settings),
        }
    }
    Ok(found)
}

/// What the file says.
pub(super) struct Described {
    pub(super) trained_for: TrainedFor,
    pub(super) learned_steps: bool,
}

#[derive(Deserialize)]
struct Versioned {
    format: String,
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainedForFile {
    format: String,
    version: u64,
    bits: BitWidth,
    settings: QuantisationSettings,
    learned_steps: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shared_by: Vec<BitWidth>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    calibration: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<String>,
}
