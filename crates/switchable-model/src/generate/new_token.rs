//! A token as it is generated.

/// A token that was generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NewToken {
    /// The sequence that it continues, counted from 0 in the order of the prompts.
    pub sequence: usize,
    /// Its id.
    pub token: u32,
}
