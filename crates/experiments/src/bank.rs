//! The adapter bank: one LoRA adapter per width on a frozen, quantised base (D6 of the study).

use gpt2_model::{BitWidth, Gpt2ForQuestionAnswering, SitePrecision};
use quant_kernels::QuantAutodiffBackend;
use switchable_lora::{BasePolicy, LinearSettings, LoraConfig};

use crate::Result;
use crate::reading::ReadingTask;
use crate::train::{Ladder, Regime, Single, SpanTask, Static, TrainConfig, TrainOutcome, TrainRun, train};

/// Widths and adapters of a bank.
#[derive(Debug, Clone, PartialEq)]
pub struct BankConfig {
    /// Widths that get an adapter with its rank, alpha and initialisation; the `static` regime
    /// trains them in this order.
    pub adapters: Vec<(BitWidth, LoraConfig)>,
    /// Width of the activations where the weights are quantised.
    pub activations: BitWidth,
    /// Seed of the initialisation.
    pub seed: u64,
}

impl BankConfig {
    /// The same adapter at every width, activations at full precision.
    pub fn new(widths: &[BitWidth], lora: LoraConfig, seed: u64) -> Self {
        let adapters = widths.iter().map(|&width| (width, lora)).collect();
        Self { adapters, activations: BitWidth::FULL, seed }
    }

    /// The widths, in their order.
    pub fn widths(&self) -> impl Iterator<Item = BitWidth> + '_ {
        self.adapters.iter().map(|(width, _)| *width)
    }

    /// Precision at which the adapter of a width is trained and used: with quantised weights the
    /// activations are quantised too, to no fewer bits than the weights.
    pub fn precision(&self, width: BitWidth) -> SitePrecision {
        let activations = if width.is_full() { BitWidth::FULL } else { self.activations.max(width) };
        SitePrecision::uniform(width).with_activations(activations)
    }

    /// The uniform plans of all widths.
    ///
    /// # Errors
    ///
    /// When a width comes twice or none is given.
    pub fn ladder<B: QuantAutodiffBackend>(&self, model: &Gpt2ForQuestionAnswering<B>) -> Result<Ladder> {
        Ladder::new(self.widths().map(|width| (width, model.transformer.uniform_plan(self.precision(width)))))
    }
}

/// Trains base and head in full precision, without adapters.
///
/// # Errors
///
/// As [`train`].
pub fn train_base<B: QuantAutodiffBackend>(
    model: Gpt2ForQuestionAnswering<B>,
    task: &ReadingTask,
    config: &TrainConfig,
    run: &TrainRun,
    device: &B::Device,
) -> Result<(Gpt2ForQuestionAnswering<B>, TrainOutcome)> {
    let model = with_base(model, BasePolicy::Trainable);
    let plan = model.transformer.uniform_plan(SitePrecision::FULL);
    config.check()?;
    train(model, &SpanTask::new(task, config)?, &Single(plan), config, run, device)
}

/// Gives a model a bank and trains it by the `static` regime: step `t` runs every site at width
/// `t mod n` with that width's adapter. Base and head stay as they are.
///
/// # Errors
///
/// As [`train_bank_with`].
pub fn train_bank<B: QuantAutodiffBackend>(
    model: Gpt2ForQuestionAnswering<B>,
    task: &ReadingTask,
    bank: &BankConfig,
    config: &TrainConfig,
    run: &TrainRun,
    device: &B::Device,
) -> Result<(Gpt2ForQuestionAnswering<B>, TrainOutcome)> {
    let plans = |model: &Gpt2ForQuestionAnswering<B>, _: &Ladder| -> Result<Box<dyn Regime>> {
        let plans = bank.widths().map(|width| model.transformer.uniform_plan(bank.precision(width)));
        Ok(Box::new(Static::new(plans.collect())?))
    };
    train_bank_with(model, task, bank, &plans, config, run, device)
}

/// Makes the regime of a run from the model with its bank and the ladder of its uniform plans.
pub type BuildRegime<'a, B> = dyn Fn(&Gpt2ForQuestionAnswering<B>, &Ladder) -> Result<Box<dyn Regime>> + 'a;

/// Gives a model a bank and trains it by any regime. Base and head stay as they are.
///
/// # Errors
///
/// When a width comes twice or none is given, the rank does not fit, the regime refuses, or as
/// [`train`].
pub fn train_bank_with<B: QuantAutodiffBackend>(
    model: Gpt2ForQuestionAnswering<B>,
    task: &ReadingTask,
    bank: &BankConfig,
    regime: &BuildRegime<'_, B>,
    config: &TrainConfig,
    run: &TrainRun,
    device: &B::Device,
) -> Result<(Gpt2ForQuestionAnswering<B>, TrainOutcome)> {
    let mut model = with_base(model, BasePolicy::Frozen);
    let ladder = bank.ladder(&model)?;
    for (width, lora) in &bank.adapters {
        model.transformer.init_adapters(*width, lora, bank.seed.wrapping_add(u64::from(width.bits())))?;
    }
    let regime = regime(&model, &ladder)?;
    config.check()?;
    train(model, &SpanTask::new(task, config)?, &regime, config, run, device)
}

fn with_base<B: QuantAutodiffBackend>(
    model: Gpt2ForQuestionAnswering<B>,
    base: BasePolicy,
) -> Gpt2ForQuestionAnswering<B> {
    let settings = model.transformer.h.first().map(|block| block.attn.c_attn.settings()).unwrap_or_default();
    model.with_linear_settings(LinearSettings { base, ..settings })
}
