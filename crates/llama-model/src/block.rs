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
use quant_kernels::QuantBackend;
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
