//! Grouped-query self-attention with rotary positions.
//!
//! ```text
//! Q = R·(x·W_q + b_q),   K = R·(x·W_k + b_k),   V = x·W_v + b_v
//! head i:  Aᵢ = softmax(Qᵢ·K̂ⱼᵀ/√w + M)·V̂ⱼ,   j = ⌊i·g/h⌋          y = [A₀ … A₍ₕ₋₁₎]·W_o + b_o
//! ```
//!
//! `R` turns each head by the position of its token ([`rotary`](crate::rotary)), `w` is the width of a
//! head, `h` the number of query heads, `g` that of key and value heads, each of which serves `h/g` query
//! heads. `M` is −∞ where a key stands behind its query or is padding; `K̂` and `V̂` are keys and values
//! as they are kept, keys after they were turned. The biases are there where the configuration's
//! `attention_bias` says so. Source: Ainslie et al., *GQA*, arXiv:2305.13245.

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};

use quant_kernels::{
    backends::{
        head_split::{HeadSplit, repeat_heads},
        quant_backend::QuantBackend,
    },
    tensor::attention::causal_attention,
};
use switchable_lora::switchable_linear::SwitchableLinear;
use switchable_model::attention_mask::{AttentionMask, masked_attention};
use switchable_model::kv_rounding::quantize_heads;
use switchable_model::pass::BlockPass;

use crate::rotary::turn;
use crate::sub_modules::{K_PROJ, O_PROJ, Q_PROJ, V_PROJ};

/// The self-attention of one block.
#[derive(Module, Debug)]
pub struct GroupedQueryAttention<B: Backend> {
    /// Query projection, `[hidden, heads · w]`.
    pub q_proj: SwitchableLinear<B>,
    /// Key projection, `[hidden, kv_heads · w]`.
    pub k_proj: SwitchableLinear<B>,
    /// Value projection, `[hidden, kv_heads · w]`.
    pub v_proj: SwitchableLinear<B>,
    /// Output projection, `[heads · w, hidden]`.
    pub o_proj: SwitchableLinear<B>,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
}

impl<B: QuantBackend> GroupedQueryAttention<B> {
    /// # Shapes
    ///
    /// `x`: `[batch, tokens, hidden]`, the same out.
    pub(crate) fn forward(&self, x: Tensor<B, 3>, pass: &mut BlockPass<'_, B>) -> Tensor<B, 3> {
        let q = pass.linear(Q_PROJ, &self.q_proj, x.clone());
        let k = pass.linear(K_PROJ, &self.k_proj, x.clone());
        let v = pass.linear(V_PROJ, &self.v_proj, x);
        let rotation = pass.position_terms().expect("a llama gives its blocks the rotations of the tokens");
        let (q, k) = (turn(q, self.heads, rotation), turn(k, self.kv_heads, rotation));
        let context = self.attend([q, k, v], pass);
        pass.linear(O_PROJ, &self.o_proj, context)
    }

    /// # Shapes
    ///
    /// `q`: `[batch, tokens, heads · w]`; `k`, `v`: `[batch, tokens, kv_heads · w]`; as `q` out.
    fn attend(&self, [q, k, v]: [Tensor<B, 3>; 3], pass: &mut BlockPass<'_, B>) -> Tensor<B, 3> {
        let [_, _, width] = q.dims();
        let split = HeadSplit { heads: self.heads, scale: 1.0 / ((width / self.heads) as f64).sqrt() };
        let sharing = self.heads / self.kv_heads;
        if let Some(cache) = pass.cache() {
            let [k, v] = [k, v].map(|rows| heads_first(rows, self.kv_heads));
            return cache.attend([heads_first(q, self.heads), k, v], split.scale);
        }
        let [k, v] = [k, v].map(|rows| {
            let rows = quantize_heads(rows, self.kv_heads, pass.kv_cache_bits());
            let [batch, tokens, _] = rows.dims();
            let heads = rows.reshape([batch * tokens, self.kv_heads, 1, width / self.heads]);
            repeat_heads(heads, sharing).reshape([batch, tokens, width])
        });
        let qkv = Tensor::cat(vec![q, k, v], 2);
        match pass.mask() {
            AttentionMask::Causal => causal_attention(qkv, split),
            AttentionMask::Hidden(hidden) => HeadSplit::join(masked_attention(split.split(qkv), hidden, split.scale)),
        }
    }
}

/// `[batch, tokens, heads · w]` to `[batch, heads, tokens, w]`.
fn heads_first<B: Backend>(x: Tensor<B, 3>, heads: usize) -> Tensor<B, 4> {
    let [batch, tokens, width] = x.dims();
    x.reshape([batch, tokens, heads, width / heads]).swap_dims(1, 2)
}
