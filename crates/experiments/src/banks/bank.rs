//! The adapter bank: one LoRA adapter per width on a frozen, quantised base.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use quant_kernels::{
    backends::quant_backend::{QuantAutodiffBackend, QuantBackend},
    spec::{bit_width::BitWidth, rounding_method::RoundingMethod},
};
use span_reader::choice::fingerprint::ModelFingerprint;
use span_reader::evaluation::question_task::TaskRef;
use switchable_lora::{
    linear_settings::BasePolicy,
    lora_config::{LoraConfig, LoraInit, WeightScales},
    site_precision::SitePrecision,
};
use switchable_model::model::{SwitchableModel, TrainableModel};
use switchable_model::span_head::ForQuestionAnswering;

use crate::banks::sharing::Sharing;
use crate::banks::validation::Validation;
use crate::error::{Error, Result};
use crate::train::answer_task::AnswerTask;
use crate::train::ladder::Ladder;
use crate::train::regimes::Regime;
use crate::train::regimes::in_turn::Static;
use crate::train::regimes::single::Single;
use crate::train::span_task::SpanTask;
use crate::train::trainer::{TrainOutcome, TrainRun, Training, Watch, train_watched};

/// What the training of a bank changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trains {
    /// The adapters of the widths; base and head stay as they are.
    #[default]
    Bank,
    /// Base and head, which all widths share; there are no adapters.
    Base,
    /// Base, head and the adapters of the widths.
    Both,
}

impl Trains {
    /// Whether base and head are trained.
    fn base(self) -> BasePolicy {
        match self {
            Self::Bank => BasePolicy::Frozen,
            Self::Base | Self::Both => BasePolicy::Trainable,
        }
    }
}

/// Widths and adapters of a bank.
///
/// | field | meaning | [`new`](Self::new) |
/// |---|---|---|
/// | `adapters` | widths and their adapters | the same at every width |
/// | `activations` | width of the activations where weights are quantised | 32 |
/// | `seed` | of the initialisation | as given |
/// | `learned_steps` | whether the steps of the weights are trained with the adapters (LSQ) | no |
/// | `trains` | adapters, weights or both | adapters |
/// | `sharing` | what the adapters share | nothing |
#[derive(Debug, Clone, PartialEq)]
pub struct BankConfig {
    /// Widths that get an adapter with its rank, alpha and initialisation; the `static` regime
    /// trains them in this order.
    pub adapters: Vec<(BitWidth, LoraConfig)>,
    /// Width of the activations where the weights are quantised.
    pub activations: BitWidth,
    /// Seed of the initialisation.
    pub seed: u64,
    /// Whether every site has a learned step at every width of the bank but 32 bits, trained with the
    /// adapter of the width in place of the scale that the quantiser finds (LSQ, arXiv:1902.08153). The
    /// weights' quantiser must be symmetric.
    pub learned_steps: bool,
    /// What is trained.
    pub trains: Trains,
    /// What the adapters share.
    pub sharing: Sharing,
}

impl BankConfig {
    /// The same adapter at every width, activations at full precision.
    pub fn new(widths: &[BitWidth], lora: LoraConfig, seed: u64) -> Self {
        let adapters = widths.iter().map(|&width| (width, lora)).collect();
        Self {
            adapters,
            activations: BitWidth::FULL,
            seed,
            learned_steps: false,
            trains: Trains::Bank,
            sharing: Sharing::default(),
        }
    }

    /// The same bank with another choice where one is made.
    ///
    /// ```
    /// use experiments::banks::bank::{BankConfig, BankOverrides};
    /// use quant_kernels::BitWidth;
    /// use switchable_lora::{LoraConfig, LoraInit};
    ///
    /// let bank = BankConfig::new(&[BitWidth::B4, BitWidth::B2], LoraConfig::new(8, 16.0)?, 1);
    /// let loftq = LoraInit::LoftQ { iterations: 5 };
    /// let both = bank.overridden(&BankOverrides { init: Some(loftq), learned_steps: Some(true), ..BankOverrides::default() });
    /// assert!(both.learned_steps && both.adapters.iter().all(|(_, lora)| lora.init() == loftq));
    /// assert_eq!(bank.overridden(&BankOverrides::default()), bank);
    /// # Ok::<(), switchable_lora::Error>(())
    /// ```
    #[must_use]
    pub fn overridden(&self, overrides: &BankOverrides) -> Self {
        let mut bank = self.clone();
        if let Some(init) = overrides.init {
            bank.adapters.iter_mut().for_each(|(_, lora)| *lora = lora.with_init(init));
        }
        bank.learned_steps = overrides.learned_steps.unwrap_or(self.learned_steps);
        bank.trains = overrides.trains.unwrap_or(self.trains);
        bank.sharing = overrides.sharing.unwrap_or(self.sharing);
        bank
    }

    /// All of it as JSON, for the identity of a run.
    fn options(&self) -> Value {
        let Self { adapters, activations, seed, learned_steps, trains, sharing } = self;
        let mut options = json!({
            "adapters": adapters, "activations": activations, "seed": seed, "learned_steps": learned_steps,
            "trains": trains,
        });
        // Runs of before it could be otherwise say nothing of it.
        if sharing.is_shared() {
            options["sharing"] = json!(sharing);
        }
        options
    }

    /// The widths, in their order.
    pub fn widths(&self) -> impl Iterator<Item = BitWidth> + '_ {
        self.adapters.iter().map(|(width, _)| *width)
    }

    /// Precision at which the adapter of a width is trained and used: with quantised weights the
    /// activations are quantised too, to no fewer bits than the weights.
    pub fn precision(&self, width: BitWidth) -> SitePrecision {
        let activations = if width.is_full() { BitWidth::FULL } else { self.activations.max(width) };
        let precision = SitePrecision::uniform(width).with_activations(activations);
        match (self.trains, self.sharing, self.widths().max()) {
            (Trains::Base, ..) => precision.without_adapter(),
            (_, Sharing::SharedAdapter, Some(widest)) => precision.with_adapter(widest),
            (_, Sharing::SharedAndOwn, Some(widest)) if width != widest => precision.with_shared(widest),
            _ => precision,
        }
    }

    /// The adapters that a model gets, by the widths that they are kept under.
    ///
    /// # Errors
    ///
    /// When a small one has no rank.
    pub fn given(&self) -> Result<Vec<(BitWidth, LoraConfig)>> {
        let widest = self.widths().max();
        let of_width = |&(width, lora): &(BitWidth, LoraConfig)| match self.sharing {
            _ if self.trains == Trains::Base => None,
            Sharing::SharedAdapter if Some(width) != widest => None,
            Sharing::SharedAndOwn if Some(width) != widest => Some(Sharing::own(lora).map(|own| (width, own))),
            _ => Some(Ok((width, lora))),
        };
        self.adapters.iter().filter_map(of_width).collect()
    }

    /// Gives a model the adapters, and says which widths share one.
    ///
    /// # Errors
    ///
    /// When a rank does not fit, or a site cannot have a learned step.
    pub fn give_to<B: QuantBackend, M: SwitchableModel<B>>(&self, model: &mut M, init: Init) -> Result<()> {
        for (width, lora) in self.given()? {
            let lora = match init {
                Init::Shapes => lora.with_init(LoraInit::ZeroB),
                Init::Started if self.learned_steps && !width.is_full() => lora.with_scales(WeightScales::Learned),
                Init::Started => lora,
            };
            model.init_adapters(width, &lora, self.seed.wrapping_add(u64::from(width.bits())))?;
        }
        let Some(widest) = self.widths().max().filter(|_| self.sharing.is_shared()) else { return Ok(()) };
        let others: Vec<BitWidth> = self.widths().filter(|width| *width != widest).collect();
        for site in model.sites().clone().iter() {
            model.site_mut(site).share_adapter(widest, &others);
        }
        Ok(())
    }

    /// Checks that a model can have the bank, so that nothing is trained in vain.
    ///
    /// # Errors
    ///
    /// When a width comes twice or none is given, or a rank is above both sides of a weight together, which
    /// names the site.
    pub fn check<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        model: &ForQuestionAnswering<B, M>,
    ) -> Result<()> {
        self.ladder(model)?;
        if self.sharing == Sharing::SharedAdapter && self.learned_steps {
            let expected = "`shared+own` or `adapters`: a step belongs to an adapter of its own width";
            return Err(Error::option("sharing", "`shared-adapter` with learned steps", expected));
        }
        if self.learned_steps && self.trains == Trains::Base {
            return Err(Error::option("learned_steps", "true without adapters", "adapters, whose steps are learned"));
        }
        if self.sharing.is_shared() && self.trains == Trains::Base {
            return Err(Error::option("sharing", format!("`{}` without adapters", self.sharing), "adapters to share"));
        }
        for (_, lora) in self.given()? {
            model.transformer.check_lora(&lora)?;
        }
        Ok(())
    }

    /// The uniform plans of all widths.
    ///
    /// # Errors
    ///
    /// When a width comes twice or none is given.
    pub fn ladder<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        model: &ForQuestionAnswering<B, M>,
    ) -> Result<Ladder> {
        Ladder::new(self.widths().map(|width| (width, model.transformer.uniform_plan(self.precision(width)))))
    }
}

/// What a contestant of a comparison has otherwise than the bank of the study. As JSON, what is left
/// alone is left out.
///
/// | field | meaning | default |
/// |---|---|---|
/// | `init` | how the adapters of all widths start | as in the bank |
/// | `learned_steps` | whether the steps of the weights are trained | as in the bank |
/// | `trains` | adapters, weights or both | as in the bank |
/// | `sharing` | what the adapters share | as in the bank |
/// | `rounding` | how weights are rounded | as in the model |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BankOverrides {
    /// How the adapters of all widths start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<LoraInit>,
    /// Whether the steps of the weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learned_steps: Option<bool>,
    /// What is trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trains: Option<Trains>,
    /// What the adapters share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Sharing>,
    /// How weights are rounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounding: Option<RoundingMethod>,
}

/// How adapters that a model is given start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// As the bank says.
    Started,
    /// Adding nothing: only their shapes count.
    Shapes,
}

impl BankOverrides {
    /// Whether nothing is overridden.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Trains base and head in full precision, without adapters.
///
/// # Errors
///
/// As [`train_watched`].
pub fn train_base<'t, B: QuantAutodiffBackend, M: TrainableModel<B>>(
    model: ForQuestionAnswering<B, M>,
    task: impl Into<TaskRef<'t>>,
    training: Training<'_>,
) -> Result<(ForQuestionAnswering<B, M>, TrainOutcome)> {
    let task = task.into();
    let run = &identified(training.run, &model, task);
    let training = Training { run, ..training };
    let model = model.with_policy(BasePolicy::Trainable);
    let plan = model.transformer.uniform_plan(SitePrecision::FULL);
    training.config.check()?;
    train_on(model, task, &Single(plan), training, None)
}

/// Gives a model a bank and trains it by the `static` regime: step `t` runs every site at width
/// `t mod n` with that width's adapter. Base and head stay as they are.
///
/// # Errors
///
/// As [`train_bank_with`].
pub fn train_bank<'t, B: QuantAutodiffBackend, M: TrainableModel<B>>(
    model: ForQuestionAnswering<B, M>,
    task: impl Into<TaskRef<'t>>,
    bank: &BankConfig,
    training: Training<'_>,
) -> Result<(ForQuestionAnswering<B, M>, TrainOutcome)> {
    let plans = |model: &ForQuestionAnswering<B, M>, _: &Ladder| -> Result<Box<dyn Regime>> {
        let plans = bank.widths().map(|width| model.transformer.uniform_plan(bank.precision(width)));
        Ok(Box::new(Static::new(plans.collect())?))
    };
    train_bank_with(model, task, &RegimeOfBank::new(bank, &plans), training)
}

/// Makes the regime of a run from the model with its bank and the ladder of its uniform plans.
pub type BuildRegime<'a, B, M> = dyn Fn(&ForQuestionAnswering<B, M>, &Ladder) -> Result<Box<dyn Regime>> + 'a;

/// A bank, and the regime that trains it.
pub struct RegimeOfBank<'a, B: QuantAutodiffBackend, M> {
    /// Widths and adapters.
    pub bank: &'a BankConfig,
    /// Makes the regime.
    pub regime: &'a BuildRegime<'a, B, M>,
    /// When and on what its widths are measured on the way, for `validation.jsonl` in the folder of the run.
    pub validation: Option<&'a Validation<'a>>,
}

impl<'a, B: QuantAutodiffBackend, M> RegimeOfBank<'a, B, M> {
    /// A bank and its regime, not looked at on the way.
    pub fn new(bank: &'a BankConfig, regime: &'a BuildRegime<'a, B, M>) -> Self {
        Self { bank, regime, validation: None }
    }
}

impl<B: QuantAutodiffBackend, M> std::fmt::Debug for RegimeOfBank<'_, B, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegimeOfBank").field("bank", &self.bank).finish_non_exhaustive()
    }
}

/// Gives a model a bank and trains it by any regime. What stays as it is, says [`BankConfig::trains`].
///
/// A folder in which a bank was trained with learned steps is refused for one without them, and the other
/// way round.
///
/// # Errors
///
/// When a width comes twice or none is given, the rank does not fit, a site cannot have a learned step,
/// the regime refuses, or as [`train_watched`].
pub fn train_bank_with<'t, B: QuantAutodiffBackend, M: TrainableModel<B>>(
    model: ForQuestionAnswering<B, M>,
    task: impl Into<TaskRef<'t>>,
    of: &RegimeOfBank<'_, B, M>,
    training: Training<'_>,
) -> Result<(ForQuestionAnswering<B, M>, TrainOutcome)> {
    let task = task.into();
    let RegimeOfBank { bank, regime, validation } = *of;
    let mut identified = identified(training.run, &model, task);
    let mut model = model.with_policy(bank.trains.base());
    bank.check(&model)?;
    bank.give_to(&mut model.transformer, Init::Started)?;
    // Of the adapters that are trained: those that came with the model may have been of a few sites.
    let ladder = bank.ladder(&model)?;
    let regime = regime(&model, &ladder)?;
    let config = training.config;
    config.check()?;
    identified.identity = identified.identity.with_options(bank.options());
    let precisions: Vec<SitePrecision> = bank.widths().map(|width| bank.precision(width)).collect();
    let look = |step: usize, model: &ForQuestionAnswering<B, M>| {
        let (Some(validation), Some(dir)) = (validation, &identified.dir) else { return Ok(()) };
        validation.look(dir, step, model, &precisions)
    };
    let watch = validation.map(|validation| Watch { every: validation.every, look: &look });
    train_on(model, task, &regime, Training { config, run: &identified }, watch.as_ref())
}

/// Trains in the form in which questions are answered.
fn train_on<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    model: ForQuestionAnswering<B, M>,
    task: TaskRef<'_>,
    regime: &impl Regime,
    training: Training<'_>,
    watch: Option<&Watch<'_, ForQuestionAnswering<B, M>>>,
) -> Result<(ForQuestionAnswering<B, M>, TrainOutcome)> {
    match task {
        TaskRef::Span(task) => train_watched(model, &SpanTask::new(task, training.config)?, regime, training, watch),
        TaskRef::Generate(task) => {
            train_watched(model, &AnswerTask::new(task, training.config)?, regime, training, watch)
        }
    }
}

/// A run on a model and questions, which are in its identity where it is saved.
fn identified<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    run: &TrainRun,
    model: &ForQuestionAnswering<B, M>,
    task: TaskRef<'_>,
) -> TrainRun {
    let mut run = run.clone();
    if run.dir.is_some() {
        run.identity = run.identity.with_content("model", "", ModelFingerprint::of(model).into()).with_content(
            "training questions",
            "",
            task.content(),
        );
        run.identity = run.identity.with_option("compute", json!(model.transformer.settings().compute));
    }
    run
}
