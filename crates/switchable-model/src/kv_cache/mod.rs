//! Keys and values of the tokens already read, kept for one-token steps.

use burn::tensor::{Tensor, backend::Backend};

use crate::kv_rounding::packed_row_bytes;
use crate::shape::ModelShape;
use crate::site_plan::SitePlan;

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

/// Keys and values of one block.
#[derive(Debug, Clone)]
struct LayerCache<B: Backend> {
    keys: Option<Tensor<B, 4>>,
    values: Option<Tensor<B, 4>>,
}

impl<B: Backend> KvCache<B> {
    /// An empty cache for `batch` sequences of at most `capacity` tokens.
    ///
    /// # Panics
    ///
    /// When `capacity` is zero or exceeds the model's positions.
    pub fn new(model: &ModelShape, batch: usize, capacity: usize, device: &B::Device) -> Self {
        assert!(
            (1..=model.positions).contains(&capacity),
            "capacity is {capacity} tokens, expected 1 to {}",
            model.positions
        );
        let shape = [batch, model.kv_heads, capacity, model.head_width];
        let layers = (0..model.blocks)
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

    /// Refuses new tokens that it has no room for.
    ///
    /// # Panics
    ///
    /// When it is for another number of sequences, or there is no room.
    pub fn expect_room(&self, batch: usize, new: usize) {
        let (len, capacity) = (self.len, self.capacity);
        let sequences = self.layers.first().and_then(|layer| Some(layer.keys.as_ref()?.dims()[0]));
        let sequences = sequences.unwrap_or(batch);
        assert_eq!(batch, sequences, "{batch} sequences, the kv cache is for {sequences}");
        assert!(len + new <= capacity, "kv cache of {capacity} tokens cannot hold {}", len + new);
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

    /// The part of one block, to which a pass appends the keys and values of new tokens.
    ///
    /// # Panics
    ///
    /// When there is no such block.
    pub fn block(&mut self, block: usize) -> BlockCache<'_, B> {
        BlockCache { layer: &mut self.layers[block], len: self.len }
    }

    /// Counts new tokens as held, once every block has taken up their keys and values.
    pub fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

/// The keys and values of one block, and how many tokens are held.
#[derive(Debug)]
pub struct BlockCache<'a, B: Backend> {
    layer: &'a mut LayerCache<B>,
    len: usize,
}

impl<B: Backend> BlockCache<'_, B> {
    /// Writes the keys and values of new tokens behind those held and returns all of them.
    ///
    /// # Shapes
    ///
    /// `[batch, heads, new, head_width]` in, `[batch, heads, held + new, head_width]` out.
    ///
    /// # Panics
    ///
    /// When there is no room for them, or their shapes are not those of the cache.
    pub fn append(&mut self, keys: Tensor<B, 4>, values: Tensor<B, 4>) -> [Tensor<B, 4>; 2] {
        let len = self.len;
        let (got, other) = (keys.dims(), values.dims());
        assert_eq!(got, other, "keys of shape {got:?} and values of shape {other:?} are not of the same tokens");
        let write = |buffer: &mut Option<Tensor<B, 4>>, rows: Tensor<B, 4>| {
            let [batch, heads, new, width] = rows.dims();
            let there = buffer.as_ref().expect("a buffer is put back after every write").dims();
            let [.., capacity, _] = there;
            let expected = [there[0], there[1], new, there[3]];
            assert_eq!([batch, heads, new, width], expected, "keys or values that are not of the cache's sequences");
            assert!(len + new <= capacity, "kv cache of {capacity} tokens cannot hold {}", len + new);
            // Taken out, so that it is written where it lies.
            let full = buffer.take().expect("it was there");
            let full = full.slice_assign([0..batch, 0..heads, len..len + new, 0..width], rows);
            let held = full.clone().slice([0..batch, 0..heads, 0..len + new, 0..width]);
            *buffer = Some(full);
            held
        };
        [write(&mut self.layer.keys, keys), write(&mut self.layer.values, values)]
    }
}

#[cfg(test)]
mod tests;
