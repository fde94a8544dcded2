//! Keys and values of the tokens already read, kept for one-token steps.

use burn::tensor::{Tensor, backend::Backend};

use crate::Gpt2Config;

/// Keys and values of every block, in buffers allocated once for a fixed number of tokens.
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

    /// Bytes of the buffers.
    pub fn bytes(&self) -> usize {
        self.layers
            .iter()
            .flat_map(|layer| [&layer.keys, &layer.values])
            .flatten()
            .map(|t| t.shape().num_elements() * 4)
            .sum()
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
