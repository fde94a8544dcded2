//! The golden files.

#![expect(clippy::missing_panics_doc, reason = "reading a golden file panics where it is not as the test expects")]

use std::path::{Path, PathBuf};

use burn::tensor::{Bool, Int, Tensor, TensorData, backend::Backend};
use safetensors::{Dtype, SafeTensors};

/// Path of a golden folder or file of the crate whose tests run.
pub fn golden(name: impl AsRef<Path>) -> PathBuf {
    // Cargo says where that crate is, and runs its tests there.
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, PathBuf::from);
    folder.join("tests/golden").join(name)
}

/// The tensors that `expected.safetensors` of a case holds.
///
/// What reads them panics where the file or a tensor is not as the test expects.
#[derive(Debug)]
pub struct Fixture {
    case: &'static str,
    bytes: Vec<u8>,
}

impl Fixture {
    /// Reads the expected values of a case.
    pub fn open(case: &'static str) -> Self {
        let path = golden(case).join("expected.safetensors");
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { case, bytes }
    }

    fn parsed(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap_or_else(|e| panic!("{}: {e}", self.case))
    }

    /// Names of all tensors that start with a prefix, the prefix cut off, sorted.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let parsed = self.parsed();
        let mut names: Vec<String> =
            parsed.names().into_iter().filter_map(|name| name.strip_prefix(prefix)).map(String::from).collect();
        names.sort();
        names
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.parsed().tensor(name).unwrap_or_else(|e| panic!("{}: {name}: {e}", self.case)).shape().to_vec()
    }

    /// Values of a float tensor.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        let bytes = self.bytes_of(name, Dtype::F32);
        bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    /// Value of a tensor of one element.
    pub fn scalar(&self, name: &str) -> f32 {
        let values = self.floats(name);
        assert_eq!(values.len(), 1, "{}: {name} is not a scalar", self.case);
        values[0]
    }

    /// Values of an integer tensor.
    pub fn integers(&self, name: &str) -> Vec<i64> {
        let bytes = self.bytes_of(name, Dtype::I64);
        bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
    }

    /// Token ids of one row.
    pub fn tokens(&self, name: &str) -> Vec<u32> {
        self.integers(name).into_iter().map(|id| u32::try_from(id).expect("a token id")).collect()
    }

    /// A batch of token ids or an attention mask.
    pub fn batch<B: Backend>(&self, name: &str) -> Tensor<B, 2, Int> {
        Tensor::from_data(TensorData::new(self.integers(name), self.shape(name)), &B::Device::default())
    }

    /// One integer per row.
    pub fn positions<B: Backend>(&self, name: &str) -> Tensor<B, 1, Int> {
        Tensor::from_data(TensorData::new(self.integers(name), self.shape(name)), &B::Device::default())
    }

    /// An attention mask as padding: true where the mask is 0.
    pub fn padding<B: Backend>(&self, mask: &str) -> Tensor<B, 2, Bool> {
        self.batch::<B>(mask).equal_elem(0)
    }

    /// Those rows of `values` that belong to real tokens by a mask; `width` values belong to each.
    pub fn real_rows(&self, mask: &str, values: &[f32], width: usize) -> Vec<f32> {
        let mask = self.integers(mask);
        assert_eq!(values.len(), mask.len() * width, "{}: rows of other tokens", self.case);
        values.chunks(width).zip(mask).filter(|(_, real)| *real == 1).flat_map(|(row, _)| row.to_vec()).collect()
    }

    fn bytes_of(&self, name: &str, dtype: Dtype) -> Vec<u8> {
        let parsed = self.parsed();
        let view = parsed.tensor(name).unwrap_or_else(|e| panic!("{}: {name}: {e}", self.case));
        assert_eq!(view.dtype(), dtype, "{}: {name}", self.case);
        view.data().to_vec()
    }
}
