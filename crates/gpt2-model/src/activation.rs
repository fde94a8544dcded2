//! The activation between the two matrices of the MLP.
//!
//! ```text
//! gelu_new(x) = x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))
//!             = x · σ(2·√(2/π)·(x + 0.044715·x³))
//! gelu(x)     = x/2 · (1 + erf(x/√2))
//! ```
//!
//! Source: Hendrycks and Gimpel, *Gaussian Error Linear Units*, arXiv:1606.08415.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

use quant_kernels::{backends::quant_backend::QuantBackend, tensor::gelu::gelu_tanh};

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
    pub fn forward<B: QuantBackend, const D: usize>(self, x: Tensor<B, D>) -> Tensor<B, D> {
        match self {
            Self::GeluNew => gelu_tanh(x),
            Self::Gelu => activation::gelu(x),
            Self::Relu => activation::relu(x),
            Self::Silu => activation::silu(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::NdArray;

    use test_support::skip_without_device;
    use test_support::test_device::{Plain, Training};

    use super::*;

    fn values<B: QuantBackend>(activation: Activation, x: [f32; 6]) -> Vec<f32> {
        let x = Tensor::<B, 1>::from_floats(x, &B::Device::default());
        activation.forward(x).into_data().into_vec().unwrap()
    }

    #[test]
    fn every_activation_follows_its_formula() {
        skip_without_device!();
        let x = [-3.0, -1.0, 0.0, 0.5, 2.0, 30.0];
        // The normal distribution function at these points, from tables.
        let phi = [0.001_349_898_0, 0.158_655_253_9, 0.5, 0.691_462_461_3, 0.977_249_868_1, 1.0];
        for (i, &at) in x.iter().enumerate() {
            let v = f64::from(at);
            let tanh = ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044_715 * v.powi(3))).tanh();
            let expected = [
                (Activation::GeluNew, v / 2.0 * (1.0 + tanh)),
                (Activation::Gelu, v * phi[i]),
                (Activation::Relu, v.max(0.0)),
                (Activation::Silu, v / (1.0 + (-v).exp())),
            ];
            for (activation, expected) in expected {
                let got = [
                    values::<Plain>(activation, x),
                    values::<Training>(activation, x),
                    values::<NdArray>(activation, x),
                ];
                for got in got.map(|values| values[i]) {
                    assert!(
                        (f64::from(got) - expected).abs() < 2e-6,
                        "{activation:?}({v}) is {got}, expected {expected}"
                    );
                }
            }
        }
    }
}
