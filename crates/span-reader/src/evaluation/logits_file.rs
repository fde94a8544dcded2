//! Logits as a safetensors file, to be compared with another implementation's.

use std::path::Path;

use burn::tensor::Tensor;
use safetensors::tensor::{Dtype, TensorView};

use quant_kernels::backends::quant_backend::QuantBackend;

use crate::error::{Error, Result};

/// Writes one f32 tensor named `logits`.
///
/// # Shapes
///
/// `logits`: `[batch, tokens, vocab]`.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write_logits<B: QuantBackend>(path: impl AsRef<Path>, logits: &Tensor<B, 3>) -> Result<()> {
    let path = path.as_ref();
    let fault = |e: safetensors::SafeTensorError| Error::Tensors { path: path.into(), reason: e.to_string() };
    let shape = logits.dims().to_vec();
    let values = logits.to_data().convert::<f32>();
    let view = TensorView::new(Dtype::F32, shape, values.as_bytes()).map_err(fault)?;
    Ok(whole_files::write(path, &safetensors::serialize([("logits", view)], None).map_err(fault)?)?)
}
