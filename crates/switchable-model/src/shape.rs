//! The numbers that every transformer has.

use serde::{Deserialize, Serialize};

/// The shape of a decoder-only transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelShape {
    /// Number of blocks.
    pub blocks: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Longest sequence in tokens.
    pub positions: usize,
    /// Number of tokens in the vocabulary.
    pub vocabulary: usize,
    /// Heads of the queries, per block.
    pub heads: usize,
    /// Heads of the keys and values, per block; as many as of the queries unless they are grouped.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_width: usize,
    /// How often a window of a reading task holds its stretch of the context: see `context_reads` of
    /// `squad_data::SpanConfig`.
    pub context_reads: usize,
}
