//! Writing a Hugging Face folder: its files whole, and both or neither.

use std::io;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// A named f32 tensor: name, shape, values in row-major order.
pub(crate) type NamedValues = (String, Vec<usize>, Vec<f32>);

/// Writes `model.safetensors` and `config.json` into a folder, which is made if it is not there.
///
/// Both are written to temporary files first and then renamed, so that a full disk or a kill
/// leaves what was there before.
pub(crate) fn write_folder(dir: &Path, tensors: &[NamedValues], config: &Value) -> Result<()> {
    let paths = ["model.safetensors", "config.json"].map(|name| dir.join(name));
    // The second rename would fail after the first.
    if let Some(path) = paths.iter().find(|path| path.is_dir()) {
        return Err(Error::io(path, io::ErrorKind::IsADirectory.into()));
    }
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let weights = stage(dir, &paths[0], |path| write_tensors(path, tensors))?;
    let config = stage(dir, &paths[1], |path| std::fs::write(path, format!("{config:#}\n")))?;
    for (file, path) in [weights, config].into_iter().zip(paths) {
        file.persist(&path).map_err(|e| Error::io(path, e.error))?;
    }
    Ok(())
}

/// Writes a text file, whole or not at all.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let file = stage(dir, path, |staged| std::fs::write(staged, text))?;
    file.persist(path).map_err(|e| Error::io(path, e.error))?;
    Ok(())
}

/// Fills a temporary file in `dir`; errors name `target`, the file it will become.
fn stage(dir: &Path, target: &Path, fill: impl FnOnce(&Path) -> io::Result<()>) -> Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // As any other file, less the umask: temporary files are the owner's alone by default.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(dir).map_err(|e| Error::io(dir, e))?;
    fill(file.path()).and_then(|()| file.as_file().sync_all()).map_err(|e| Error::io(target, e))?;
    Ok(file)
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
