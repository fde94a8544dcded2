//! Token ids as a model takes them.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

/// Token ids of one sequence as a batch of one.
///
/// # Shapes
///
/// `[1, ids]`.
pub fn batch_of_one<B: Backend>(ids: &[u32]) -> Tensor<B, 2, Int> {
    let values: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    Tensor::from_data(TensorData::new(values, [1, ids.len()]), &B::Device::default())
}
