//! Sequences of different lengths that are continued together.

use std::ops::{ControlFlow, Range};

use quant_kernels::backends::quant_backend::QuantBackend;

use super::chooser::Chooser;
use super::new_token::NewToken;
use super::options::GenerateOptions;
use crate::error::{Error, Result};
use crate::kv_cache::KvCache;
use crate::model::SwitchableModel;
use crate::parameters::floats;
use crate::shape::ModelShape;
use crate::site_plan::SitePlan;
use crate::token_tensor::token_tensor;

/// Stands where there is no token. It is not attended to.
const PADDING: u32 = 0;

/// The sequences, and what they have in common.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    sequences: Vec<Sequence<'a>>,
    stop: &'a [u32],
    shape: ModelShape,
}

#[derive(Debug)]
struct Sequence<'a> {
    prompt: &'a [u32],
    new: Vec<u32>,
    /// New tokens at most.
    room: usize,
    chooser: Chooser,
}

impl<'a> Batch<'a> {
    /// Prompts and options that were checked.
    pub(super) fn new(prompts: &[&'a [u32]], options: &'a GenerateOptions, shape: ModelShape) -> Self {
        let sequences = prompts.iter().map(|&prompt| Sequence {
            prompt,
            new: Vec::new(),
            room: options.room(prompt.len(), shape.positions),
            chooser: Chooser::new(prompt, options),
        });
        Self { sequences: sequences.collect(), stop: &options.stop, shape }
    }

    /// One sequence of `read` tokens, of which `next` are the last, in a cache of some tokens.
    pub(super) fn behind(
        read: usize,
        next: &'a [u32],
        options: &'a GenerateOptions,
        shape: ModelShape,
        capacity: usize,
    ) -> Self {
        // The last token of a text is not read and takes no room.
        let room = options.room(read, shape.positions.min(capacity));
        let sequence = Sequence { prompt: next, new: Vec::new(), room, chooser: Chooser::new(next, options) };
        Self { sequences: vec![sequence], stop: &options.stop, shape }
    }

    /// Whether any sequence can be continued.
    pub(super) fn has_room(&self) -> bool {
        self.sequences.iter().any(|sequence| sequence.room > 0)
    }

    /// The new tokens of each sequence.
    pub(super) fn into_new_tokens(self) -> Vec<Vec<u32>> {
        self.sequences.into_iter().map(|sequence| sequence.new).collect()
    }

    /// Continues some sequences to their ends.
    pub(super) fn run<B: QuantBackend, M: SwitchableModel<B>>(
        &mut self,
        sequences: Range<usize>,
        model: &M,
        plan: &SitePlan,
        on_token: &mut impl FnMut(NewToken) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let device = model.device();
        let active: Vec<usize> = sequences.filter(|&index| self.sequences[index].room > 0).collect();
        let longest = active.iter().map(|&index| self.sequences[index].prompt.len()).max().unwrap_or(0);
        let room = active.iter().map(|&index| self.sequences[index].room).max().unwrap_or(0);
        if active.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let padding: Vec<usize> = active.iter().map(|&index| longest - self.sequences[index].prompt.len()).collect();
        let padded = active.iter().zip(&padding).flat_map(|(&index, &padding)| {
            std::iter::repeat_n(PADDING, padding).chain(self.sequences[index].prompt.iter().copied())
        });
        let next: Vec<u32> = padded.collect();
        // The last token of a text is not read.
        let mut cache = KvCache::<B>::left_padded(&self.shape, padding, longest + room - 1, &device);
        self.run_behind(active, next, &mut cache, model, plan, on_token)
    }

    /// Continues some sequences to their ends, `next` being those of their tokens that the cache does not hold.
    pub(super) fn run_behind<B: QuantBackend, M: SwitchableModel<B>>(
        &mut self,
        mut active: Vec<usize>,
        mut next: Vec<u32>,
        cache: &mut KvCache<B>,
        model: &M,
        plan: &SitePlan,
        on_token: &mut impl FnMut(NewToken) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let device = model.device();
        loop {
            let tokens = next.len() / active.len();
            let ids = token_tensor::<B>(&next, [active.len(), tokens], &device);
            let hidden = model.forward_cached(ids, cache, plan);
            let last = hidden.slice([0..active.len(), tokens - 1..tokens, 0..self.shape.width]);
            let mut scores = floats(model.next_token_scores(last, plan).into_data());
            let mut going_on = Vec::new();
            for (row, scores) in scores.chunks_exact_mut(self.shape.vocabulary).enumerate() {
                let index = active[row];
                let sequence = &mut self.sequences[index];
                let token = sequence.chooser.choose(scores).map_err(|got| Error::Scores {
                    sequence: index,
                    tokens: sequence.prompt.len() + sequence.new.len(),
                    got,
                })?;
                if self.stop.contains(&token) {
                    continue;
                }
                sequence.new.push(token);
                if on_token(NewToken { sequence: index, token }).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                if sequence.new.len() < sequence.room {
                    going_on.push(row);
                }
            }
            if going_on.is_empty() {
                break;
            }
            if going_on.len() < active.len() {
                active = going_on.iter().map(|&row| active[row]).collect();
                cache.keep_sequences(&going_on);
            }
            next = active.iter().filter_map(|&index| self.sequences[index].new.last().copied()).collect();
        }
        Ok(ControlFlow::Continue(()))
    }
}
