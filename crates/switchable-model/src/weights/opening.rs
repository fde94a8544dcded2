//! A model's configuration and weights, from a folder or from a GGUF file.

use std::path::Path;

use serde_json::Value;

use switchable_lora::precision_plan::PrecisionPlan;

use super::tensors::{WeightSet, check_not_beside_packed};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::folder_names::PACKED_FILE;
use crate::gguf::special_tokens::token_ids;
use crate::gguf::{GgufFamily, GgufFile, is_gguf};
use crate::packed::folder::PackedFolder;

/// Configuration and weights of a Hugging Face folder or of a GGUF file.
pub(crate) fn open_model<C: ModelConfig>(path: &Path) -> Result<(C, WeightSet)> {
    if is_gguf(path) {
        return of_gguf(GgufFile::open(path)?);
    }
    // Before the configuration, which is that of the codes.
    check_not_beside_packed(path)?;
    let config = C::load(path.join("config.json"))?;
    Ok((config, WeightSet::open::<C>(path)?))
}

/// The configuration of a folder or of a GGUF file, and of packed weights the plan that they were packed by: no weight is
/// looked at.
///
/// # Errors
///
/// When it cannot be read, or is none of this family.
pub fn read_config<C: ModelConfig>(path: &Path) -> Result<(C, Option<PrecisionPlan>)> {
    if is_gguf(path) {
        return Ok((config_of_gguf(&GgufFile::open(path)?)?, None));
    }
    if path.join(PACKED_FILE).is_file() {
        let folder = PackedFolder::open(path)?;
        let plan = folder.plan()?;
        return Ok((folder.into_config(), Some(plan)));
    }
    Ok((C::load(path.join("config.json"))?, None))
}

/// Configuration and weights of a GGUF file.
pub(crate) fn of_gguf<C: ModelConfig>(file: GgufFile) -> Result<(C, WeightSet)> {
    let config = config_of_gguf(&file)?;
    let family = family_of::<C>(&file)?;
    let weights = WeightSet::of_gguf(file, family, &config)?;
    Ok((config, weights))
}

fn config_of_gguf<C: ModelConfig>(file: &GgufFile) -> Result<C> {
    let family = family_of::<C>(file)?;
    if file.has("split.count") && file.whole("split.count")? != Some(1) {
        return Err(file.refused("split.count", "1: `llama-gguf-split --merge` makes one file of several"));
    }
    let mut fields = (family.fields)(file)?;
    fields.insert("model_type".to_owned(), C::MODEL_TYPE.into());
    fields.extend(token_ids(file)?);
    C::from_json(&Value::Object(fields), file.path())
}

/// The family's reading, for a file of its architecture.
fn family_of<C: ModelConfig>(file: &GgufFile) -> Result<&'static GgufFamily<C>> {
    let got = file.architecture()?;
    match C::GGUF {
        Some(family) if family.architecture == got => Ok(family),
        Some(family) => Err(file.refused_architecture(&format!("{:?}", family.architecture))),
        None => Err(file.refused_architecture(&format!("a folder: no GGUF is read as a {}", C::MODEL_TYPE))),
    }
}
