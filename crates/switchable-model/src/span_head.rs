//! Extractive question answering: the first and the last token of the answer.
//!
//! ```text
//! [start, end] = y·W_qaᵀ + b_qa
//! ```
//!
//! `y` are the final hidden states, `W_qa` is `[2, width]` as `qa_outputs` of
//! the family's class in `transformers` stores it. An adapter may bring a head of its own for its width: see
//! [`width_heads`](crate::width_heads).

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor, TensorData, backend::Backend};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use switchable_lora::linear_settings::{BasePolicy, LinearSettings};
use switchable_lora::placement::Placement;
use switchable_lora::precision_plan::PrecisionPlan;

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::folder_names::{PACKED_FILE, SPAN_HEAD};
use crate::gguf::is_gguf;
use crate::initial::normal_values;
use crate::model::SwitchableModel;
use crate::model_weights::{ModelWeights, all_values, from_weights};
use crate::named_plans::NamedPlans as _;
use crate::options::ModelOptions;
use crate::packed::PackModel;
use crate::packed::codes::{merged, packed_plan};
use crate::packed::folder::{PackedFolder, PackedWriter};
use crate::packed::form::{PackOptions, PackedForm};
use crate::parameters::ParameterRef;
use crate::site_plan::SitePlan;
use crate::weights::export::write_folder;
use crate::weights::opening::open_model;
use crate::weights::source::WeightSource;
use crate::weights::tensors::WeightSet;
use crate::width_heads::{HeadChoice, SpanHead, WidthHeads};

/// What to do when a folder holds no span head, as that of a language model does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MissingHead {
    /// Refuse the folder.
    #[default]
    Refuse,
    /// Start with a random head from this seed.
    Random(u64),
    /// Leave the base without one: it answers under plans whose adapters brought a head, and refuses others.
    OfAdapters,
}

/// Scores of every token to be the first or the last one of the answer.
#[derive(Debug, Clone)]
pub struct SpanLogits<B: Backend> {
    /// `[batch, tokens]`.
    pub start: Tensor<B, 2>,
    /// `[batch, tokens]`.
    pub end: Tensor<B, 2>,
}

/// A transformer with a span head.
#[derive(Module, Debug)]
pub struct ForQuestionAnswering<B: Backend, M> {
    /// The body.
    pub transformer: M,
    /// Zeros where the base has none.
    head: SpanHead<B>,
    has_base_head: bool,
    width_heads: WidthHeads<B>,
    mixed_head: Option<HeadChoice>,
}

impl<B: QuantBackend, M: SwitchableModel<B>> ForQuestionAnswering<B, M> {
    /// A model with random weights.
    ///
    /// # Errors
    ///
    /// When the configuration's numbers do not fit together.
    pub fn random(config: &M::Config, options: &ModelOptions, seed: u64, device: &B::Device) -> Result<Self> {
        let transformer = M::random(config, options, seed, device)?;
        Ok(Self::with_random_head(transformer, seed.wrapping_add(1), device).with_linear_settings(options.linear))
    }

    /// A body with a random head.
    pub fn with_random_head(transformer: M, seed: u64, device: &B::Device) -> Self {
        let (d, range) = (transformer.shape().width, transformer.config().initializer_range());
        let values = normal_values(&mut ChaCha8Rng::seed_from_u64(seed), 2 * d, range);
        let weight = TensorData::new(values, vec![2, d]);
        Self::with_head(transformer, weight, TensorData::new(vec![0.0f32; 2], vec![2]), device)
    }

    pub(crate) fn with_head(transformer: M, weight: TensorData, bias: TensorData, device: &B::Device) -> Self {
        let head = SpanHead::new(weight, bias, device);
        Self { transformer, head, has_base_head: true, width_heads: WidthHeads::none(), mixed_head: None }
    }

    /// Reads a Hugging Face folder or a GGUF file, which holds no head.
    ///
    /// # Errors
    ///
    /// As [`ModelWeights::load`]; and when the folder holds no head and `missing` refuses that.
    pub fn load(
        dir: impl AsRef<Path>,
        options: &ModelOptions,
        missing: MissingHead,
        device: &B::Device,
    ) -> Result<Self> {
        let (config, weights) = open_model::<M::Config>(dir.as_ref())?;
        Self::from_weights(&config, &weights, options, missing, device)
    }

    /// Reads weights from files that need not be in a folder, such as bytes in the program.
    ///
    /// # Errors
    ///
    /// As [`ModelWeights::load`], a missing head included.
    pub fn from_sources(
        config: &M::Config,
        sources: Vec<WeightSource>,
        options: &ModelOptions,
        device: &B::Device,
    ) -> Result<Self> {
        let weights = WeightSet::new::<M::Config>("<weights>", sources)?;
        Self::from_weights(config, &weights, options, MissingHead::Refuse, device)
    }

    fn from_weights(
        config: &M::Config,
        weights: &WeightSet,
        options: &ModelOptions,
        missing: MissingHead,
        device: &B::Device,
    ) -> Result<Self> {
        let transformer: M = from_weights(config, weights, options, device)?;
        if !weights.contains(SPAN_HEAD) && missing != MissingHead::Refuse {
            return Ok(Self::without_head(transformer, missing, device).with_linear_settings(options.linear));
        }
        let weight = weights.data(SPAN_HEAD, &[2, config.shape().width])?;
        let bias = weights.data("qa_outputs.bias", &[2])?;
        Ok(Self::with_head(transformer, weight, bias, device).with_linear_settings(options.linear))
    }

    /// A body whose folder holds no head: with a random one, or for adapters to bring one.
    fn without_head(transformer: M, missing: MissingHead, device: &B::Device) -> Self {
        if let MissingHead::Random(seed) = missing {
            return Self::with_random_head(transformer, seed, device);
        }
        let weight = TensorData::zeros::<f32, _>([2, transformer.shape().width]);
        let model = Self::with_head(transformer, weight, TensorData::zeros::<f32, _>([2]), device);
        Self { has_base_head: false, ..model }
    }

    /// Span scores of a batch; arguments as [`SwitchableModel::forward`].
    ///
    /// # Shapes
    ///
    /// `ids`, `padding`: `[batch, tokens]`.
    ///
    /// # Panics
    ///
    /// As [`SwitchableModel::forward`], and when [`check_plan`](Self::check_plan) refuses the plan for its head.
    pub fn forward(
        &self,
        ids: Tensor<B, 2, Int>,
        padding: Option<&Tensor<B, 2, Bool>>,
        plan: &SitePlan,
    ) -> SpanLogits<B> {
        if let Err(error) = self.head_of(plan) {
            panic!("{error}");
        }
        self.span_logits(self.transformer.forward(ids, padding, plan), plan)
    }

    /// Span scores from final hidden states, by the head of the plan that they were computed at.
    ///
    /// # Shapes
    ///
    /// `hidden`: `[batch, tokens, width]`.
    ///
    /// # Panics
    ///
    /// When the plan is one that [`check_plan`](Self::check_plan) refuses, or `hidden` has another width than the
    /// model.
    pub fn span_logits(&self, hidden: Tensor<B, 3>, plan: &SitePlan) -> SpanLogits<B> {
        let SpanHead { weight, bias } = match self.head_for(plan) {
            Ok(head) => head,
            Err(error) => panic!("{error}"),
        };
        let ([batch, tokens, d], [_, width]) = (hidden.dims(), weight.dims());
        assert_eq!(d, width, "hidden states of width {d}, the span head's is {width}");
        let both = hidden.reshape([batch * tokens, d]).matmul(weight.val().transpose());
        let both = (both + bias.val().unsqueeze()).reshape([batch, tokens, 2]);
        let side = |i: usize| both.clone().slice([0..batch, 0..tokens, i..i + 1]).reshape([batch, tokens]);
        SpanLogits { start: side(0), end: side(1) }
    }

    /// The model with its weights trained or not, all other settings as they are.
    pub fn with_policy(mut self, base: BasePolicy) -> Self {
        let train = base == BasePolicy::Trainable;
        self.transformer = self.transformer.with_policy(base);
        self.head = self.head.with_gradients(train);
        self.width_heads = self.width_heads.with_gradients(train);
        self
    }

    /// The head that answers under a plan: the one that the plan says, else that of its adapters' width, the
    /// base's where they have none, and where they have different ones the head of
    /// [`with_mixed_head`](Self::with_mixed_head).
    ///
    /// # Errors
    ///
    /// When the plan's adapters have different heads and none was chosen, or one that there is not.
    pub fn head_of(&self, plan: &SitePlan) -> Result<HeadChoice> {
        match self.width_heads.choose(plan, self.mixed_head)? {
            HeadChoice::Base => self.base_head().map(|_| HeadChoice::Base),
            width @ HeadChoice::Width(_) => Ok(width),
        }
    }

    fn base_head(&self) -> Result<&SpanHead<B>> {
        if self.has_base_head { Ok(&self.head) } else { Err(Error::NoBaseHead) }
    }

    /// The plan with the head that answers, where that does not follow from its adapters.
    fn with_head_said(&self, plan: &SitePlan) -> SitePlan {
        let follows = self.width_heads.of_adapters(plan).is_ok();
        let said = if follows { None } else { self.mixed_head };
        plan.clone().with_span_head(plan.span_head().or(said))
    }

    /// The plan with site names, to be saved: [`NamedPlans::named_plan`], which also says the span head where that does not
    /// follow from the plan's adapters.
    ///
    /// [`NamedPlans::named_plan`]: crate::named_plans::NamedPlans::named_plan
    pub fn named_plan(&self, plan: &SitePlan) -> PrecisionPlan {
        self.transformer.named_plan(&self.with_head_said(plan))
    }

    /// The plan by position, checked against this model and its heads; see [`NamedPlans::resolve`].
    ///
    /// [`NamedPlans::resolve`]: crate::named_plans::NamedPlans::resolve
    ///
    /// # Errors
    ///
    /// The same, and those of [`head_of`](Self::head_of).
    pub fn resolve(&self, plan: &PrecisionPlan) -> Result<SitePlan> {
        let plan = self.transformer.resolve(plan)?;
        self.head_of(&plan)?;
        Ok(plan)
    }

    fn head_for(&self, plan: &SitePlan) -> Result<&SpanHead<B>> {
        Ok(match self.head_of(plan)? {
            HeadChoice::Base => &self.head,
            HeadChoice::Width(bits) => self.width_head(bits).expect("a head that there is was chosen"),
        })
    }

    /// The model with a head for plans whose adapters have different ones.
    pub fn with_mixed_head(self, choice: Option<HeadChoice>) -> Self {
        Self { mixed_head: choice, ..self }
    }

    /// The head for plans whose adapters have different ones, if one was chosen.
    pub fn mixed_head(&self) -> Option<HeadChoice> {
        self.mixed_head
    }

    /// The widths whose adapters came with a head, in rising order.
    pub fn head_widths(&self) -> &[BitWidth] {
        self.width_heads.widths()
    }

    /// The head that came with the adapters of a width.
    pub fn width_head(&self, bits: BitWidth) -> Option<&SpanHead<B>> {
        self.width_heads.get(bits)
    }

    /// Sets the head of a width, or drops it.
    pub(crate) fn set_width_head(&mut self, bits: BitWidth, head: Option<SpanHead<B>>) {
        match head {
            Some(head) => self.width_heads.insert(bits, head),
            None => drop(self.width_heads.remove(bits)),
        }
    }

    /// Checks that the model can answer at a plan.
    ///
    /// # Errors
    ///
    /// Those of [`SwitchableModel::check_plan`] and [`head_of`](Self::head_of).
    pub fn check_plan(&self, plan: &SitePlan) -> Result<()> {
        self.transformer.check_plan(plan)?;
        self.head_of(plan).map(drop)
    }

    /// The model with other settings at every site; their base policy holds for the heads too.
    pub fn with_linear_settings(mut self, settings: LinearSettings) -> Self {
        let train = settings.base == BasePolicy::Trainable;
        self.transformer = self.transformer.with_linear_settings(settings);
        self.head = self.head.with_gradients(train);
        self.width_heads = self.width_heads.with_gradients(train);
        self
    }

    /// The configuration.
    pub fn config(&self) -> &M::Config {
        self.transformer.config()
    }

    /// Every parameter of base and base head with its Hugging Face name; heads of widths are saved with their
    /// adapters. See [`SwitchableModel::named_parameters`].
    pub fn named_parameters(&self) -> Vec<(String, ParameterRef<'_, B>)> {
        self.parameters(&self.head)
            .into_iter()
            .map(|(name, parameter)| (span_name::<M::Config>(name), parameter))
            .collect()
    }

    /// The same, the base under the names that it has in a language model.
    fn parameters<'a>(&'a self, head: &'a SpanHead<B>) -> Vec<(String, ParameterRef<'a, B>)> {
        let mut list = self.transformer.named_parameters();
        list.push((SPAN_HEAD.to_owned(), ParameterRef::Matrix(&head.weight)));
        list.push(("qa_outputs.bias".to_string(), ParameterRef::Vector(&head.bias)));
        list
    }

    /// Writes `config.json` and `model.safetensors`, as the family's class with a span head loads them.
    ///
    /// # Errors
    ///
    /// When the base has no span head, or the folder cannot be written; nothing partial is left behind.
    pub fn export(&self, dir: impl AsRef<Path>) -> Result<()> {
        let mut tensors = all_values(&self.transformer, self.parameters(self.base_head()?));
        for (name, _, _) in &mut tensors {
            *name = span_name::<M::Config>(std::mem::take(name));
        }
        write_folder(dir.as_ref(), &tensors, &self.config().to_json(M::Config::QUESTION_ANSWERING))
    }

    /// The model with its body packed in memory; see [`PackModel::pack`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn pack(mut self, form: PackedForm<'_>, options: &PackOptions) -> Result<Self> {
        if let Some((merged, plan)) = self.merged(form)? {
            return merged.pack(PackedForm::Plan(&plan), options);
        }
        self.transformer = self.transformer.pack(form, options)?;
        Ok(self)
    }

    /// Writes a packed folder; see [`PackModel::save_packed`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn save_packed(&self, dir: impl AsRef<Path>, form: PackedForm<'_>, options: &PackOptions) -> Result<()> {
        if let Some((merged, plan)) = self.merged(form)? {
            return merged.save_packed(dir, PackedForm::Plan(&plan), options);
        }
        let said = match form {
            PackedForm::Plan(plan) => Some(self.with_head_said(plan)),
            PackedForm::Nested => None,
        };
        let form = said.as_ref().map_or(form, PackedForm::Plan);
        let head = self.base_head()?;
        let writer = PackedWriter::new(&self.transformer, form, *options)?;
        writer.write(dir.as_ref(), M::Config::QUESTION_ANSWERING, self.parameters(head))
    }

    /// The model with the adapters that a plan merges in the weights of their sites, and the plan without those,
    /// under which the same head answers; `None` where there is nothing to merge. What sites add beside their
    /// weights stays.
    ///
    /// # Errors
    ///
    /// When the model cannot be packed by the form, or an adapter cannot be merged, which names the site.
    pub fn merged(&self, form: PackedForm<'_>) -> Result<Option<(Self, SitePlan)>> {
        packed_plan(&self.transformer, form, PackOptions::default())?;
        let (PackedForm::Plan(plan), Some((transformer, bare))) = (form, merged(&self.transformer, form)?) else {
            return Ok(None);
        };
        // Where no adapter is beside the codes, none brings its head with it.
        if transformer.sites().iter().all(|site| transformer.site(site).bank().is_empty()) {
            let (head, width_heads) = (self.head_for(plan)?.clone(), self.width_heads.clone().cleared());
            let model = Self { transformer, head, has_base_head: true, width_heads, mixed_head: None };
            return Ok(Some((model.placing_beside(), bare.with_span_head(None))));
        }
        let model = Self { transformer, ..self.clone() };
        let head = self.head_of(plan)?;
        let follows = model.width_heads.of_adapters(&bare).is_ok_and(|of_adapters| of_adapters == head);
        Ok(Some((model.placing_beside(), bare.with_span_head(if follows { None } else { Some(head) }))))
    }

    /// The model whose sites add their adapters beside the weights, where nothing else is said.
    fn placing_beside(self) -> Self {
        let settings = self.transformer.settings();
        self.with_linear_settings(LinearSettings { placement: Placement::Residual, ..settings })
    }

    /// Whether a folder of floats or of codes holds a span head.
    ///
    /// # Errors
    ///
    /// When its weights cannot be opened.
    pub fn holds_head(dir: impl AsRef<Path>) -> Result<bool> {
        let dir = dir.as_ref();
        if dir.join(PACKED_FILE).exists() {
            return Ok(PackedFolder::<M::Config>::open(dir)?.holds_span_head());
        }
        if is_gguf(dir) {
            return Ok(false);
        }
        Ok(WeightSet::open::<M::Config>(dir)?.contains(SPAN_HEAD))
    }

    /// Opens a packed folder; see [`PackModel::load_packed`].
    ///
    /// # Errors
    ///
    /// The same, and when the folder holds no span head and `missing` refuses that.
    pub fn load_packed(
        dir: impl AsRef<Path>,
        options: &ModelOptions,
        missing: MissingHead,
        device: &B::Device,
    ) -> Result<(Self, SitePlan)> {
        let mut folder = PackedFolder::<M::Config>::open(dir.as_ref())?;
        if !folder.holds_span_head() {
            if missing == MissingHead::Refuse {
                return Err(folder.no_span_head());
            }
            let (transformer, plan) = folder.body::<B, M>(options, device)?;
            return Ok((Self::without_head(transformer, missing, device).with_policy(options.linear.base), plan));
        }
        let (transformer, plan) = folder.body::<B, M>(options, device)?;
        let width = transformer.shape().width;
        let weight = folder.plain(SPAN_HEAD, &[2, width])?;
        let bias = folder.plain("qa_outputs.bias", &[2])?;
        let model = Self::with_head(transformer, weight, bias, device).with_policy(options.linear.base);
        Ok((model, plan))
    }
}

/// The name that a parameter of a language model has beside a span head.
fn span_name<C: ModelConfig>(name: String) -> String {
    match name.strip_prefix(C::BODY) {
        Some(bare) => format!("{}{bare}", C::SPAN_BODY),
        None => name,
    }
}
