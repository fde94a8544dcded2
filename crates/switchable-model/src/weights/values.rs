//! Where a model's numbers come from while it is built.

use burn::tensor::TensorData;

use switchable_lora::packed_weights::PackedWeights;

use crate::error::Result;

/// A source of tensors by Hugging Face name and shape.
pub(crate) trait Values {
    /// Whether a tensor is there, in floats or packed. Sources that draw values have any.
    fn contains(&self, _name: &str) -> bool {
        true
    }

    /// Whether an output matrix that is not the embedding is one of its own whatever the configuration
    /// says, as in files that others wrote.
    fn says_itself_what_is_tied(&self) -> bool {
        false
    }

    /// A tensor in floats.
    fn data(&mut self, name: &str, shape: &[usize]) -> Result<TensorData>;

    /// A weight that is only there packed; `None` if it is there in floats.
    fn packed(&mut self, _name: &str, _shape: [usize; 2]) -> Result<Option<PackedWeights>> {
        Ok(None)
    }
}

impl<F: FnMut(&str, &[usize]) -> Result<TensorData>> Values for F {
    fn data(&mut self, name: &str, shape: &[usize]) -> Result<TensorData> {
        self(name, shape)
    }
}
