//! The quantisation of keys and values.
//!
//! ```text
//! k̂ = s_k · clamp(⌊k / s_k⌉, −L, L),   s_k = max |k| / L,   L = 2^(b−1) − 1       v̂ likewise
//! ```
//!
//! `k` and `v` are one token's key and value in one head: each such row of `w` numbers has its own
//! scale, symmetric and min-max, so a token is quantised once, when it is read, and never again.
//! KIVI (Liu et al., arXiv:2402.02750) has a scale per channel of the keys and per token of the
//! values; scales per channel span many tokens and need a window of the latest ones in full precision
//! until their group is complete. Scales per token and head need no such window.
//!
//! Every forward pass, with a cache or without, in training or not, attends to `k̂` and `v̂`. The
//! gradient passes straight through the rounding.

use burn::tensor::Tensor;

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    spec::{bit_width::BitWidth, gradient_rule::GradientRule, quant_spec::QuantSpec},
    tensor::fake_quantize::fake_quantize,
};

/// How keys and values are quantised: every token and head has its own scale.
pub const KV_CACHE_SPEC: QuantSpec = QuantSpec::PER_TOKEN;

/// Keys and values are `[batch, heads, tokens, width]`.
const KV_CACHE_RANK: usize = 4;

const F32_BYTES: usize = 4;

/// Checks that keys and values can be kept at `bits`.
pub(crate) fn check_bits(bits: BitWidth) -> quant_kernels::Result<()> {
    KV_CACHE_SPEC.check(bits, KV_CACHE_RANK)
}

/// Bytes of one token's key or value in one head, packed, with its scale.
pub(crate) fn packed_row_bytes(width: usize, bits: BitWidth) -> usize {
    let scale = if bits.is_full() { 0 } else { F32_BYTES };
    (width * usize::from(bits.bits())).div_ceil(8) + scale
}

/// Keys or values rounded to `bits`, one scale for each token and head.
///
/// # Shapes
///
/// `rows`: `[batch, tokens, heads · width]`, the same out.
///
/// # Panics
///
/// When [`KV_CACHE_SPEC`] cannot do `bits`.
pub fn quantize_heads<B: QuantBackend>(rows: Tensor<B, 3>, heads: usize, bits: BitWidth) -> Tensor<B, 3> {
    if bits.is_full() {
        return rows;
    }
    let [batch, tokens, d] = rows.dims();
    let rows = rows.reshape([batch, tokens, heads, d / heads]);
    match fake_quantize(rows, bits, &KV_CACHE_SPEC, GradientRule::Identity) {
        Ok(rows) => rows.reshape([batch, tokens, d]),
        Err(error) => panic!("kv cache: {error}"),
    }
}

/// Queries, keys and values side by side, of which keys and values are rounded to `bits`.
///
/// # Shapes
///
/// `qkv`: `[batch, tokens, 3d]`, the same out.
///
/// # Panics
///
/// When [`KV_CACHE_SPEC`] cannot do `bits`.
pub fn quantize_keys_and_values<B: QuantBackend>(qkv: Tensor<B, 3>, heads: usize, bits: BitWidth) -> Tensor<B, 3> {
    if bits.is_full() {
        return qkv;
    }
    let [_, _, packed] = qkv.dims();
    let d = packed / 3;
    let rows = quantize_heads(qkv.clone().narrow(2, d, 2 * d), 2 * heads, bits);
    Tensor::cat(vec![qkv.narrow(2, 0, d), rows], 2)
}

#[cfg(test)]
mod tests;
