//! Causal self-attention.
//!
//! ```text
//! Q, K, V = split(x·W_attn + b_attn),   A = softmax(Q·Kᵀ/√w + M)·V,   y = A·W_proj + b_proj
//! ```
//!
//! `w` is the width of a head; `M` is −∞ where a key stands behind its query or is padding.
//! Source: Radford et al., *Language Models are Unsupervised Multitask Learners* (GPT-2), 2019.

use burn::module::Module;
use burn::tensor::{Bool, Tensor, activation, backend::Backend, module::attention, ops::AttentionModuleOptions};
use quant_kernels::QuantBackend;
use switchable_lora::{SitePrecision, SwitchableLinear};

use crate::kv_cache::LayerCache;

/// Which keys a query may see.
#[derive(Debug, Clone)]
pub(crate) struct AttentionMask<B: Backend> {
    /// True where hidden, `[batch or 1, 1, queries, keys]`.
    hidden: Option<Tensor<B, 4, Bool>>,
    /// Whether `hidden` leaves the causal part to the attention kernel.
    causal_by_kernel: bool,
}

impl<B: QuantBackend> AttentionMask<B> {
    /// Causal, no padding: the last query sees all keys.
    pub(crate) fn causal(queries: usize, keys: usize, device: &B::Device) -> Self {
        if B::ad_enabled(device) {
            let hidden = Self::future(queries, keys, device).unsqueeze::<4>();
            Self { hidden: Some(hidden), causal_by_kernel: false }
        } else {
            Self { hidden: None, causal_by_kernel: true }
        }
    }

    /// Causal, and the keys marked in `padding` hidden.
    ///
    /// # Shapes
    ///
    /// `padding`: `[batch, tokens]`, true at padding.
    pub(crate) fn causal_with_padding(padding: &Tensor<B, 2, Bool>) -> Self {
        let [batch, tokens] = padding.dims();
        let device = padding.device();
        let future = Self::future(tokens, tokens, &device).unsqueeze::<4>().expand([batch, 1, tokens, tokens]);
        let padded = padding.clone().reshape([batch, 1, 1, tokens]).expand([batch, 1, tokens, tokens]);
        Self { hidden: Some(future.bool_or(padded)), causal_by_kernel: false }
    }

    fn future(queries: usize, keys: usize, device: &B::Device) -> Tensor<B, 2, Bool> {
        // `tril_mask` is true strictly above the diagonal.
        Tensor::<B, 2, Bool>::tril_mask([queries, keys], (keys - queries) as i64, device)
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
        mask: &AttentionMask<B>,
        cache: Option<(&mut LayerCache<B>, usize)>,
    ) -> Tensor<B, 3> {
        let [batch, tokens, d] = x.dims();
        let width = d / self.n_head;
        let qkv = self.c_attn.forward(x, c_attn).reshape([batch, tokens, 3 * self.n_head, width]);
        let head = |part: usize| {
            let heads = part * self.n_head..(part + 1) * self.n_head;
            qkv.clone().slice([0..batch, 0..tokens, heads, 0..width]).swap_dims(1, 2)
        };
        let (q, mut k, mut v) = (head(0), head(1), head(2));
        if let Some((layer, len)) = cache {
            (k, v) = layer.append(len, k, v);
        }
        let context = self.attend(q, k, v, mask).swap_dims(1, 2).reshape([batch, tokens, d]);
        self.c_proj.forward(context, c_proj)
    }

    fn attend(&self, q: Tensor<B, 4>, k: Tensor<B, 4>, v: Tensor<B, 4>, mask: &AttentionMask<B>) -> Tensor<B, 4> {
        if B::ad_enabled(&q.device()) {
            let scores = (q * self.score_scale).matmul(k.transpose());
            let scores = match &mask.hidden {
                Some(hidden) => scores.mask_fill(hidden.clone(), f32::MIN),
                None => scores,
            };
            activation::softmax(scores, 3).matmul(v)
        } else {
            let options = AttentionModuleOptions {
                scale: Some(self.score_scale),
                is_causal: mask.causal_by_kernel,
                ..Default::default()
            };
            attention(q, k, v, mask.hidden.clone(), None, options)
        }
    }
}
