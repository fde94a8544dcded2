//! Causal self-attention.
//!
//! ```text
//! Q, K, V = split(x·W_attn + b_attn),   A = softmax(Q·K̂ᵀ/√w + M)·V̂,   y = A·W_proj + b_proj
//! ```
//!
//! `w` is the width of a head; `M` is −∞ where a key stands behind its query or is padding; `K̂` and
//! `V̂` are keys and values as they are kept (`switchable_model::kv_rounding`), at full precision `K` and `V` themselves.
//! Source: Radford et al., *Language Models are Unsupervised Multitask Learners* (GPT-2), 2019.

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};

use quant_kernels::{
    backends::{head_split::HeadSplit, quant_backend::QuantBackend},
    tensor::attention::causal_attention,
};
use switchable_lora::switchable_linear::SwitchableLinear;
use switchable_model::attention_mask::{AttentionMask, masked_attention};
use switchable_model::kv_rounding::quantize_keys_and_values;
use switchable_model::pass::BlockPass;

use crate::names::{ATTN_C_ATTN, ATTN_C_PROJ};

/// Self-attention of one block.
#[derive(Module, Debug)]
pub struct CausalSelfAttention<B: Backend> {
    /// Query, key and value projection, `[d, 3d]`.
    pub c_attn: SwitchableLinear<B>,
    /// Output projection, `[d, d]`.
    pub c_proj: SwitchableLinear<B>,
    n_head: usize,
    score_scale: f64,
}

impl<B: QuantBackend> CausalSelfAttention<B> {
    pub(crate) fn new(
        c_attn: SwitchableLinear<B>,
        c_proj: SwitchableLinear<B>,
        n_head: usize,
        score_scale: f64,
    ) -> Self {
        Self { c_attn, c_proj, n_head, score_scale }
    }

    /// # Shapes
    ///
    /// `x`: `[batch, tokens, d]`, the same out.
    pub(crate) fn forward(&self, x: Tensor<B, 3>, pass: &mut BlockPass<'_, B>) -> Tensor<B, 3> {
        let qkv = pass.linear(ATTN_C_ATTN, &self.c_attn, x);
        let split = HeadSplit { heads: self.n_head, scale: self.score_scale };
        let context = if let Some(cache) = pass.cache() {
            cache.attend(split.split(qkv), self.score_scale)
        } else {
            let qkv = quantize_keys_and_values(qkv, self.n_head, pass.kv_cache_bits());
            match pass.mask() {
                AttentionMask::Causal => causal_attention(qkv, split),
                AttentionMask::Hidden(hidden) => {
                    HeadSplit::join(masked_attention(split.split(qkv), hidden, self.score_scale))
                }
            }
        };
        pass.linear(ATTN_C_PROJ, &self.c_proj, context)
    }
}

#[cfg(test)]
mod tests;
