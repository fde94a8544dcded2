//! The activation between the two matrices of the MLP.
//!
//! ```text
//! gelu_new(x) = x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))
//!             = x · σ(2·√(2/π)·(x + 0.044715·x³))
//! gelu(x)     = x/2 · (1 + erf(x/√2))
//! ```
//!
//! The second form of `gelu_new` is the one computed: one sigmoid with its own backward pass costs
//! less than a tanh. Source: Hendrycks and Gimpel, *Gaussian Error Linear Units*, arXiv:1606.08415.

use burn::tensor::{Tensor, activation, backend::Backend};
use serde::{Deserialize, Serialize};

/// Activation function, under the name `config.json` gives it in `activation_function`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// GELU by its tanh approximation: that of the published GPT-2.
    #[default]
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
    /// GELU by the error function.
    Gelu,
    /// `max(0, x)`.
    Relu,
    /// `x · σ(x)`.
    #[serde(alias = "swish")]
    Silu,
}

impl Activation {
    /// Names accepted in `config.json`.
    pub(crate) const NAMES: &'static str = "gelu_new, gelu_pytorch_tanh, gelu, relu, silu or swish";

    /// Applies the function to each element.
    ///
    /// # Shapes
    ///
    /// `[..]` in, the same shape out.
    pub fn forward<B: Backend, const D: usize>(self, x: Tensor<B, D>) -> Tensor<B, D> {
        match self {
            Self::GeluNew => {
                let scale = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
                let cube = x.clone() * x.clone() * x.clone();
                let inner = (cube * 0.044_715 + x.clone()) * scale;
                x * activation::sigmoid(inner)
            }
            Self::Gelu => activation::gelu(x),
            Self::Relu => activation::relu(x),
            Self::Silu => activation::silu(x),
        }
    }
}
