//! Windows put together into padded batches, in an order that can be taken up again anywhere.
//!
//! ```text
//! order(epoch) = shuffle(windows; seed, epoch) → pools of bucket·size, each sorted by length
//!              → batches of size → shuffled
//! ```
//!
//! The order is a function of the configuration and the epoch alone, so that training that was
//! stopped at `(epoch, step)` continues with exactly the batches it would have seen.
//!
//! ```
//! # use squad_data::*;
//! # let corpus = generate(&GeneratorConfig::new(Split::Train, 20, 1))?;
//! # let tokenizer = TextTokenizer::train_bpe(corpus_texts(&corpus), &BpeConfig::default())?;
//! # let special = SpecialTokens::of(&tokenizer)?;
//! # let config = SpanConfig::new(128, special.separator.clone());
//! # let features = SpanFeatures::new(&tokenizer, &corpus.examples(), &config)?;
//! let batches = Batches::new(&features, BatchConfig::training(16, special.pad, 7))?;
//! assert_eq!(batches.steps_per_epoch(), 3); // 60 windows; the 12 left over wait an epoch
//!
//! let whole: Vec<Batch> = batches.iter_from(0, 0).take(8).collect();
//! let resumed: Vec<Batch> = batches.iter_from(1, 2).take(3).collect();
//! assert_eq!(whole[5..], resumed);
//! assert_eq!(resumed[0].ids.len(), resumed[0].batch * resumed[0].len);
//! # Ok::<(), Error>(())
//! ```

#[cfg(test)]
mod tests;

use std::iter::FusedIterator;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::error::{Error, Result};
use crate::windows::{SpanFeatures, Window};

/// Stands in [`Batch::starts`] and [`Batch::ends`] where a window has no target.
pub const NO_TARGET: i64 = -1;

/// In which order windows are visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BatchOrder {
    /// As they are, in every epoch.
    Sequential,
    /// Shuffled, differently in every epoch.
    Shuffled {
        /// Chooses the orders.
        seed: u64,
    },
}

/// What becomes of the windows that do not fill a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LastBatch {
    /// They make a smaller batch.
    Keep,
    /// They are left out of the epoch.
    Drop,
}

/// Which windows are visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Select {
    /// All of them.
    All,
    /// Those that have a target.
    WithTarget,
}

/// How [`Batches`] are put together.
///
/// | field | range | training | evaluation |
/// |---|---|---|---|
/// | `size` | 1.. | given | given |
/// | `order` | | shuffled | sequential |
/// | `bucket` | any; 0 and 1 sort nothing | 16 | 1,024 |
/// | `last` | | drop | keep |
/// | `select` | | with target | all |
/// | `pad_to_multiple_of` | 1.. | 1 | 1 |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchConfig {
    /// Windows in a batch.
    pub size: usize,
    /// The token id behind the shorter windows.
    pub pad_id: u32,
    /// In which order windows are visited.
    pub order: BatchOrder,
    /// Batches whose windows are sorted by length together, so that little is padded.
    pub bucket: usize,
    /// What becomes of the windows that do not fill a batch.
    pub last: LastBatch,
    /// Which windows are visited.
    pub select: Select,
    /// The length of every batch is a multiple of this.
    pub pad_to_multiple_of: usize,
}

impl BatchConfig {
    /// Shuffled, full batches of windows that have a target.
    pub fn training(size: usize, pad_id: u32, seed: u64) -> Self {
        Self {
            size,
            pad_id,
            order: BatchOrder::Shuffled { seed },
            bucket: 16,
            last: LastBatch::Drop,
            select: Select::WithTarget,
            pad_to_multiple_of: 1,
        }
    }

    /// Every window once, those of like length together.
    pub fn evaluation(size: usize, pad_id: u32) -> Self {
        Self {
            size,
            pad_id,
            order: BatchOrder::Sequential,
            bucket: 1024,
            last: LastBatch::Keep,
            select: Select::All,
            pad_to_multiple_of: 1,
        }
    }
}

/// Windows of one step, padded at the right to a common length.
///
/// # Shapes
/// - `ids`, `attention`, `answerable`: `[batch, len]`, row by row
/// - `starts`, `ends`, `windows`: `[batch]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Token ids.
    pub ids: Vec<i64>,
    /// Whether a position holds a token, not padding.
    pub attention: Vec<bool>,
    /// Whether a position may be answered with: a token of the context, or "no answer".
    pub answerable: Vec<bool>,
    /// First token of each target, or [`NO_TARGET`].
    pub starts: Vec<i64>,
    /// Last token of each target, or [`NO_TARGET`].
    pub ends: Vec<i64>,
    /// Index of each window among those of the features.
    pub windows: Vec<usize>,
    /// Number of windows.
    pub batch: usize,
    /// Positions in each window, padding included.
    pub len: usize,
    /// The epoch the batch belongs to.
    pub epoch: usize,
    /// Its number in the epoch.
    pub step: usize,
}

impl Batch {
    /// Number of tokens, padding left out.
    pub fn tokens(&self) -> usize {
        self.attention.iter().filter(|&&is_token| is_token).count()
    }
}

/// Batches over the windows of some features.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    windows: &'a [Window],
    selected: Vec<usize>,
    config: BatchConfig,
}

impl<'a> Batches<'a> {
    /// Prepares batches; nothing is padded yet.
    ///
    /// # Errors
    /// [`Error::Config`] for a field outside its range, or if there is no batch at all.
    pub fn new(features: &'a SpanFeatures, config: BatchConfig) -> Result<Self> {
        let sizes = [("size", config.size), ("pad_to_multiple_of", config.pad_to_multiple_of)];
        for (field, got) in sizes {
            if got == 0 {
                return Err(Error::config(field, got, "at least 1"));
            }
        }
        let windows = features.windows();
        let selected: Vec<usize> = (0..windows.len())
            .filter(|&index| match config.select {
                Select::All => true,
                Select::WithTarget => windows[index].target.is_some(),
            })
            .collect();
        let (field, least) = match config.last {
            LastBatch::Keep => ("select", 1),
            LastBatch::Drop => ("size", config.size),
        };
        if selected.len() < least {
            let expected = format!("at least {least} windows to put into batches");
            return Err(Error::config(field, selected.len(), expected));
        }
        Ok(Self { windows, selected, config })
    }

    /// Batches in each epoch.
    pub fn steps_per_epoch(&self) -> usize {
        match self.config.last {
            LastBatch::Keep => self.selected.len().div_ceil(self.config.size),
            LastBatch::Drop => self.selected.len() / self.config.size,
        }
    }

    /// The batches of one epoch.
    pub fn epoch(&self, epoch: usize) -> EpochBatches<'_> {
        EpochBatches { batches: self, order: self.order(epoch), epoch, step: 0 }
    }

    /// All batches from `step` of `epoch` on, epoch after epoch, without end.
    ///
    /// A `step` past the epoch's last counts on in the epochs behind it.
    pub fn iter_from(&self, epoch: usize, step: usize) -> EndlessBatches<'_> {
        let steps = self.steps_per_epoch();
        let mut current = self.epoch(epoch + step / steps);
        current.step = step % steps;
        EndlessBatches { current }
    }

    /// The windows of each batch of `epoch`.
    fn order(&self, epoch: usize) -> Vec<Vec<usize>> {
        let size = self.config.size;
        let mut order = self.selected.clone();
        let mut rng = match self.config.order {
            BatchOrder::Sequential => None,
            BatchOrder::Shuffled { seed } => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(epoch as u64);
                Some(rng)
            }
        };
        if let Some(rng) = &mut rng {
            order.shuffle(rng);
        }
        if self.config.last == LastBatch::Drop {
            order.truncate(order.len() / size * size);
        }
        if self.config.bucket > 1 {
            for pool in order.chunks_mut(self.config.bucket.saturating_mul(size)) {
                pool.sort_by_key(|&index| self.windows[index].ids.len());
            }
        }
        let mut batches: Vec<Vec<usize>> = order.chunks(size).map(<[usize]>::to_vec).collect();
        if let Some(rng) = &mut rng {
            batches.shuffle(rng);
        }
        batches
    }

    fn pad(&self, indices: &[usize], epoch: usize, step: usize) -> Batch {
        let windows = indices.iter().map(|&index| &self.windows[index]);
        let longest = windows.clone().map(|w| w.ids.len()).max().unwrap_or(0);
        let len = longest.next_multiple_of(self.config.pad_to_multiple_of);
        let mut batch = Batch {
            ids: Vec::with_capacity(indices.len() * len),
            attention: Vec::with_capacity(indices.len() * len),
            answerable: Vec::with_capacity(indices.len() * len),
            starts: Vec::with_capacity(indices.len()),
            ends: Vec::with_capacity(indices.len()),
            windows: indices.to_vec(),
            batch: indices.len(),
            len,
            epoch,
            step,
        };
        for window in windows {
            let ids = window.ids.iter().map(|&id| i64::from(id));
            let padding = std::iter::repeat(i64::from(self.config.pad_id));
            batch.ids.extend(ids.chain(padding).take(len));
            for position in 0..len {
                batch.attention.push(position < window.ids.len());
                batch.answerable.push(window.is_answerable(position));
            }
            let (start, end) = match window.target {
                Some(target) => (target.start as i64, target.end as i64),
                None => (NO_TARGET, NO_TARGET),
            };
            batch.starts.push(start);
            batch.ends.push(end);
        }
        batch
    }
}

/// The batches of one epoch; see [`Batches::epoch`].
#[derive(Debug, Clone)]
pub struct EpochBatches<'a> {
    batches: &'a Batches<'a>,
    order: Vec<Vec<usize>>,
    epoch: usize,
    step: usize,
}

impl Iterator for EpochBatches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let indices = self.order.get(self.step)?;
        let batch = self.batches.pad(indices, self.epoch, self.step);
        self.step += 1;
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.order.len() - self.step;
        (left, Some(left))
    }
}

impl ExactSizeIterator for EpochBatches<'_> {}

impl FusedIterator for EpochBatches<'_> {}

/// Batches without end; see [`Batches::iter_from`].
#[derive(Debug, Clone)]
pub struct EndlessBatches<'a> {
    current: EpochBatches<'a>,
}

impl Iterator for EndlessBatches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        if self.current.len() == 0 {
            self.current = self.current.batches.epoch(self.current.epoch + 1);
        }
        self.current.next()
    }
}
