//! Causal self-attention.
//!
//! ```text
//! Q, K, V = split(x·W_attn + b_attn),   A = softmax(Q·K̂ᵀ/√w + M)·V̂,   y = A·W_proj + b_proj
//! ```
//!
//! `w` is the width of a head; `M` is −∞ where a key stands behind its query or is padding; `K̂` and
//! `V̂` are keys and values as they are kept (`kv_cache`), at full precision `K` and `V` themselves.
//! Source: Radford et al., *Language Models are Unsupervised Multitask Learners* (GPT-2), 2019.

use burn::module::Module;
use burn::tensor::{Bool, Tensor, activation, backend::Backend, module::attention, ops::AttentionModuleOptions};
use quant_kernels::{BitWidth, HeadSplit, QuantBackend, cached_attention, causal_attention};
use switchable_lora::{SitePrecision, SwitchableLinear};

use crate::kv_cache::{LayerCache, quantize_keys_and_values};

/// Which keys a query may see.
#[derive(Debug, Clone)]
pub(crate) enum AttentionMask<B: Backend> {
    /// Its own and all older ones.
    Causal,
    /// Not those marked here, `[batch, 1, queries, keys]`.
    Hidden(Tensor<B, 4, Bool>),
}

impl<B: Backend> AttentionMask<B> {
    /// Causal, and the keys marked in `padding` hidden.
    ///
    /// # Shapes
    ///
    /// `padding`: `[batch, tokens]`, true at padding.
    pub(crate) fn causal_with_padding(padding: &Tensor<B, 2, Bool>) -> Self {
        let [batch, tokens] = padding.dims();
        // `tril_mask` is true strictly above the diagonal.
        let future = Tensor::<B, 2, Bool>::tril_mask([tokens, tokens], 0, &padding.device());
        let future = future.unsqueeze::<4>().expand([batch, 1, tokens, tokens]);
        let padded = padding.clone().reshape([batch, 1, 1, tokens]).expand([batch, 1, tokens, tokens]);
        Self::Hidden(future.bool_or(padded))
    }
}

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
    pub(crate) fn forward(
        &self,
        x: Tensor<B, 3>,
        [c_attn, c_proj]: [&SitePrecision; 2],
        kv_cache: BitWidth,
        mask: &AttentionMask<B>,
        cache: Option<(&mut LayerCache<B>, usize)>,
    ) -> Tensor<B, 3> {
        let qkv = quantize_keys_and_values(self.c_attn.forward(x, c_attn), self.n_head, kv_cache);
        let split = HeadSplit { heads: self.n_head, scale: self.score_scale };
        let context = match (cache, mask) {
            (None, AttentionMask::Causal) => causal_attention(qkv, split),
            (Some((layer, len)), _) => {
                let [q, k, v] = split.split(qkv);
                let (k, v) = layer.append(len, k, v);
                cached_attention(q, k, v, self.score_scale)
            }
            (None, AttentionMask::Hidden(hidden)) => HeadSplit::join(self.attend(split.split(qkv), hidden)),
        };
        self.c_proj.forward(context, c_proj)
    }

    fn attend(&self, [q, k, v]: [Tensor<B, 4>; 3], hidden: &Tensor<B, 4, Bool>) -> Tensor<B, 4> {
        if B::ad_enabled(&q.device()) {
            let scores = (q * self.score_scale).matmul(k.transpose()).mask_fill(hidden.clone(), f32::MIN);
            activation::softmax(scores, 3).matmul(v)
        } else {
            let options = AttentionModuleOptions { scale: Some(self.score_scale), ..Default::default() };
            attention(q, k, v, Some(hidden.clone()), None, options)
        }
    }
}
