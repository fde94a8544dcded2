//! Floats as safetensors files hold them.

use burn::tensor::{bf16, f16};
use safetensors::{Dtype, tensor::TensorView};

/// The values of a tensor of f32, f16 or bf16; `None` of another type.
pub(super) fn read_floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    let (pairs, fours) = (bytes.as_chunks::<2>().0, bytes.as_chunks::<4>().0);
    match view.dtype() {
        Dtype::F32 => Some(fours.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()),
        Dtype::F16 => Some(pairs.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect()),
        Dtype::BF16 => Some(pairs.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect()),
        _ => None,
    }
}
