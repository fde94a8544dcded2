//! SQuAD reading, windows, official metrics and synthetic reading-comprehension corpora.

#![expect(clippy::doc_markdown, reason = "SQuAD is a name, not code")]

mod atomic_file;
mod batches;
mod dataset;
mod error;
mod generator;
mod tokenizer;
mod windows;

pub use batches::{
    Batch, BatchConfig, BatchOrder, Batches, EndlessBatches, EpochBatches, LastBatch, NO_TARGET, Select,
};
pub use dataset::{Answer, Article, Dataset, Example, Format, Paragraph, Question, ReadOptions, UnknownFields};
pub use error::{Error, Result};
pub use generator::{GeneratorConfig, SentenceOrder, Split, corpus_texts, generate};
pub use tokenizer::{BpeConfig, CharSpan, Encoding, LeadingSpace, SpecialTokens, TextTokenizer};
pub use windows::{LongQuestions, NullTarget, SpanConfig, SpanFeatures, TokenSpan, Window};
