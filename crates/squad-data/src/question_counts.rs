//! How many questions there are, how many were left out, and why.
//!
//! ```
//! use squad_data::{QuestionCounts, WhyLeftOut};
//!
//! let mut counts = QuestionCounts::of(2);
//! counts.leave_out(1, WhyLeftOut::NoWindow { shortest: 70, longest: 70, window: 64 });
//! assert_eq!(
//!     counts.text("training questions"),
//!     "1 of 2 training questions (1 answer of 70 tokens fits no window of 64)"
//! );
//! assert_eq!(QuestionCounts::of(3).text("questions"), "3 questions");
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

/// The questions there are, and those that were left out on the way, by reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct QuestionCounts {
    /// Questions before any was left out.
    pub all: usize,
    /// Questions that are left.
    pub used: usize,
    /// What was left out, in the order in which it was.
    pub left_out: Vec<LeftOut>,
}

/// Questions that were left out for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeftOut {
    /// Their number.
    pub questions: usize,
    /// The reason.
    pub why: WhyLeftOut,
}

/// Why questions were left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WhyLeftOut {
    /// None of their answers stands at its offset.
    BadOffsets,
    /// They are behind the number that was asked for.
    Limit,
    /// Their answers are longer than what a window holds of a context, or than what windows share.
    NoWindow {
        /// Tokens of the shortest of these answers.
        shortest: usize,
        /// Tokens of the longest of these answers.
        longest: usize,
        /// Most tokens of a window.
        window: usize,
    },
    /// Their prompts hold the start of their context alone, and no answer is in it.
    CutContext,
    /// They have no answer, and windows without one have nothing to point to.
    Unanswerable,
    /// Their id stands before another question, and version 2.0 scores an id once.
    Repeated,
    /// A threshold was chosen on them, so that they measure nothing.
    ChoseThreshold,
}

impl QuestionCounts {
    /// So many questions, none left out.
    pub fn of(all: usize) -> Self {
        Self { all, used: all, left_out: Vec::new() }
    }

    /// Leaves out some of the questions that are left; none changes nothing.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn leave_out(&mut self, questions: usize, why: WhyLeftOut) {
        assert!(questions <= self.used, "{questions} of {} questions left out", self.used);
        if questions > 0 {
            self.used -= questions;
            self.left_out.push(LeftOut { questions, why });
        }
    }

    /// These and those of another file.
    pub fn add(&mut self, other: Self) {
        self.all += other.all;
        self.used += other.used;
        for more in other.left_out {
            match self.left_out.iter_mut().find(|known| known.why == more.why) {
                Some(known) => known.questions += more.questions,
                None => self.left_out.push(more),
            }
        }
    }

    /// As a line says it, `what` being the plural of what is counted.
    pub fn text(&self, what: &str) -> String {
        if self.left_out.is_empty() {
            return format!("{} {what}", self.all);
        }
        let why: Vec<String> = self.left_out.iter().map(ToString::to_string).collect();
        format!("{} of {} {what} ({})", self.used, self.all, why.join("; "))
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.questions;
        let (question, has) = if n == 1 { ("question", "has") } else { ("questions", "have") };
        match &self.why {
            WhyLeftOut::BadOffsets => write!(f, "{n} {question} {has} no answer at its offset"),
            WhyLeftOut::Limit => write!(f, "{n} beyond the limit"),
            WhyLeftOut::NoWindow { shortest, longest, window } => {
                let (answer, fit) = if n == 1 { ("answer", "fits") } else { ("answers", "fit") };
                let tokens = if shortest == longest { longest.to_string() } else { format!("{shortest} to {longest}") };
                write!(f, "{n} {answer} of {tokens} tokens {fit} no window of {window}")
            }
            WhyLeftOut::CutContext => {
                write!(f, "{n} {question} whose prompt has no room for the answer's part of the context")
            }
            WhyLeftOut::Unanswerable => write!(f, "{n} {question} without an answer"),
            WhyLeftOut::Repeated => write!(f, "{n} {question} of an id that comes back"),
            WhyLeftOut::ChoseThreshold => write!(f, "{n} {question} to choose the null threshold on"),
        }
    }
}
