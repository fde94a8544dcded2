//! Where tokens stand in their sequences.

use burn::tensor::{Bool, Int, Tensor, backend::Backend};

/// The positions of a batch of tokens, counted from 0 at each sequence's first real token.
#[derive(Debug, Clone)]
pub enum Positions<B: Backend> {
    /// The same in every sequence: `first`, `first + 1`, … .
    Consecutive {
        /// Position of the first token.
        first: usize,
        /// Number of tokens.
        tokens: usize,
    },
    /// One for each token, `[batch, tokens]`; those of padding are any that exist.
    Counted(Tensor<B, 2, Int>),
}

impl<B: Backend> Positions<B> {
    /// Positions of whole sequences: `padding` is true at padding and may stand left or right of the
    /// tokens.
    ///
    /// # Shapes
    ///
    /// `padding`: `[batch, tokens]`.
    pub fn of_sequences(tokens: usize, padding: Option<&Tensor<B, 2, Bool>>) -> Self {
        match padding {
            None => Self::Consecutive { first: 0, tokens },
            Some(padding) => {
                let real = padding.clone().bool_not().int();
                Self::Counted((real.cumsum(1) - 1).clamp_min(0))
            }
        }
    }
}
