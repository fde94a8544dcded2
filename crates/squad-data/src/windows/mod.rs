//! Inputs of a span head: question, separator, and as much of the context as fits.
//!
//! ```text
//! ids = question ‖ separator ‖ context[s .. s + room]       room = max_len − |question| − |separator|
//! s   = 0, room − overlap, 2·(room − overlap), …            until the context's end is inside
//! ```
//!
//! The question comes first because the model is causal: at a token of the context it must have
//! read what is asked. What stands behind the token it has not read, unless the window holds the context more than
//! once ([`SpanConfig::context_reads`]): the answer is then a span of its last copy.
//!
//! ```text
//! ids = question ‖ (separator ‖ context[s .. s + room])·r   room = (max_len − |question|)/r − |separator|
//! ```
//!
//! Source: *Just read twice*, Arora et al., arXiv:2407.05483. A context longer than its room gives several windows, which overlap so that
//! an answer at the edge of one is whole in the next.
//!
//! ```
//! use squad_data::{
//!     BpeConfig, GeneratorConfig, SpanConfig, SpanFeatures, SpecialTokens, Split, TextTokenizer,
//!     corpus_texts, generate,
//! };
//!
//! let corpus = generate(&GeneratorConfig::new(Split::Train, 20, 1))?;
//! let tokenizer = TextTokenizer::train_bpe(corpus_texts(&corpus), &BpeConfig::default())?;
//! let separator = SpecialTokens::of(&tokenizer)?.separator;
//! let config = SpanConfig::new(128, separator);
//! let features = SpanFeatures::new(&tokenizer, &corpus.examples(), &config)?;
//!
//! let window = &features.windows()[0];
//! let target = window.target.expect("the window holds the answer");
//! let answer = window.chars(target).expect("the target is in the context");
//! let example = &features.examples()[window.example];
//! assert_eq!(answer.slice(&example.context), example.answers[0].text);
//! # Ok::<(), squad_data::Error>(())
//! ```

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::dataset::{Answer, Example};
use crate::error::{Error, Result};
use crate::question_counts::{QuestionCounts, WhyLeftOut};
use crate::tokenizer::{CharSpan, TextTokenizer};

/// Tokens `start..=end` of a window: both ends belong to the span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenSpan {
    /// Position of the first token in the window's ids.
    pub start: usize,
    /// Position of the last token in the window's ids.
    pub end: usize,
}

/// What to do with a question that has too many tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LongQuestions {
    /// It is an error if it leaves no room for a token of the context.
    #[default]
    Reject,
    /// Only its first tokens are read, as many as this.
    TruncateTo(usize),
}

/// Which windows are taught to point at the separator, the position that means "no answer".
///
/// The null rule ([`NullAnswers`](crate::NullAnswers)) takes the lowest null score of a question's windows, so
/// each of them has to learn that it holds no answer: [`NullTarget::ImpossibleOrOutside`] is the one for data of
/// version 2.0, as in BERT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NullTarget {
    /// None: the windows of impossible questions have no target.
    Never,
    /// Those of impossible questions.
    #[default]
    Impossible,
    /// Those of impossible questions, and those that do not hold the answer.
    ImpossibleOrOutside,
}

/// How [`SpanFeatures::new`] lays out its windows.
///
/// | field | range | [`SpanConfig::new`] |
/// |---|---|---|
/// | `max_len` | separator + 2.. | given |
/// | `overlap` | any; at most half of a question's room is used | a third of `max_len` by `context_reads` |
/// | `context_reads` | 1.. | 1 |
/// | `separator` | 1.. tokens | given |
/// | `long_questions` | | reject |
/// | `null_target` | | impossible questions |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanConfig {
    /// Most tokens in a window.
    pub max_len: usize,
    /// Tokens of the context that a window shares with the next.
    pub overlap: usize,
    /// Tokens between question and context. The last of them is the position of "no answer".
    pub separator: Vec<u32>,
    /// What to do with a question that has too many tokens.
    pub long_questions: LongQuestions,
    /// Which windows are taught to point at the separator.
    pub null_target: NullTarget,
    /// How often a window holds its stretch of the context, each time behind a separator.
    pub context_reads: usize,
}

impl SpanConfig {
    /// A configuration with every choice at its default.
    pub fn new(max_len: usize, separator: Vec<u32>) -> Self {
        Self {
            max_len,
            overlap: max_len / 3,
            separator,
            long_questions: LongQuestions::default(),
            null_target: NullTarget::default(),
            context_reads: 1,
        }
    }

    /// The same with the context so often in a window, and windows that overlap by that much less.
    #[must_use]
    pub fn with_context_reads(mut self, context_reads: usize) -> Self {
        self.context_reads = context_reads;
        self.overlap = self.max_len / 3 / context_reads.max(1);
        self
    }

    fn check(&self) -> Result<()> {
        if self.separator.is_empty() {
            return Err(Error::config("separator", 0, "at least one token"));
        }
        if self.context_reads == 0 {
            return Err(Error::config("context_reads", 0, "at least 1"));
        }
        let least = self.context_reads * (self.separator.len() + 1) + 1;
        if self.max_len < least {
            let expected = format!("at least {least} tokens");
            return Err(Error::config("max_len", self.max_len, expected));
        }
        let most = self.most_question_tokens();
        match self.long_questions {
            LongQuestions::TruncateTo(tokens) if !(1..=most).contains(&tokens) => {
                Err(Error::config("long_questions", tokens, format!("1 to {most} tokens")))
            }
            LongQuestions::TruncateTo(_) | LongQuestions::Reject => Ok(()),
        }
    }

    /// Tokens a question may have and leave room for one token of its context.
    fn most_question_tokens(&self) -> usize {
        self.max_len - self.context_reads * (self.separator.len() + 1)
    }

    /// The question's tokens that are read.
    fn question_tokens<'a>(&self, id: &str, tokens: &'a [u32]) -> Result<&'a [u32]> {
        match self.long_questions {
            LongQuestions::TruncateTo(most) => Ok(&tokens[..tokens.len().min(most)]),
            LongQuestions::Reject if tokens.len() <= self.most_question_tokens() => Ok(tokens),
            LongQuestions::Reject => Err(Error::LongQuestion {
                id: id.to_owned(),
                got: tokens.len(),
                most: self.most_question_tokens(),
                max_len: self.max_len,
            }),
        }
    }
}

/// One input: a question and a stretch of its context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Index of the example among those given.
    pub example: usize,
    /// The question's id.
    pub id: String,
    /// Token ids of question, separator and context, the latter two as often as the context is read.
    pub ids: Vec<u32>,
    /// Position of the last separator's last token, which stands for "no answer".
    pub null: usize,
    /// Position of the first token of the context, where it is read the last time.
    pub context_start: usize,
    /// Which of the context's tokens the window holds.
    pub context_tokens: Range<usize>,
    /// The gold answer, or [`Window::null`] twice, or nothing to learn.
    pub target: Option<TokenSpan>,
    /// The characters of all tokens of the context; all windows of a context share them.
    offsets: Arc<[CharSpan]>,
}

impl Window {
    /// For each token of the context in the window, its characters in the whole context.
    pub fn offsets(&self) -> &[CharSpan] {
        &self.offsets[self.context_tokens.clone()]
    }

    /// The characters of the context that `tokens` cover; none if `tokens` begin or end outside
    /// of the window's context, or end before they begin.
    pub fn chars(&self, tokens: TokenSpan) -> Option<CharSpan> {
        let offsets = self.offsets();
        let first = offsets.get(tokens.start.checked_sub(self.context_start)?)?;
        let last = offsets.get(tokens.end.checked_sub(self.context_start)?)?;
        (tokens.start <= tokens.end).then_some(CharSpan { start: first.start, end: last.end })
    }

    /// Whether the target is an answer, not "no answer".
    fn points_at_answer(&self) -> bool {
        self.target.is_some_and(|target| target.start != self.null)
    }

    /// Whether `position` may be answered with: a token of the context, or [`Window::null`].
    pub fn is_answerable(&self, position: usize) -> bool {
        position == self.null || (self.context_start..self.ids.len()).contains(&position)
    }
}

/// The windows of a list of examples.
#[derive(Debug, Clone)]
pub struct SpanFeatures {
    examples: Vec<Example>,
    windows: Vec<Window>,
    /// Most tokens in a window.
    max_len: usize,
}

impl SpanFeatures {
    /// Lays out all windows, in the order of the examples and of their contexts.
    ///
    /// # Errors
    /// [`Error::Config`] for a field outside its range, [`Error::LongQuestion`],
    /// [`Error::EmptyContext`], or what the tokenizer says.
    pub fn new(tokenizer: &TextTokenizer, examples: &[Example], config: &SpanConfig) -> Result<Self> {
        config.check()?;
        // Questions of one paragraph come in a row and share their context.
        let paragraphs: Vec<(usize, &[Example])> = examples
            .chunk_by(|one, next| one.context == next.context)
            .scan(0, |behind, questions| {
                let first = *behind;
                *behind += questions.len();
                Some((first, questions))
            })
            .collect();
        let laid_out: Vec<Result<Vec<Window>>> = paragraphs
            .into_par_iter()
            .map(|(first, questions)| {
                let context = TokenizedContext::new(tokenizer, &questions[0])?;
                let mut windows = Vec::with_capacity(questions.len());
                for (position, example) in (first..).zip(questions) {
                    let question = tokenizer.encode_ids(&example.question)?;
                    let question = config.question_tokens(&example.id, &question)?;
                    lay_out(position, example, question, &context, config, &mut windows);
                }
                Ok(windows)
            })
            .collect();
        // The first fault is reported, whichever was found first.
        let windows = laid_out.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        Ok(Self { examples: examples.to_vec(), windows, max_len: config.max_len })
    }

    /// The examples, as given.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// The windows.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// The windows of one example; none if there is no such example.
    pub fn windows_of(&self, example: usize) -> &[Window] {
        let first = self.windows.partition_point(|window| window.example < example);
        let behind = self.windows.partition_point(|window| window.example <= example);
        &self.windows[first..behind]
    }

    /// Some of the examples with their windows, in the order given.
    ///
    /// # Panics
    /// If there is no such example.
    pub fn select(&self, examples: &[usize]) -> Self {
        let windows = examples.iter().enumerate().flat_map(|(position, &example)| {
            self.windows_of(example).iter().map(move |window| Window { example: position, ..window.clone() })
        });
        Self {
            windows: windows.collect(),
            max_len: self.max_len,
            examples: examples.iter().map(|&example| self.examples[example].clone()).collect(),
        }
    }

    /// How many examples have a window to learn from, and why the others have none.
    ///
    /// An answer fits no window where it is longer than what a window has left beside the question, or
    /// lies across the ends of two that overlap by less than its length.
    pub fn target_counts(&self) -> QuestionCounts {
        let mut counts = QuestionCounts::of(self.examples.len());
        let (mut unanswerable, mut lengths) = (0, Vec::new());
        for (position, example) in self.examples.iter().enumerate() {
            let windows = self.windows_of(position);
            if windows.iter().any(Window::points_at_answer) {
                continue;
            }
            if example.answers.is_empty() {
                unanswerable += usize::from(windows.iter().all(|window| window.target.is_none()));
            } else if let Some(window) = windows.first() {
                let tokens = |answer| tokens_of(&window.offsets, answer).map(|tokens| tokens.len());
                lengths.push(example.answers.iter().filter_map(tokens).min().unwrap_or(0));
            }
        }
        if let (Some(&shortest), Some(&longest)) = (lengths.iter().min(), lengths.iter().max()) {
            counts.leave_out(lengths.len(), WhyLeftOut::NoWindow { shortest, longest, window: self.max_len });
        }
        counts.leave_out(unanswerable, WhyLeftOut::Unanswerable);
        counts
    }

    /// Number of windows.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether there is no window.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }
}

struct TokenizedContext {
    ids: Vec<u32>,
    offsets: Arc<[CharSpan]>,
}

impl TokenizedContext {
    fn new(tokenizer: &TextTokenizer, example: &Example) -> Result<Self> {
        let encoding = tokenizer.encode(&example.context)?;
        if encoding.ids.is_empty() {
            return Err(Error::EmptyContext { id: example.id.clone() });
        }
        Ok(Self { ids: encoding.ids, offsets: encoding.offsets.into() })
    }
}

/// The tokens that touch the characters of an answer, as positions in the context.
fn tokens_of(offsets: &[CharSpan], answer: &Answer) -> Option<Range<usize>> {
    let end = answer.start + answer.text.chars().count();
    let first = offsets.partition_point(|token| token.end <= answer.start);
    let behind = offsets.partition_point(|token| token.start < end);
    (first < behind).then_some(first..behind)
}

fn lay_out(
    position: usize,
    example: &Example,
    question: &[u32],
    context: &TokenizedContext,
    config: &SpanConfig,
    windows: &mut Vec<Window>,
) {
    let room = (config.max_len - question.len()) / config.context_reads - config.separator.len();
    let step = room - config.overlap.min(room / 2);
    let answers: Vec<Range<usize>> =
        example.answers.iter().filter_map(|answer| tokens_of(&context.offsets, answer)).collect();
    let mut first = 0;
    loop {
        let behind = context.ids.len().min(first + room);
        let mut ids = question.to_vec();
        for _ in 0..config.context_reads {
            ids.extend_from_slice(&config.separator);
            ids.extend_from_slice(&context.ids[first..behind]);
        }
        let context_start = ids.len() - (behind - first);
        let null = context_start - 1;
        let inside = answers.iter().find(|answer| first <= answer.start && answer.end <= behind);
        let target = match (inside, config.null_target) {
            (Some(answer), _) => Some(TokenSpan {
                start: context_start + answer.start - first,
                end: context_start + answer.end - 1 - first,
            }),
            (None, NullTarget::ImpossibleOrOutside) => Some(TokenSpan { start: null, end: null }),
            (None, NullTarget::Impossible) if example.is_impossible => Some(TokenSpan { start: null, end: null }),
            (None, NullTarget::Impossible | NullTarget::Never) => None,
        };
        windows.push(Window {
            example: position,
            id: example.id.clone(),
            ids,
            null,
            context_start,
            context_tokens: first..behind,
            target,
            offsets: Arc::clone(&context.offsets),
        });
        if behind == context.ids.len() {
            return;
        }
        first += step;
    }
}
