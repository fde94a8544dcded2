//! Modules that an adapter replaces as a whole, such as the head of a task.

use burn::tensor::TensorData;

use crate::error::{Error, Result};

/// A linear layer that PEFT trained beside an adapter (`modules_to_save`) and keeps in its file.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedModule {
    /// The module's name, such as `qa_outputs`.
    pub name: String,
    /// Its weight in f32, as torch's `Linear` has it: `[d_out, d_in]`.
    pub weight: TensorData,
    /// Its bias in f32, `[d_out]`.
    pub bias: TensorData,
}

impl SavedModule {
    /// Refuses a module of another size.
    ///
    /// # Errors
    ///
    /// [`Error::TensorShape`], which names the tensor.
    pub fn check_shape(&self, [d_out, d_in]: [usize; 2]) -> Result<()> {
        for (part, tensor, expected) in [("weight", &self.weight, &[d_out, d_in][..]), ("bias", &self.bias, &[d_out])] {
            if tensor.shape[..] != *expected {
                return Err(Error::TensorShape {
                    tensor: format!("{}.{part}", self.name),
                    got: tensor.shape.to_vec(),
                    expected: format!("{expected:?}"),
                });
            }
        }
        Ok(())
    }
}
