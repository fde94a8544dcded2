//! Keys and values of the tokens already read, kept for one-token steps, and their quantisation.
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

use burn::tensor::{Tensor, backend::Backend};
use quant_kernels::{BitWidth, GradientRule, QuantBackend, QuantSpec, fake_quantize};

use crate::{Gpt2Config, SitePlan};

/// How keys and values are quantised: every token and head has its own scale.
pub(crate) const KV_CACHE_SPEC: QuantSpec = QuantSpec::PER_TOKEN;

const F32_BYTES: usize = 4;

/// Keys and values of every block, in buffers allocated once for a fixed number of tokens.
///
/// Where a plan quantises them, the rounded values are what is kept, in the backend's floats:
/// [`bytes`](Self::bytes) are those of the floats, [`packed_bytes`](Self::packed_bytes) is computed.
///
/// A step writes its own rows into the buffers; rows already there are not copied again where the
/// backend assigns slices in place.
#[derive(Debug, Clone)]
pub struct KvCache<B: Backend> {
    layers: Vec<LayerCache<B>>,
    len: usize,
    capacity: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct LayerCache<B: Backend> {
    keys: Option<Tensor<B, 4>>,
    values: Option<Tensor<B, 4>>,
}

impl<B: Backend> KvCache<B> {
    /// An empty cache for `batch` sequences of at most `capacity` tokens.
    ///
    /// # Panics
    ///
    /// When `capacity` is zero or exceeds the model's positions.
    pub fn new(config: &Gpt2Config, batch: usize, capacity: usize, device: &B::Device) -> Self {
        assert!(
            (1..=config.n_positions).contains(&capacity),
            "capacity is {capacity} tokens, expected 1 to {}",
            config.n_positions
        );
        let shape = [batch, config.n_head, capacity, config.head_width()];
        let layers = (0..config.n_layer)
            .map(|_| LayerCache {
                keys: Some(Tensor::zeros(shape, device)),
                values: Some(Tensor::zeros(shape, device)),
            })
            .collect();
        Self { layers, len: 0, capacity }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all tokens but the first `len`. The buffers stay.
    ///
    /// # Panics
    ///
    /// When fewer are held.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len, "a kv cache of {} tokens cannot be cut to {len}", self.len);
        self.len = len;
    }

    /// Bytes of the buffers, which hold floats at every width and all have room for `capacity` tokens.
    pub fn bytes(&self) -> usize {
        self.layers
            .iter()
            .flat_map(|layer| [&layer.keys, &layer.values])
            .flatten()
            .map(|t| t.shape().num_elements() * t.dtype().size())
            .sum()
    }

    /// Bytes that the tokens held need under `plan`, computed for packed storage: `⌈w·b / 8⌉` for the
    /// codes of every token and head, which start at a whole byte, and an f32 scale; `4·w` without a
    /// scale at full precision.
    ///
    /// # Panics
    ///
    /// When the plan has fewer blocks than the cache.
    pub fn packed_bytes(&self, plan: &SitePlan) -> usize {
        let block_bytes = |(block, layer): (usize, &LayerCache<B>)| {
            let buffers = [&layer.keys, &layer.values].into_iter().flatten().map(Tensor::dims);
            buffers
                .map(|[batch, heads, _, width]| batch * heads * packed_row_bytes(width, plan.kv_cache(block)))
                .sum::<usize>()
        };
        self.len * self.layers.iter().enumerate().map(block_bytes).sum::<usize>()
    }

    pub(crate) fn layer(&mut self, block: usize) -> (&mut LayerCache<B>, usize) {
        (&mut self.layers[block], self.len)
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

impl<B: Backend> LayerCache<B> {
    /// Writes the keys and values of new tokens behind the first `len` and returns all of them.
    ///
    /// # Shapes
    ///
    /// `[batch, heads, new, head_width]` in, `[batch, heads, len + new, head_width]` out.
    pub(crate) fn append(
        &mut self,
        len: usize,
        keys: Tensor<B, 4>,
        values: Tensor<B, 4>,
    ) -> (Tensor<B, 4>, Tensor<B, 4>) {
        let write = |buffer: &mut Option<Tensor<B, 4>>, rows: Tensor<B, 4>| {
            let [batch, heads, new, width] = rows.dims();
            let full = buffer.take().expect("a buffer is put back after every write");
            let [_, _, capacity, _] = full.dims();
            assert!(len + new <= capacity, "kv cache of {capacity} tokens cannot hold {}", len + new);
            let full = full.slice_assign([0..batch, 0..heads, len..len + new, 0..width], rows);
            let held = full.clone().slice([0..batch, 0..heads, 0..len + new, 0..width]);
            *buffer = Some(full);
            held
        };
        (write(&mut self.keys, keys), write(&mut self.values, values))
    }
}

/// Bytes of one token's key or value in one head, packed, with its scale.
pub(crate) fn packed_row_bytes(width: usize, bits: BitWidth) -> usize {
    let scale = if bits.is_full() { 0 } else { F32_BYTES };
    (width * usize::from(bits.bits())).div_ceil(8) + scale
}

/// Queries, keys and values, of which keys and values are rounded to `bits`.
///
/// # Shapes
///
/// `qkv`: `[batch, tokens, 3d]`, the same out.
///
/// # Panics
///
/// When [`KV_CACHE_SPEC`] cannot do `bits`.
pub(crate) fn quantize_keys_and_values<B: QuantBackend>(
    qkv: Tensor<B, 3>,
    heads: usize,
    bits: BitWidth,
) -> Tensor<B, 3> {
    if bits.is_full() {
        return qkv;
    }
    let [batch, tokens, packed] = qkv.dims();
    let d = packed / 3;
    let rows = qkv.clone().narrow(2, d, 2 * d).reshape([batch, tokens, 2 * heads, d / heads]);
    match fake_quantize(rows, bits, &KV_CACHE_SPEC, GradientRule::Identity) {
        Ok(rows) => Tensor::cat(vec![qkv.narrow(2, 0, d), rows.reshape([batch, tokens, 2 * d])], 2),
        Err(error) => panic!("kv cache: {error}"),
    }
}

#[cfg(test)]
mod tests;
