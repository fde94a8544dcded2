//! One piece of work, and the list of all.

use crate::{gpt2, quantise};

/// What a case's throughput counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes read, of the input alone.
    Bytes,
    /// Tokens.
    Tokens,
    /// Multiply-accumulate operations.
    Macs,
}

/// One piece of work with its tensors ready.
///
/// Building one runs it once and asserts its answer.
#[expect(missing_debug_implementations, reason = "it is a closure")]
pub struct Case {
    /// `group/case/params`.
    pub id: String,
    /// What one run works on.
    pub amount: (u64, Unit),
    /// Does the work once; the result is there when it returns.
    pub run: Box<dyn FnMut()>,
}

/// The ids of all cases.
pub fn known_ids() -> Vec<String> {
    [quantise::ids(), gpt2::ids()].concat()
}

/// Makes a case, or `None` for an id that is not known.
pub fn build(id: &str) -> Option<Case> {
    quantise::build(id).or_else(|| gpt2::build(id))
}
