#![doc = include_str!("../README.md")]

mod batches;
mod cloze;
mod dataset;
mod decoding;
mod error;
mod generator;
mod metrics;
mod null_answers;
mod predictions;
mod prompt;
mod question_counts;
#[cfg(test)]
mod real_data;
mod text_files;
mod tokenizer;
mod windows;

pub use batches::{
    Batch, BatchConfig, BatchOrder, Batches, EndlessBatches, EpochBatches, LastBatch, NO_TARGET, Select,
};
pub use cloze::{ClozeConfig, cloze_questions};
pub use dataset::{
    Answer, Article, BadAnswers, Dataset, Example, Format, Paragraph, Question, ReadDataset, ReadOptions, Realign,
    UnknownFields,
};
pub use decoding::{Candidate, DecodeConfig, Decoded, NullRule, SpanDecoder};
pub use error::{BadAnswer, Error, Result};
pub use generator::{GeneratorConfig, SentenceOrder, Split, corpus_texts, generate};
pub use metrics::{
    BestThresholds, Evaluation, QuestionScore, Subset, evaluate, evaluate_v1, evaluate_v2,
    evaluate_v2_with_null_probabilities, exact_match, f1_score, normalize_answer, normalize_text,
};
pub use null_answers::NullAnswers;
pub use predictions::{NullProbabilities, Predictions};
pub use prompt::{EncodedPrompt, PromptTemplate};
pub use question_counts::{LeftOut, QuestionCounts, WhyLeftOut};
pub use text_files::{Documents, TextFiles};
pub use tokenizer::{
    BpeConfig, BpeVocabulary, CharSpan, Encoding, LeadingSpace, SpecialTokens, Splitting, TextTokenizer, TokenKind,
    VocabularyParts,
};
pub use windows::{LongQuestions, NullTarget, SpanConfig, SpanFeatures, TokenSpan, Window};
