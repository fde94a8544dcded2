//! One transformer block.
//!
//! ```text
//! x ← x + attention(norm₁(x)),   x ← x + mlp(norm₂(x)),     norm(x) = γ ⊙ x / √(mean(x²) + ε)
//! ```
//!
//! Source of the normalisation: Zhang and Sennrich, *Root Mean Square Layer Normalization*,
//! arXiv:1910.07467.

use burn::module::Module;
use burn::nn::RmsNorm;
use burn::tensor::{Tensor, backend::Backend};

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_model::pass::BlockPass;

use crate::attention::GroupedQueryAttention;
use crate::mlp::Mlp;

/// A block of a Llama: normalisation before each of attention and MLP, residual around each.
#[derive(Module, Debug)]
pub struct Block<B: Backend> {
    /// Normalisation before attention.
    pub input_layernorm: RmsNorm<B>,
    /// Self-attention.
    pub self_attn: GroupedQueryAttention<B>,
    /// Normalisation before the MLP.
    pub post_attention_layernorm: RmsNorm<B>,
    /// The MLP.
    pub mlp: Mlp<B>,
}

impl<B: QuantBackend> Block<B> {
    /// # Shapes
    ///
    /// `x`: `[batch, tokens, hidden]`, the same out.
    pub(crate) fn forward(&self, x: Tensor<B, 3>, pass: &mut BlockPass<'_, B>) -> Tensor<B, 3> {
        let attended = self.self_attn.forward(self.input_layernorm.forward(x.clone()), pass);
        let x = x + attended;
        let inner = self.mlp.forward(self.post_attention_layernorm.forward(x.clone()), pass);
        x + inner
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::backend::flex::FlexDevice;
    use burn::module::Param;
    use burn::nn::RmsNormConfig;

    use super::*;

    #[test]
    fn normalisation_divides_by_the_root_of_the_mean_square_and_multiplies_by_the_gain() {
        let mut norm = RmsNormConfig::new(3).with_epsilon(0.25).init::<Flex>(&FlexDevice);
        norm.gamma = Param::from_tensor(Tensor::from_floats([1.0, -2.0, 0.5], &FlexDevice));
        let x = Tensor::<Flex, 2>::from_floats([[3.0, 0.0, -4.0], [0.0, 0.0, 0.0]], &FlexDevice);
        let got: Vec<f32> = norm.forward(x).into_data().to_vec().expect("floats");
        // The mean of 9, 0 and 16 is 25/3; nothing is subtracted.
        let root = (25.0_f32 / 3.0 + 0.25).sqrt();
        let expected = [3.0 / root, 0.0, -2.0 / root, 0.0, 0.0, 0.0];
        assert!(got.iter().zip(expected).all(|(got, want)| (got - want).abs() < 1e-6), "{got:?}");
    }
}
