//! Keys and values of the tokens already read, kept for one-token steps.
//!
//! ```text
//! bytes = Σⱼ 2 · sequences · heads · room · (⌈w·bⱼ / 8⌉ + 4)         over the blocks j;  4w in place of it at 32 bits
//! ```
//!
//! A block that the plan keeps at `bⱼ` bits holds codes and an f32 scale for each token and head, nothing else: the
//! values of one block are made for its attention and dropped behind it. They are those that
//! [`kv_rounding`](crate::kv_rounding) rounds to, to the bit, so what is computed is what a cache of floats gives.
//!
//! Codes lie in the memory of the processor whatever the backend; new keys and values are read back from it for
//! them, and those that are attended to are copied to it. [`KvStorage::Floats`] keeps rounded floats on the
//! device instead.

mod block_cache;
mod segment;

use burn::tensor::backend::Backend;

use quant_kernels::spec::bit_width::BitWidth;

pub use self::block_cache::BlockCache;
use self::segment::Segment;
use crate::kv_rounding::packed_row_bytes;
use crate::positions::{CountedPositions, Positions};
use crate::shape::ModelShape;
use crate::site_plan::SitePlan;

/// What a cache holds where a plan keeps keys and values at fewer than 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvStorage {
    /// Codes, and a scale for each token and head.
    #[default]
    Packed,
    /// The rounded values, in the backend's floats.
    Floats,
}

/// Keys and values of every block, with room for a fixed number of tokens.
///
/// A block's memory is taken when its first token is read, at the bits of that pass. Tokens that are read later
/// at other bits are kept at those, in memory of their own; tokens stay as they were rounded when they were read.
///
/// A step writes its own rows; rows already there are not copied again where the backend assigns slices in
/// place.
#[derive(Debug, Clone)]
pub struct KvCache<B: Backend> {
    layers: Vec<Vec<Segment<B>>>,
    /// Tokens of padding before each sequence.
    padding: Vec<usize>,
    len: usize,
    capacity: usize,
    storage: KvStorage,
    heads: usize,
    head_width: usize,
    device: B::Device,
}

impl<B: Backend> KvCache<B> {
    /// An empty cache for `batch` sequences of at most `capacity` tokens.
    ///
    /// # Panics
    ///
    /// When `capacity` is zero or exceeds the model's positions.
    pub fn new(model: &ModelShape, batch: usize, capacity: usize, device: &B::Device) -> Self {
        Self::left_padded(model, vec![0; batch], capacity, device)
    }

    /// An empty cache for sequences of different lengths, which are padded on the left so that they end together.
    ///
    /// `padding` are the tokens of padding before each sequence. They take room as others do and are never
    /// attended to; positions count from the first token behind them.
    ///
    /// # Panics
    ///
    /// When `capacity` without the padding is zero or exceeds the model's positions in every sequence.
    pub fn left_padded(model: &ModelShape, padding: Vec<usize>, capacity: usize, device: &B::Device) -> Self {
        let most = padding.iter().copied().max().unwrap_or(0);
        let real = capacity.saturating_sub(most);
        assert!((1..=model.positions).contains(&real), "capacity is {real} tokens, expected 1 to {}", model.positions);
        Self {
            layers: vec![Vec::new(); model.blocks],
            padding,
            len: 0,
            capacity,
            storage: KvStorage::default(),
            heads: model.kv_heads,
            head_width: model.head_width,
            device: device.clone(),
        }
    }

    /// The cache with another way to hold what is read from here on.
    pub fn with_storage(self, storage: KvStorage) -> Self {
        Self { storage, ..self }
    }

    /// Tokens held for each sequence, padding counted.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a sequence has padding before it.
    pub fn is_padded(&self) -> bool {
        self.padding.iter().any(|&padding| padding > 0)
    }

    /// Tokens there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Where `tokens` tokens behind those held stand in their sequences.
    pub fn positions(&self, tokens: usize) -> Positions<B> {
        if !self.is_padded() {
            return Positions::Consecutive { first: self.len, tokens };
        }
        Positions::Counted(CountedPositions::behind_padding(self.len..self.len + tokens, &self.padding, &self.device))
    }

    /// Refuses new tokens that it has no room for.
    ///
    /// # Panics
    ///
    /// When it is for another number of sequences, or there is no room.
    pub fn expect_room(&self, batch: usize, new: usize) {
        let (len, capacity, sequences) = (self.len, self.capacity, self.padding.len());
        assert_eq!(batch, sequences, "{batch} sequences, the kv cache is for {sequences}");
        assert!(len + new <= capacity, "kv cache of {capacity} tokens cannot hold {}", len + new);
    }

    /// Forgets all tokens but the first `len`. Their memory stays.
    ///
    /// # Panics
    ///
    /// When fewer are held.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len, "a kv cache of {} tokens cannot be cut to {len}", self.len);
        self.len = len;
        for segments in &mut self.layers {
            // One that holds nothing is kept if it is the first: its memory is used again.
            let kept = segments.iter().take_while(|segment| segment.first() < len).count();
            segments.truncate(kept.max(1));
        }
    }

    /// Keeps the sequences of these indices, in their order, and forgets the others with their memory.
    ///
    /// # Panics
    ///
    /// When there is no such sequence.
    pub fn keep_sequences(&mut self, sequences: &[usize]) {
        for segment in self.layers.iter_mut().flatten() {
            segment.keep_sequences(sequences, &self.device);
        }
        self.padding = sequences.iter().map(|&sequence| self.padding[sequence]).collect();
    }

    /// Bytes that it holds: codes and scales, or floats, all with room for `capacity` tokens.
    pub fn bytes(&self) -> usize {
        self.layers.iter().flatten().map(Segment::bytes).sum()
    }

    /// Bytes that the tokens held need under `plan`: `⌈w·b / 8⌉` for the codes of every token and head, which
    /// start at a whole byte, and an f32 scale; `4·w` without a scale at full precision. A cache that is full and
    /// was read at that plan holds just as many, unless it holds floats of another size than f32.
    ///
    /// # Panics
    ///
    /// When the plan has fewer blocks than the cache.
    pub fn packed_bytes(&self, plan: &SitePlan) -> usize {
        let row_bytes = |block| 2 * packed_row_bytes(self.head_width, plan.kv_cache(block));
        self.padding.len() * self.heads * self.len * (0..self.layers.len()).map(row_bytes).sum::<usize>()
    }

    /// The part of one block, to which a pass appends the keys and values of new tokens, kept at `bits`.
    ///
    /// # Panics
    ///
    /// When there is no such block.
    pub fn block(&mut self, block: usize, bits: BitWidth) -> BlockCache<'_, B> {
        BlockCache {
            segments: &mut self.layers[block],
            padding: &self.padding,
            held: self.len,
            capacity: self.capacity,
            bits,
            storage: self.storage,
            dims: [self.padding.len(), self.heads, self.head_width],
            device: &self.device,
        }
    }

    /// Counts new tokens as held, once every block has taken up their keys and values.
    pub fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

#[cfg(test)]
mod tests;
