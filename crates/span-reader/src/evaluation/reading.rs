//! A data set made ready for a model: windows of tokens and the batches of an evaluation.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use burn::tensor::{Bool, Int, Tensor, TensorData, backend::Backend};
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use content_identity::{ContentHash, Hasher};
use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::{
    Article, Batch, BatchConfig, Batches, Dataset, Format, NullTarget, Paragraph, QuestionCounts, SpanConfig,
    SpanFeatures, SpecialTokens, TextTokenizer,
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

/// Tokens of a window for each time that it holds its context, unless something else is asked for.
const WINDOW: usize = 384;

/// The windows of a model of this shape; `window` is the longest in tokens.
pub fn span_config(shape: &ModelShape, window: Option<usize>, special: &SpecialTokens) -> SpanConfig {
    let window = window.unwrap_or(shape.positions.min(WINDOW * shape.context_reads));
    SpanConfig::new(window, special.separator.clone()).with_context_reads(shape.context_reads)
}

impl ReadingTask {
    /// Cuts every context into windows that fit the model.
    ///
    /// `window` is the longest window in tokens; by default the model's positions, at most 384 for each time that it
    /// holds its context. In data of
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
        // A special token that nothing uses may lie beyond the model's embedding.
        if vocabulary > shape.vocabulary && tokenizer.check_fits(shape.vocabulary).is_err() {
            return Err(Error::DoesNotFit {
                what: "the tokenizer's vocabulary",
                got: vocabulary,
                room: shape.vocabulary,
            });
        }
        let special = SpecialTokens::of(tokenizer)?;
        let mut span = span_config(shape, window, &special);
        if span.max_len > shape.positions {
            return Err(Error::DoesNotFit { what: "the window", got: span.max_len, room: shape.positions });
        }
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
        self.dataset.measured_counts()
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
        let part = |is_chosen: &dyn Fn(&Article, &Paragraph) -> bool| self.part("half of the data set", is_chosen);
        Ok([part(&first)?, part(&|article, paragraph| !first(article, paragraph))?])
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
        Ok([
            self.part("the held-out part of the data set", &is_held_out)?,
            self.part("the data set without its held-out part", &|article, paragraph| {
                !is_held_out(article, paragraph)
            })?,
        ])
    }

    /// The questions of some paragraphs; `what` they are, for messages.
    fn part(&self, what: &str, is_chosen: &dyn Fn(&Article, &Paragraph) -> bool) -> Result<Self> {
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
            return Err(Error::NoQuestions { what: what.into() });
        }
        let dataset = Dataset { format: self.dataset.format, articles };
        Ok(Self { dataset, features: self.features.select(&chosen), special: self.special.clone() })
    }

    /// One of the questions alone.
    pub(crate) fn select(&self, question: usize) -> Self {
        Self {
            dataset: self.dataset.chosen(|place| place == question),
            features: self.features.select(&[question]),
            special: self.special.clone(),
        }
    }

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

#[cfg(test)]
mod tests {
    use squad_data::{BpeConfig, GeneratorConfig, Split, corpus_texts, generate};

    use super::*;

    /// Articles of a few generated paragraphs each; the first context comes back under the last title.
    fn task(titles: &[&str], format: Format) -> ReadingTask {
        let corpus = generate(&GeneratorConfig::new(Split::Dev, 3 * titles.len(), 1)).unwrap();
        let mut paragraphs: Vec<Paragraph> = corpus.articles.iter().flat_map(|a| a.paragraphs.clone()).collect();
        let mut again = paragraphs[0].clone();
        again.questions.iter_mut().for_each(|question| question.id.push('b'));
        paragraphs.push(again);
        let mut articles: Vec<Article> = Vec::new();
        for (i, paragraph) in paragraphs.into_iter().enumerate() {
            let title = titles[(i / 3).min(titles.len() - 1)].to_owned();
            articles.push(Article { title, paragraphs: vec![paragraph] });
        }
        let bpe = BpeConfig { vocab_size: 400, ..BpeConfig::default() };
        let tokenizer = TextTokenizer::train_bpe(corpus_texts(&corpus), &bpe).unwrap();
        let vocabulary = tokenizer.vocab_size();
        let shape = ModelShape {
            blocks: 1,
            width: 8,
            positions: 160,
            vocabulary,
            heads: 1,
            kv_heads: 1,
            head_width: 8,
            context_reads: 1,
        };
        ReadingTask::for_shape(Dataset { format, articles }, &tokenizer, &shape, Some(100)).unwrap()
    }

    fn contexts(task: &ReadingTask) -> BTreeSet<&str> {
        let paragraphs = task.dataset.articles.iter().flat_map(|a| &a.paragraphs);
        paragraphs.filter(|p| !p.questions.is_empty()).map(|p| p.context.as_str()).collect()
    }

    fn titles(task: &ReadingTask) -> BTreeSet<&str> {
        let asked = task.dataset.articles.iter().filter(|a| a.paragraphs.iter().any(|p| !p.questions.is_empty()));
        asked.map(|article| article.title.as_str()).collect()
    }

    /// That two parts share no context, make up the whole, and have the windows of their questions.
    fn assert_apart([first, second]: &[ReadingTask; 2], whole: &ReadingTask) {
        assert!(contexts(first).is_disjoint(&contexts(second)));
        assert_eq!(first.dataset.len() + second.dataset.len(), whole.dataset.len());
        for part in [first, second] {
            assert_eq!(part.features.examples(), part.dataset.examples());
        }
    }

    #[test]
    fn halves_share_no_context_where_one_comes_back() {
        let whole = task(&["a", "b"], Format::V1);
        assert_apart(&whole.halves().unwrap(), &whole);
    }

    #[test]
    fn held_out_questions_share_neither_title_nor_context_with_the_others() {
        let whole = task(&["a", "b", "c", "d", "e", "f"], Format::V2);
        let mut drawn = BTreeSet::new();
        for seed in 0..20 {
            let parts = whole.held_out(0.2, seed).unwrap();
            assert_apart(&parts, &whole);
            let [held_out, others] = &parts;
            let share = held_out.dataset.len() as f64 / whole.dataset.len() as f64;
            assert!((0.2..0.45).contains(&share), "{share}");
            let both: Vec<&str> = titles(held_out).intersection(&titles(others)).copied().collect();
            // Only the article that repeats another's context is torn apart, for the sake of the context.
            assert!(both.is_empty() || both == ["f"], "{both:?}");
            let again = whole.held_out(0.2, seed).unwrap();
            assert_eq!(contexts(held_out), contexts(&again[0]));
            drawn.insert(format!("{:?}", titles(held_out)));
        }
        assert!(drawn.len() > 3, "the seed chooses: {drawn:?}");
        // One title: contexts are kept apart.
        let one = task(&["a"], Format::V2);
        assert_apart(&one.held_out(0.2, 1).unwrap(), &one);
        let [all, _] = one.halves().unwrap();
        let message = ReadingTask { dataset: all.dataset.limited(1), features: all.features.select(&[0]), ..all };
        let message = message.held_out(0.2, 1).unwrap_err().to_string();
        assert!(message.starts_with("the data set without its held-out part holds no question"), "{message}");
    }

    #[test]
    fn windows_of_version_2_without_an_answer_point_to_the_separator() {
        for (format, has_null) in [(Format::V1, false), (Format::V2, true)] {
            let task = task(&["a", "b"], format);
            assert!(task.features.len() > task.dataset.len(), "some questions have windows without their answer");
            let nulls = task.features.windows().iter().filter(|w| w.target.is_some_and(|t| t.start == w.null)).count();
            let none = task.features.windows().iter().filter(|w| w.target.is_none()).count();
            assert_eq!((nulls > 0, none > 0), (has_null, !has_null));
        }
    }
}
