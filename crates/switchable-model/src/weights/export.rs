//! Writing a Hugging Face folder: its files whole, and both or neither.

use std::io::{self, Write as _};
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use whole_files::{PartialFile, persist_all};

use crate::error::Result;

/// A named f32 tensor: name, shape, values in row-major order.
pub(crate) type NamedValues = (String, Vec<usize>, Vec<f32>);

/// Writes `model.safetensors` and `config.json` into a folder, which is made if it is not there.
///
/// Both are written to temporary files first and then renamed, so that a full disk or a kill
/// leaves what was there before.
pub(crate) fn write_folder(dir: &Path, tensors: &[NamedValues], config: &Value) -> Result<()> {
    let mut weights = PartialFile::create(dir.join("model.safetensors"))?;
    let mut config_file = PartialFile::create(dir.join("config.json"))?;
    let path = weights.temporary_path().to_owned();
    weights.fill(|_| write_tensors(&path, tensors))?;
    config_file.fill(|file| writeln!(file, "{config:#}"))?;
    Ok(persist_all([weights, config_file])?)
}

fn write_tensors(path: &Path, tensors: &[NamedValues]) -> io::Result<()> {
    let views = tensors
        .iter()
        .map(|(name, shape, values)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values));
            Ok((name.as_str(), view.map_err(io::Error::other)?))
        })
        .collect::<io::Result<Vec<_>>>()?;
    // `format` is what transformers looks for before it loads a file.
    let metadata = [("format".to_string(), "pt".to_string())].into();
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(e) => e,
        other => io::Error::other(other),
    })
}
