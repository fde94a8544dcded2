//! An example whose gold answers no edit can touch.
//!
//! ```text
//! edit (s, e, t):  text ← text[..s] ‖ t ‖ text[e..]
//! allowed iff      e ≤ g.start or g.end ≤ s                  for every gold span g of the context
//! g.start  ←       g.start + Σ (|t| − (e − s)) over edits that end at or before g.start
//! ```
//!
//! Offsets count characters. A gold answer stays extractable: its text stands at its new offset, and
//! no letter or digit is put against its first or last one where none stood before.

use std::fmt;

use serde::{Deserialize, Serialize};

use squad_data::{CharSpan, Example};

use crate::error::{Error, Result};

/// One of the two texts of an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The question.
    Question,
    /// The context.
    Context,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Question => "question",
            Self::Context => "context",
        })
    }
}

/// Where an attack looks for words to edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EditScope {
    /// Question and context.
    #[default]
    Everywhere,
    /// The question alone.
    Question,
    /// The context alone.
    Context,
}

/// Whether an attack edits words with a capital letter, which are mostly names, and numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Names {
    /// They stay, and none is put in: another name or number asks another question.
    #[default]
    Keep,
    /// They are words like any other.
    Change,
}

impl Names {
    /// Whether a piece of text may be edited, or put in.
    pub fn allow(self, text: &str) -> bool {
        match self {
            Self::Keep => !text.contains(|c: char| c.is_uppercase() || c.is_numeric()),
            Self::Change => true,
        }
    }
}

/// An item that cannot be attacked, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unattackable {
    /// The question has no gold answer that could stay extractable.
    #[error("the question has no gold answer")]
    NoAnswer,
    /// A gold answer does not stand at its offset.
    #[error("a gold answer does not stand at its offset")]
    AnswerNotAtOffset,
    /// There is no word outside the gold answers that the attack could change.
    #[error("no word outside the gold answers can be changed")]
    NoEditableWord,
    /// No word is one whose misspellings are known.
    #[error("no word has a known misspelling")]
    NoKnownWord,
    /// The question names nothing whose change would make it another question.
    #[error("the question names no entity or number to change")]
    NoEntity,
    /// Every distractor that was tried holds a gold answer.
    #[error("the distractor would hold a gold answer")]
    AnswerInDistractor,
    /// No replacement that was tried is possible at its place.
    #[error("no replacement fits anywhere")]
    NoCandidate,
    /// No window of the model holds the whole answer.
    #[error("the answer fits no window")]
    AnswerOutsideWindow,
    /// The edited question leaves no room for its context.
    #[error("the edited question is longer than the window")]
    QuestionTooLong,
}

/// Characters of one text and what takes their place; an empty span inserts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// The text.
    pub place: Place,
    /// The characters, counted before any edit.
    pub chars: CharSpan,
    /// Their replacement.
    pub text: String,
}

/// A word that may be edited: letters alone, no letter or digit beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Its text.
    pub place: Place,
    /// Where it stands.
    pub chars: CharSpan,
    /// The word.
    pub text: String,
}

impl Word {
    /// The edit that puts another word in its place.
    pub fn replaced_by(&self, text: impl Into<String>) -> Edit {
        Edit { place: self.place, chars: self.chars, text: text.into() }
    }
}

/// An example with at least one gold answer, all of which stand where they say.
///
/// ```
/// use experiments::robustness::protected_example::{Edit, EditScope, Place, ProtectedExample};
/// use squad_data::{Answer, CharSpan, Example};
///
/// let example = Example {
///     id: "q".into(),
///     context: "Zoë drinks black tea.".into(),
///     question: "What does Zoë drink?".into(),
///     answers: vec![Answer { text: "tea".into(), start: 17 }],
///     is_impossible: false,
/// };
/// let item = ProtectedExample::new(example).expect("it has an answer");
/// let drinks = &item.words(EditScope::Context)[1];
/// let edited = item.edit(&[drinks.replaced_by("sips")])?;
/// assert_eq!(&*edited.example().context, "Zoë sips black tea.");
/// assert_eq!(edited.example().answers[0].start, 15);
///
/// let gold = Edit { place: Place::Context, chars: CharSpan { start: 16, end: 18 }, text: "a".into() };
/// assert!(item.edit(&[gold]).is_err());
/// # Ok::<(), experiments::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectedExample {
    example: Example,
    question: Vec<char>,
    context: Vec<char>,
    /// One span per gold answer, in the order of the answers.
    gold: Vec<CharSpan>,
}

impl ProtectedExample {
    /// Protects the gold answers of an example.
    ///
    /// # Errors
    ///
    /// [`Unattackable::NoAnswer`] without a gold answer, [`Unattackable::AnswerNotAtOffset`] when one
    /// does not stand where it says.
    pub fn new(example: Example) -> Result<Self, Unattackable> {
        if example.is_impossible || example.answers.is_empty() {
            return Err(Unattackable::NoAnswer);
        }
        let (question, context) = (example.question.chars().collect(), example.context.chars().collect::<Vec<_>>());
        let span = |start: usize, text: &str| CharSpan { start, end: start + text.chars().count() };
        let gold: Vec<CharSpan> = example.answers.iter().map(|answer| span(answer.start, &answer.text)).collect();
        let stands = |(answer, span): (&squad_data::Answer, &CharSpan)| {
            !answer.text.is_empty()
                && context.get(span.start..span.end).is_some_and(|chars| chars.iter().copied().eq(answer.text.chars()))
        };
        if !example.answers.iter().zip(&gold).all(stands) {
            return Err(Unattackable::AnswerNotAtOffset);
        }
        Ok(Self { example, question, context, gold })
    }

    /// The example.
    pub fn example(&self) -> &Example {
        &self.example
    }

    /// The example itself.
    pub fn into_example(self) -> Example {
        self.example
    }

    /// Where the gold answers stand in the context, in their order.
    pub fn gold(&self) -> &[CharSpan] {
        &self.gold
    }

    /// Whether another example is a version of this one: the same question with the same answers.
    pub fn has_same_answers(&self, other: &Self) -> bool {
        let texts = |item: &Self| item.example.answers.iter().map(|answer| answer.text.clone()).collect::<Vec<_>>();
        self.example.id == other.example.id && texts(self) == texts(other)
    }

    /// Whether characters of a text hold, or are part of, a gold answer.
    pub fn is_gold(&self, place: Place, chars: CharSpan) -> bool {
        place == Place::Context && self.gold.iter().any(|gold| chars.start < gold.end && gold.start < chars.end)
    }

    /// Every run of letters and digits that a piece of a text touches, whole.
    pub fn around(&self, place: Place, chars: CharSpan) -> String {
        let text = self.chars(place);
        let before = text[..chars.start].iter().rev().take_while(|c| c.is_alphanumeric()).count();
        let behind = text[chars.end..].iter().take_while(|c| c.is_alphanumeric()).count();
        text[chars.start - before..chars.end + behind].iter().collect()
    }

    /// The runs of letters and digits that [`Names::Keep`] keeps, in both texts.
    pub fn names(&self) -> Vec<&str> {
        let texts = [self.example.question.as_str(), &*self.example.context];
        let runs = texts.into_iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric()));
        runs.filter(|run| !Names::Keep.allow(run)).collect()
    }

    /// The words outside all gold answers, question first.
    pub fn words(&self, scope: EditScope) -> Vec<Word> {
        let places: &[Place] = match scope {
            EditScope::Everywhere => &[Place::Question, Place::Context],
            EditScope::Question => &[Place::Question],
            EditScope::Context => &[Place::Context],
        };
        let mut words = Vec::new();
        for &place in places {
            let chars = self.chars(place);
            let mut start = 0;
            while start < chars.len() {
                let end = start + chars[start..].iter().take_while(|c| c.is_alphanumeric()).count();
                let span = CharSpan { start, end };
                let run = &chars[start..end];
                if end > start && run.iter().all(|c| c.is_alphabetic()) && !self.is_gold(place, span) {
                    words.push(Word { place, chars: span, text: run.iter().collect() });
                }
                start = end.max(start + 1);
            }
        }
        words
    }

    /// The example after some edits, which count characters before any of them.
    ///
    /// # Errors
    ///
    /// [`Error::Edit`] when an edit lies outside its text, overlaps another one, touches a gold answer
    /// or puts a letter or digit against it, or when nothing is left of the question.
    pub fn edit(&self, edits: &[Edit]) -> Result<Self> {
        let mut sorted: Vec<&Edit> = edits.iter().collect();
        sorted.sort_by_key(|edit| (edit.place, edit.chars.start, edit.chars.end));
        let Some(&first) = sorted.first() else { return Ok(self.clone()) };
        let refuse = |edit: &Edit, reason| {
            Err(Error::Edit { id: self.example.id.clone(), place: edit.place, chars: edit.chars, reason })
        };
        for (i, edit) in sorted.iter().enumerate() {
            let CharSpan { start, end } = edit.chars;
            if start > end || end > self.chars(edit.place).len() {
                return refuse(edit, "lies outside the text");
            }
            let before = i.checked_sub(1).map(|i| sorted[i]).filter(|before| before.place == edit.place);
            if before.is_some_and(|before| start < before.chars.end) {
                return refuse(edit, "overlaps another edit");
            }
            if self.is_gold(edit.place, edit.chars) {
                return refuse(edit, "touches a gold answer");
            }
        }
        let of = |place| sorted.iter().copied().filter(move |edit| edit.place == place);
        let question = spliced(&self.question, of(Place::Question));
        let context = spliced(&self.context, of(Place::Context));
        let mut example = self.example.clone();
        for answer in &mut example.answers {
            let shift = |edit: &Edit| edit.text.chars().count() as isize - (edit.chars.end - edit.chars.start) as isize;
            let moved: isize = of(Place::Context).filter(|edit| edit.chars.end <= answer.start).map(shift).sum();
            answer.start = answer.start.checked_add_signed(moved).unwrap_or(usize::MAX);
        }
        example.question = question.iter().collect();
        example.context = context.iter().collect::<String>().into();
        let Ok(edited) = Self::new(example) else { return refuse(first, "moves a gold answer") };
        if edited.example.question.trim().is_empty() {
            return refuse(first, "leaves nothing of the question");
        }
        for (old, new) in self.gold.iter().zip(&edited.gold) {
            let (old, new) = (is_glued(&self.context, *old), is_glued(&edited.context, *new));
            if (new.0 && !old.0) || (new.1 && !old.1) {
                return refuse(first, "puts a letter or digit against a gold answer");
            }
        }
        Ok(edited)
    }

    fn chars(&self, place: Place) -> &[char] {
        match place {
            Place::Question => &self.question,
            Place::Context => &self.context,
        }
    }
}

/// A text with some of its pieces replaced; the edits are in order and do not overlap.
fn spliced<'e>(text: &[char], edits: impl Iterator<Item = &'e Edit>) -> Vec<char> {
    let (mut out, mut from) = (Vec::with_capacity(text.len()), 0);
    for edit in edits {
        out.extend(&text[from..edit.chars.start]);
        out.extend(edit.text.chars());
        from = edit.chars.end;
    }
    out.extend(&text[from..]);
    out
}

/// Whether the letter or digit at either end of a span has another one beside it, outside.
fn is_glued(text: &[char], span: CharSpan) -> (bool, bool) {
    let both = |outside: Option<&char>, inside: Option<&char>| {
        outside.zip(inside).is_some_and(|(a, b)| a.is_alphanumeric() && b.is_alphanumeric())
    };
    let before = span.start.checked_sub(1).and_then(|i| text.get(i));
    (both(before, text.get(span.start)), both(text.get(span.end), text.get(span.end.wrapping_sub(1))))
}
