//! A data set made ready for a model: windows of tokens and the batches of an evaluation.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use burn::tensor::{Bool, Int, Tensor, TensorData, backend::Backend};

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::{
    Article, Batch, BatchConfig, Batches, Dataset, Format, NullTarget, Paragraph, QuestionCounts, SpanConfig,
    SpanFeatures, SpecialTokens, TextTokenizer, WhyLeftOut,
};
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
    /// `window` is the longest window in tokens; by default the model's positions, at most 384. In data of
    /// version 2.0 windows without an answer point to the separator, the position of "no answer".
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
        let mut span = SpanConfig::new(window, special.separator.clone());
        if dataset.format == Format::V2 {
            // The null rule asks every window of a question whether it holds an answer.
            span.null_target = NullTarget::ImpossibleOrOutside;
        }
        let features = SpanFeatures::new(tokenizer, &dataset.examples(), &span)?;
        Ok(Self { dataset, features, special })
    }

    /// How many questions a model can be trained on, and why not on the others.
    pub fn training_counts(&self) -> QuestionCounts {
        self.features.target_counts()
    }

    /// How many questions are measured; in version 2.0 an id that comes back is scored once.
    pub fn measured_counts(&self) -> QuestionCounts {
        let mut counts = QuestionCounts::of(self.dataset.len());
        if self.dataset.format == Format::V2 {
            let ids: HashSet<&str> = self.dataset.questions().map(|question| question.id.as_str()).collect();
            counts.leave_out(counts.all - ids.len(), WhyLeftOut::Repeated);
        }
        counts
    }

    /// The questions of every other context, and those of the rest: no context is in both.
    ///
    /// # Errors
    ///
    /// When all questions are about one context.
    pub fn halves(&self) -> Result<[Self; 2]> {
        let mut number_of: HashMap<&str, usize> = HashMap::new();
        let asked = self.dataset.articles.iter().flat_map(|a| &a.paragraphs).filter(|p| !p.questions.is_empty());
        for paragraph in asked {
            let next = number_of.len();
            number_of.entry(&paragraph.context).or_insert(next);
        }
        let first = |_: &Article, paragraph: &Paragraph| {
            number_of.get(paragraph.context.as_str()).is_some_and(|number| number % 2 == 0)
        };
        Ok([self.part(&first)?, self.part(&|article, paragraph| !first(article, paragraph))?])
    }

    /// A share of the questions, held out to choose something on, and the others, to measure it. No title is
    /// in both; where all have one title, no context.
    ///
    /// # Errors
    ///
    /// When all questions are about one context.
    pub fn held_out(&self, share: f64, seed: u64) -> Result<[Self; 2]> {
        let titles: BTreeSet<&str> = self.dataset.articles.iter().map(|article| article.title.as_str()).collect();
        let (has_titles, mut titles_of) = (titles.len() > 1, HashMap::new());
        // A context under two titles binds them together.
        let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
        for article in &self.dataset.articles {
            for paragraph in &article.paragraphs {
                let key = if has_titles { article.title.as_str() } else { paragraph.context.as_str() };
                let key = *titles_of.entry(paragraph.context.as_str()).or_insert(key);
                *groups.entry(key).or_default() += paragraph.questions.len();
            }
        }
        let mut keys: Vec<&str> = groups.keys().copied().collect();
        keys.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let wanted = share * self.dataset.len() as f64;
        let mut taken = 0;
        let mut chosen: HashSet<&str> = HashSet::new();
        for key in keys {
            if taken as f64 >= wanted {
                break;
            }
            taken += groups[key];
            chosen.insert(key);
        }
        let is_held_out = |_: &Article, paragraph: &Paragraph| chosen.contains(titles_of[paragraph.context.as_str()]);
        Ok([self.part(&is_held_out)?, self.part(&|article, paragraph| !is_held_out(article, paragraph))?])
    }

    /// The questions of some paragraphs.
    fn part(&self, is_chosen: &dyn Fn(&Article, &Paragraph) -> bool) -> Result<Self> {
        let (mut articles, mut chosen, mut questions) = (Vec::new(), Vec::new(), 0);
        for article in &self.dataset.articles {
            let mut paragraphs = Vec::new();
            for paragraph in &article.paragraphs {
                let here = questions..questions + paragraph.questions.len();
                questions = here.end;
                if is_chosen(article, paragraph) {
                    chosen.extend(here);
                    paragraphs.push(paragraph.clone());
                }
            }
            articles.push(Article { title: article.title.clone(), paragraphs });
        }
        if chosen.is_empty() {
            return Err(Error::NoQuestions { what: "a part of the data set".into() });
        }
        let dataset = Dataset { format: self.dataset.format, articles };
        Ok(Self { dataset, features: self.features.select(&chosen), special: self.special.clone() })
    }

    /// The batches of one pass in file order, windows of like length together.
    ///
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
