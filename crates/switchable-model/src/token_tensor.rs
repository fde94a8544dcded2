//! Token ids as a tensor.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

/// Sequences of one length, row by row.
///
/// # Shapes
///
/// `ids`: `rows · tokens` ids; `[rows, tokens]` out.
///
/// # Panics
///
/// When there are not as many ids as rows and tokens say.
pub fn token_tensor<B: Backend>(ids: &[u32], rows_and_tokens: [usize; 2], device: &B::Device) -> Tensor<B, 2, Int> {
    let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    Tensor::from_data(TensorData::new(ids, rows_and_tokens), device)
}
