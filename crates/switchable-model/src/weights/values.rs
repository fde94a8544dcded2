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

    /// Whether the output matrix stands there beside a token embedding that it is said to be tied to, and
    /// may hold other numbers.
    fn contradicts_tie(&self, _name: &str) -> bool {
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
