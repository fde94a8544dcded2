//! Copies of golden folders, to be damaged.

#![expect(clippy::missing_panics_doc, reason = "a folder panics where the file system is not as the test expects")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::golden;

/// A tensor of a safetensors file, taken out of it.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    /// Type of its elements.
    pub dtype: Dtype,
    /// Length of each dimension.
    pub shape: Vec<usize>,
    /// Its elements, little-endian, in row-major order.
    pub bytes: Vec<u8>,
}

/// A folder that is removed at the end of the test.
///
/// Everything panics where the file system, or what a file holds, is not as the test expects.
#[derive(Debug)]
pub struct Folder {
    dir: TempDir,
}

impl Folder {
    /// An empty folder.
    pub fn empty() -> Self {
        Self { dir: TempDir::new().expect("a temporary folder") }
    }

    /// A copy of the files of a golden folder, its expected values left out.
    pub fn copy_of(case: &str) -> Self {
        let folder = Self::empty();
        for entry in std::fs::read_dir(golden(case)).expect("a golden folder") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("its type").is_file() && entry.file_name() != "expected.safetensors" {
                // Written, not copied: the copy may be changed whatever the original's mode.
                std::fs::write(folder.join(entry.file_name()), std::fs::read(entry.path()).expect("its bytes"))
                    .expect("a copy");
            }
        }
        folder
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Path of a file in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// The bytes of a file.
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Writes a file.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.join(name), bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    /// Names of the files and folders in it, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).expect("the folder");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Changes a JSON file.
    pub fn edit_json(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&self.read(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        edit(&mut value);
        self.write(name, value.to_string());
    }

    /// Changes the tensors of a safetensors file.
    pub fn edit_tensors(&self, name: &str, edit: impl FnOnce(&mut BTreeMap<String, StoredTensor>)) {
        let bytes = self.read(name);
        let parsed = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut tensors = parsed
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                let stored =
                    StoredTensor { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() };
                (name, stored)
            })
            .collect();
        edit(&mut tensors);
        self.write_tensors(name, &tensors);
    }

    /// Writes a safetensors file.
    pub fn write_tensors(&self, name: &str, tensors: &BTreeMap<String, StoredTensor>) {
        let views = tensors.iter().map(|(tensor, stored)| {
            let view = TensorView::new(stored.dtype, stored.shape.clone(), &stored.bytes);
            (tensor, view.unwrap_or_else(|e| panic!("{name}: {tensor}: {e}")))
        });
        self.write(name, safetensors::serialize(views, None).expect("tensors serialise"));
    }
}
