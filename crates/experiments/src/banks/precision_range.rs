//! Precision range test: the fewest bits at which training still gets on.
//!
//! ```text
//! progress(b) = mean loss of the first k steps − mean loss of the last k steps       at b bits
//! B_min       = the lowest b with progress(b) > threshold
//! ```
//!
//! Every width is trained alone and from the same start. Below `B_min` a step carries more
//! quantisation noise than signal, and a cyclic schedule should not go there.
//!
//! Source: Fu et al., *CPT*, arXiv:2101.09868, section 3.3, where one model climbs through the
//! widths; here each width has an adapter of its own, so each starts anew.

use serde::{Deserialize, Serialize};

use quant_kernels::{backends::quant_backend::QuantAutodiffBackend, spec::bit_width::BitWidth};
use span_reader::evaluation::question_task::TaskRef;
use span_reader::statistics::mean;
use switchable_model::model::TrainableModel;
use switchable_model::span_head::ForQuestionAnswering;

use crate::banks::bank::{BankConfig, RegimeOfBank, train_bank_with};
use crate::error::{Error, Result};
use crate::train::ladder::Ladder;
use crate::train::regimes::config::RegimeConfig;
use crate::train::trainer::{TrainRun, Training};

/// Training at one width.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WidthProgress {
    /// The width.
    pub bits: BitWidth,
    /// Mean loss of the first quarter of the steps, nats.
    pub first_loss: f64,
    /// Mean loss of the last quarter of the steps, nats.
    pub last_loss: f64,
    /// First minus last, nats.
    pub progress: f64,
}

/// Result of the test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrecisionRange {
    /// Every width, ascending.
    pub widths: Vec<WidthProgress>,
    /// Steps at each width.
    pub steps: usize,
    /// Progress that counts as getting on, nats.
    pub threshold: f64,
    /// The lowest width that gets on; `None` when none does.
    pub lowest: Option<BitWidth>,
}

/// What is tested.
#[derive(Debug, Clone, Copy)]
pub struct RangeTest<'a> {
    /// Widths and adapters.
    pub bank: &'a BankConfig,
    /// Progress that counts as getting on, nats.
    pub threshold: f64,
}

/// Trains each width of a bank alone for `config.steps` steps.
///
/// Nothing is saved: a width that was interrupted has lost its first losses, so the test starts anew.
///
/// # Errors
///
/// When the threshold is not a finite number, there are fewer than four steps, or as
/// [`train_bank_with`].
pub fn precision_range_test<'t, B: QuantAutodiffBackend, M: TrainableModel<B>>(
    base: &ForQuestionAnswering<B, M>,
    task: impl Into<TaskRef<'t>>,
    RangeTest { bank, threshold }: RangeTest<'_>,
    training: Training<'_>,
) -> Result<PrecisionRange> {
    let (task, Training { config, run }) = (task.into(), training);
    if !threshold.is_finite() {
        return Err(Error::option("threshold", threshold, "a finite number of nats"));
    }
    if config.steps < 4 {
        return Err(Error::option("steps", config.steps, "at least 4"));
    }
    let mut adapters = bank.adapters.clone();
    adapters.sort_by_key(|(width, _)| *width);
    let mut widths = Vec::with_capacity(adapters.len());
    for adapter in adapters {
        let bits = adapter.0;
        let alone = BankConfig { adapters: vec![adapter], ..bank.clone() };
        let build = |_: &_, ladder: &Ladder| RegimeConfig::default().build(ladder, config.steps);
        let run = TrainRun { dir: None, ..run.clone() };
        let (_, outcome) =
            train_bank_with(base.clone(), task, &RegimeOfBank::new(&alone, &build), Training { config, run: &run })?;
        let quarter = config.steps / 4;
        let first_loss = mean(&outcome.losses[..quarter]);
        let last_loss = mean(&outcome.losses[config.steps - quarter..]);
        widths.push(WidthProgress { bits, first_loss, last_loss, progress: first_loss - last_loss });
    }
    let lowest = widths.iter().find(|width| width.progress > threshold).map(|width| width.bits);
    Ok(PrecisionRange { widths, steps: config.steps, threshold, lowest })
}
