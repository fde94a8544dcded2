//! Where tokens stand in their sequences.

use std::ops::Range;

use burn::tensor::{Bool, Int, Tensor, TensorData, backend::Backend};

use crate::error::{Error, Result};

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
    /// One for each token; those of padding are any that exist.
    Counted(CountedPositions<B>),
}

/// A position for each token of a batch, `[batch, tokens]`.
#[derive(Debug, Clone)]
pub struct CountedPositions<B: Backend> {
    positions: Tensor<B, 2, Int>,
    /// Some bound of them: all are below it. It saves reading them.
    below: usize,
}

impl<B: Backend> CountedPositions<B> {
    /// Positions, `[batch, tokens]`, counted from 0. They are read, which waits for the device.
    pub fn new(positions: Tensor<B, 2, Int>) -> Self {
        let below = one_more_than_the_last(&positions);
        Self { positions, below }
    }

    /// Positions of the tokens that are not padding.
    fn of_padding(padding: &Tensor<B, 2, Bool>) -> Self {
        let [_, tokens] = padding.dims();
        let real = padding.clone().bool_not().int();
        Self { positions: (real.cumsum(1) - 1).clamp_min(0), below: tokens }
    }

    /// Positions of tokens that stand at the same places in every sequence of a batch, behind so many tokens of
    /// padding in each.
    pub(crate) fn behind_padding(tokens: Range<usize>, padding: &[usize], device: &B::Device) -> Self {
        let shape = [padding.len(), tokens.len()];
        let place = |padding: usize| tokens.clone().map(move |token| token.saturating_sub(padding) as i64);
        let positions: Vec<i64> = padding.iter().flat_map(|&padding| place(padding)).collect();
        let below = positions.iter().max().map_or(0, |&last| last as usize + 1);
        Self { positions: Tensor::from_data(TensorData::new(positions, shape), device), below }
    }

    /// The positions, `[batch, tokens]`.
    pub fn tensor(&self) -> Tensor<B, 2, Int> {
        self.positions.clone()
    }
}

fn one_more_than_the_last<B: Backend>(positions: &Tensor<B, 2, Int>) -> usize {
    positions.to_data().iter::<i64>().max().map_or(0, |last| usize::try_from(last + 1).unwrap_or(usize::MAX))
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
            Some(padding) => Self::Counted(CountedPositions::of_padding(padding)),
        }
    }

    /// Checks that all of them are among the positions of a model. They are read only where there are so
    /// many tokens that one might not be.
    ///
    /// # Errors
    ///
    /// [`Error::SequenceLength`] with the length of the longest sequence.
    pub fn check(&self, positions: usize) -> Result<()> {
        let got = match self {
            Self::Consecutive { first, tokens } => first + tokens,
            Self::Counted(counted) if counted.below <= positions => counted.below,
            Self::Counted(counted) => one_more_than_the_last(&counted.positions),
        };
        if got <= positions { Ok(()) } else { Err(Error::SequenceLength { got, positions }) }
    }

    /// Refuses positions that [`check`](Self::check) refuses.
    ///
    /// # Panics
    ///
    /// When one of them is beyond the model's; the message names the longest sequence and the positions.
    pub fn expect(&self, positions: usize) {
        match self.check(positions) {
            Err(Error::SequenceLength { got, positions }) => {
                panic!("{got} tokens exceed the model's {positions} positions")
            }
            Err(error) => panic!("{error}"),
            Ok(()) => {}
        }
    }
}
