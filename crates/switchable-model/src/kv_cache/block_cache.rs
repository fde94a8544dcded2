//! Attention of new tokens to those of the cache, in one block.

use std::ops::Range;

use burn::tensor::{DType, Tensor, backend::Backend};

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    spec::{bit_width::BitWidth, gradient_rule::GradientRule},
    tensor::{attention::cached_attention, fake_quantize::fake_quantize},
};

use super::KvStorage;
use super::segment::{RowsForm, Segment};
use crate::kv_rounding::KV_CACHE_SPEC;

/// The keys and values of one block, and how many tokens are held.
#[derive(Debug)]
pub struct BlockCache<'a, B: Backend> {
    pub(super) segments: &'a mut Vec<Segment<B>>,
    pub(super) padding: &'a [usize],
    pub(super) held: usize,
    pub(super) capacity: usize,
    pub(super) bits: BitWidth,
    pub(super) storage: KvStorage,
    /// Sequences, heads and their width.
    pub(super) dims: [usize; 3],
    pub(super) device: &'a B::Device,
}

impl<B: QuantBackend> BlockCache<'_, B> {
    /// Attention of new tokens to themselves and to all older ones. Their keys and values are rounded to the
    /// block's bits and written behind those held; all are attended to as they are kept. Padding is not attended
    /// to, and what comes out for it is 0.
    ///
    /// # Shapes
    ///
    /// - `q` `[batch, query heads, new, head_width]`; `k`, `v` `[batch, heads, new, head_width]`, not yet rounded
    /// - output `[batch, new, query heads · head_width]`
    ///
    /// # Panics
    ///
    /// When there is no room for the tokens, the shapes are not those of the cache, or the bits are none that
    /// [`KV_CACHE_SPEC`] can do.
    pub fn attend(&mut self, [q, k, v]: [Tensor<B, 4>; 3], scale: f64) -> Tensor<B, 3> {
        let [batch, query_heads, new, width] = q.dims();
        self.append(k, v);
        let all = self.held + new;
        if self.padding.iter().all(|&padding| padding == 0) {
            let [k, v] = self.read(0..batch, 0..all);
            return cached_attention(q, k, v, scale);
        }
        // One sequence after another: none then depends on how far its neighbours are padded.
        let sequences = (0..batch).map(|sequence| {
            let first = self.padding[sequence].min(all);
            let hidden = first.saturating_sub(self.held);
            let zeros = || Tensor::zeros([1, hidden, query_heads * width], (self.device, q.dtype()));
            if hidden == new {
                return zeros();
            }
            let q = q.clone().slice([sequence..sequence + 1, 0..query_heads, hidden..new, 0..width]);
            let [k, v] = self.read(sequence..sequence + 1, first..all);
            let context = cached_attention(q, k, v, scale);
            if hidden == 0 { context } else { Tensor::cat(vec![zeros(), context], 1) }
        });
        Tensor::cat(sequences.collect(), 0)
    }

    /// Rounds the keys and values of new tokens and writes them behind those held.
    ///
    /// # Panics
    ///
    /// When there is no room for them, or their shapes are not those of the cache.
    fn append(&mut self, keys: Tensor<B, 4>, values: Tensor<B, 4>) {
        let (len, capacity, [sequences, heads, width]) = (self.held, self.capacity, self.dims);
        let (got, other) = (keys.dims(), values.dims());
        assert_eq!(got, other, "keys of shape {got:?} and values of shape {other:?} are not of the same tokens");
        let new = got[2];
        let expected = [sequences, heads, new, width];
        assert_eq!(got, expected, "keys or values that are not of the cache's sequences");
        assert!(len + new <= capacity, "kv cache of {capacity} tokens cannot hold {}", len + new);
        let form = self.form(keys.dtype());
        let [keys, values] = match form {
            RowsForm::Codes(..) => [keys, values],
            RowsForm::Floats(_) => [keys, values].map(|rows| self.rounded(rows)),
        };
        // Memory that holds nothing yet is of no use in another form.
        while self.segments.last().is_some_and(|last| last.form() != form && last.first() >= len) {
            self.segments.pop();
        }
        if self.segments.last().is_none_or(|last| last.form() != form) {
            let room = [sequences, heads, capacity - len, width];
            self.segments.push(Segment::new(len, form, room, self.device));
        }
        if let Some(last) = self.segments.last_mut() {
            last.write(len, keys, values);
        }
    }

    /// How new tokens of a type of floats are held: numbers of more than 32 bits have no codes here, whose scales
    /// are f32.
    fn form(&self, dtype: DType) -> RowsForm {
        if self.bits.is_full() || self.storage == KvStorage::Floats || dtype == DType::F64 {
            RowsForm::Floats(dtype)
        } else {
            RowsForm::Codes(self.bits, dtype)
        }
    }

    fn rounded(&self, rows: Tensor<B, 4>) -> Tensor<B, 4> {
        match fake_quantize(rows, self.bits, &KV_CACHE_SPEC, GradientRule::Identity) {
            Ok(rows) => rows,
            Err(error) => panic!("kv cache: {error}"),
        }
    }

    /// Keys and values of some tokens of some sequences, as they are kept.
    ///
    /// # Shapes
    ///
    /// `[sequences, heads, tokens, head_width]` each, out.
    pub(super) fn read(&self, sequences: Range<usize>, tokens: Range<usize>) -> [Tensor<B, 4>; 2] {
        let ends = self.segments.iter().skip(1).map(Segment::first).chain([self.capacity]);
        let parts: Vec<[Tensor<B, 4>; 2]> = self
            .segments
            .iter()
            .zip(ends)
            .map(|(segment, end)| (segment, segment.first().max(tokens.start)..end.min(tokens.end)))
            .filter(|(_, tokens)| !tokens.is_empty())
            .map(|(segment, tokens)| segment.read(sequences.clone(), tokens, self.device))
            .collect();
        if let [part] = parts.as_slice() {
            return part.clone();
        }
        [0, 1].map(|index| Tensor::cat(parts.iter().map(|part| part[index].clone()).collect(), 2))
    }
}
