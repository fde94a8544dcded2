//! A data set made ready for a model: windows of tokens and the batches of an evaluation.

use burn::tensor::{Bool, Int, Tensor, TensorData, backend::Backend};

use content_identity::{ContentHash, Hasher};
use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::{Batch, BatchConfig, Batches, Dataset, SpanConfig, SpanFeatures, SpecialTokens, TextTokenizer};
use switchable_model::config::ModelConfig;
use switchable_model::shape::ModelShape;

use crate::error::{Error, Result};

/// Questions, their windows and the tokenizer's special tokens.
#[derive(Debug, Clone)]
pub struct ReadingTask {
    /// The questions and their gold answers.
    pub dataset: Dataset,
    /// Windows of tokens over every question's context.
    pub features: SpanFeatures,
    /// Separator, padding and end.
    pub special: SpecialTokens,
}

impl ReadingTask {
    /// Cuts every context into windows that fit the model.
    ///
    /// `window` is the longest window in tokens; by default the model's positions, at most 384.
    ///
    /// # Errors
    ///
    /// When there is no question, the tokenizer's ids or the window exceed the model, or a question
    /// is longer than the window.
    pub fn new(
        dataset: Dataset,
        tokenizer: &TextTokenizer,
        config: &impl ModelConfig,
        window: Option<usize>,
    ) -> Result<Self> {
        Self::for_shape(dataset, tokenizer, &config.shape(), window)
    }

    pub(crate) fn for_shape(
        dataset: Dataset,
        tokenizer: &TextTokenizer,
        shape: &ModelShape,
        window: Option<usize>,
    ) -> Result<Self> {
        if dataset.is_empty() {
            return Err(Error::NoQuestions { what: "the data set".into() });
        }
        let vocabulary = tokenizer.vocab_size();
        if vocabulary > shape.vocabulary {
            return Err(Error::DoesNotFit {
                what: "the tokenizer's vocabulary",
                got: vocabulary,
                room: shape.vocabulary,
            });
        }
        let window = window.unwrap_or(shape.positions.min(384));
        if window > shape.positions {
            return Err(Error::DoesNotFit { what: "the window", got: window, room: shape.positions });
        }
        let special = SpecialTokens::of(tokenizer)?;
        let span = SpanConfig::new(window, special.separator.clone());
        let features = SpanFeatures::new(tokenizer, &dataset.examples(), &span)?;
        Ok(Self { dataset, features, special })
    }

    /// The questions of every other paragraph, and those of the rest: no paragraph is in both.
    ///
    /// # Errors
    ///
    /// When all questions are about one paragraph.
    pub fn halves(&self) -> Result<[Self; 2]> {
        let half = |parity: usize| {
            let mut dataset = self.dataset.clone();
            let (mut paragraphs, mut questions) = (0, 0);
            let mut chosen = Vec::new();
            for article in &mut dataset.articles {
                article.paragraphs.retain(|paragraph| {
                    let here = questions..questions + paragraph.questions.len();
                    questions = here.end;
                    let is_chosen = paragraphs % 2 == parity;
                    paragraphs += usize::from(!here.is_empty());
                    if is_chosen {
                        chosen.extend(here);
                    }
                    is_chosen
                });
            }
            if chosen.is_empty() {
                return Err(Error::NoQuestions { what: "half of the data set".into() });
            }
            Ok(Self { dataset, features: self.features.select(&chosen), special: self.special.clone() })
        };
        Ok([half(0)?, half(1)?])
    }

    /// The batches of one pass in file order, windows of like length together.
    ///
    /// The hash of all that a result on these questions depends on: questions, contexts and answers, and the
    /// tokens of every window with its target.
    pub fn content(&self) -> ContentHash {
        let mut hasher = Hasher::default();
        hasher.bytes("questions", self.dataset.to_json().as_bytes());
        for window in self.features.windows() {
            hasher.numbers("tokens", window.ids.iter().map(|&id| u64::from(id)));
            let target = window.target.map_or([u64::MAX; 2], |span| [span.start as u64, span.end as u64]);
            let places = [window.example, window.null, window.context_start].map(|place| place as u64);
            hasher.numbers("places", places.into_iter().chain(target).collect::<Vec<_>>().into_iter());
        }
        let special = format!("{:?}", self.special);
        hasher.bytes("special tokens", special.as_bytes());
        hasher.finish()
    }

    /// # Errors
    ///
    /// When the batch size is zero.
    pub fn evaluation_batches(&self, batch_size: usize) -> Result<Vec<Batch>> {
        let batches = Batches::new(&self.features, BatchConfig::evaluation(batch_size, self.special.pad))?;
        Ok(batches.epoch(0).collect())
    }
}

/// The tensors of a batch.
#[derive(Debug, Clone)]
pub struct BatchTensors<B: Backend> {
    /// Token ids, `[batch, tokens]`, padded on the right.
    pub ids: Tensor<B, 2, Int>,
    /// True at padding, `[batch, tokens]`.
    pub padding: Tensor<B, 2, Bool>,
    /// True where no answer can start or end, `[batch, tokens]`.
    pub unanswerable: Tensor<B, 2, Bool>,
    /// First token of the answer, `[batch]`.
    pub starts: Tensor<B, 1, Int>,
    /// Last token of the answer, `[batch]`.
    pub ends: Tensor<B, 1, Int>,
}

impl<B: QuantBackend> BatchTensors<B> {
    /// Moves a batch to a device. Windows without a target get target 0; the caller leaves them out.
    pub fn new(batch: &Batch, device: &B::Device) -> Self {
        let shape = [batch.batch, batch.len];
        let flags = |values: &[bool]| {
            let inverted: Vec<bool> = values.iter().map(|v| !v).collect();
            Tensor::from_data(TensorData::new(inverted, shape), device)
        };
        let targets = |values: &[i64]| {
            let values: Vec<i64> = values.iter().map(|v| (*v).max(0)).collect();
            Tensor::from_data(TensorData::new(values, [batch.batch]), device)
        };
        Self {
            ids: Tensor::from_data(TensorData::new(batch.ids.clone(), shape), device),
            padding: flags(&batch.attention),
            unanswerable: flags(&batch.answerable),
            starts: targets(&batch.starts),
            ends: targets(&batch.ends),
        }
    }
}

/// Scores of a batch on the host, row by row.
///
/// # Shapes
///
/// `logits`: `[batch, tokens]`; `batch · tokens` values.
///
/// # Panics
///
/// When the device cannot give its values back.
pub fn scores<B: QuantBackend>(logits: Tensor<B, 2>) -> Vec<f32> {
    logits.into_data().convert::<f32>().into_vec().expect("data converted to f32 is f32")
}
