//! A linear layer whose bit-width and adapter are chosen in each call.
//!
//! ```text
//! residual   y = Qa(x) · Qw(W) + b + s · (x · A) · B
//! merged     y = Qa(x) · Qw(W + s · A · B) + b
//! ```
//!
//! `Qw` has the scales that its quantiser finds or, where the adapter has a learned step and the weight
//! is at the adapter's width, that step: `⌊clamp(W / step, −Q, Q)⌉ · step` with the gradients of LSQ
//! (arXiv:1902.08153).
//!
//! With a rotation `R` (arXiv:2404.00456), `Qa(x)` is `Q(x·R)·Rᵀ` and `Qw(W)` is `R·Q(Rᵀ·W)`: what is rounded is rotated,
//! and between the two the rotations cancel.
//!
//! Products are of f32, or of factors that are rounded to bf16 first ([`Compute`]).
//!
//! `W [d_in, d_out]`, `b [d_out]`, `A [d_in, rank]`, `B [rank, d_out]`, `s = alpha / rank`. The
//! residual form is that of QLoRA (arXiv:2305.14314), the merged one trains the adapter through the
//! quantiser, as L4Q does (arXiv:2402.04902).

mod adapters;
mod precision;
mod scaling;

use std::{collections::BTreeMap, sync::Arc};

use burn::{
    module::{Module, Param},
    tensor::{Tensor, backend::Backend},
};

use quant_kernels::{
    backends::{linear_terms::LinearTerms, quant_backend::QuantBackend},
    calibrated::input_moments::InputMoments,
    packed::product::{activations::ActivationBits, epilogue::OutputFunction},
    rotation::hadamard::Direction,
    spec::{
        bit_width::BitWidth, gradient_rule::GradientRule, quant_spec::QuantSpec, rotation::Rotation,
        rounding_method::RoundingMethod,
    },
    tensor::{
        fake_quantize::fake_quantize,
        gelu::gelu_tanh,
        half_linear::half_linear,
        packed_linear::packed_linear,
        rotation::{rotate, rotate_inputs},
    },
};

use crate::{
    adapter_pair::LoraAdapterPair,
    adapter_step::AdapterStep,
    base_weights::BaseWeights,
    error::{Error, Result},
    known_moments::KnownMoments,
    linear_settings::{BasePolicy, Compute, Execution, LinearSettings},
    lora_bank::LoraBank,
    lora_config::WeightScales,
    low_rank_update::LowRankUpdate,
    packed_weights::PackedWeights,
    placement::Placement,
    quantisation_settings::QuantisationSettings,
    quantized_cache::QuantizedCache,
    site_precision::SitePrecision,
    weight_rounding::WeightRounding,
};

/// A linear layer whose bit-width and adapter are chosen in each call.
///
/// The precision is an argument of [`forward`](Self::forward): the layer holds no state that says
/// which one is active.
#[derive(Module, Debug)]
pub struct SwitchableLinear<B: Backend> {
    base: BaseWeights<B>,
    bank: LoraBank<B>,
    weight_spec: QuantSpec,
    activation_spec: QuantSpec,
    placement: Placement,
    gradient: GradientRule,
    method: RoundingMethod,
    rotation: Rotation,
    /// What is known of its inputs.
    moments: KnownMoments,
    /// How the factors were chosen that were folded into the model, if any were.
    scaling: Option<Arc<str>>,
    /// What the model was calibrated on, if it is known.
    calibration: Option<Arc<str>>,
    execution: Execution,
    compute: Compute,
    /// What adapters were trained for, where it is known.
    trained_for: BTreeMap<BitWidth, QuantisationSettings>,
    /// The windows that the codes go by which adapters repair, where that is known: [`windows_of`].
    calibrated_on: BTreeMap<BitWidth, Arc<str>>,
}

/// The hash of the windows in what a layer was calibrated on.
pub fn windows_of(calibration: &str) -> &str {
    calibration.rsplit('/').next().unwrap_or(calibration)
}

impl<B: QuantBackend> SwitchableLinear<B> {
    /// A layer without adapters. Its quantised weights are kept in `cache`.
    ///
    /// # Shapes
    ///
    /// - `weight` `[d_in, d_out]`
    /// - `bias` `[d_out]`
    ///
    /// # Panics
    ///
    /// If the shapes disagree.
    pub fn new(
        weight: Tensor<B, 2>,
        bias: Option<Tensor<B, 1>>,
        settings: LinearSettings,
        cache: &QuantizedCache,
    ) -> Self {
        Self::with_base(BaseWeights::new(weight, bias, settings.base, cache), LoraBank::new(), settings)
    }

    /// A layer whose weight is only there packed, without adapters. Products are computed from the
    /// codes; nothing of it is trained but adapters, which need residual placement.
    ///
    /// # Shapes
    ///
    /// - `bias` `[d_out]`
    ///
    /// # Panics
    ///
    /// If the shapes disagree.
    pub fn from_packed(
        weights: PackedWeights,
        bias: Option<Tensor<B, 1>>,
        settings: LinearSettings,
        cache: &QuantizedCache,
        device: &B::Device,
    ) -> Self {
        Self::with_base(BaseWeights::packed(weights, bias, cache, device), LoraBank::new(), settings)
    }

    fn with_base(base: BaseWeights<B>, bank: LoraBank<B>, settings: LinearSettings) -> Self {
        let packed = base.packed_weights().is_some();
        let weight_spec = base.packed_weights().map_or(settings.weight, |codes| codes.quantizer(settings.weight));
        Self {
            base,
            bank,
            weight_spec,
            activation_spec: settings.activation,
            placement: settings.placement,
            gradient: settings.gradient,
            method: settings.rounding,
            rotation: settings.rotation,
            moments: KnownMoments::default(),
            scaling: None,
            calibration: None,
            execution: if packed { Execution::Packed } else { settings.execution },
            compute: settings.compute,
            trained_for: BTreeMap::new(),
            calibrated_on: BTreeMap::new(),
        }
    }

    /// The layer's output at a precision.
    ///
    /// # Shapes
    ///
    /// - `x` `[.., d_in]`
    /// - output `[.., d_out]`
    ///
    /// # Panics
    ///
    /// If `x` does not end in `d_in`, or where [`check`](Self::check) would return an error.
    ///
    /// ```
    /// use burn::{backend::Flex, tensor::Tensor};
    /// use switchable_lora::{BitWidth, LinearSettings, QuantizedCache, SitePrecision, SwitchableLinear};
    ///
    /// let device = Default::default();
    /// let weight = Tensor::<Flex, 2>::from_floats([[1.0, 0.2], [0.4, -1.0]], &device);
    /// let bias = Tensor::from_floats([0.0, 0.5], &device);
    /// let cache = QuantizedCache::default();
    /// let layer = SwitchableLinear::new(weight, Some(bias), LinearSettings::default(), &cache);
    ///
    /// let x = Tensor::<Flex, 2>::from_floats([[1.0, 1.0]], &device);
    /// let two_bits = SitePrecision::uniform(BitWidth::B2).without_adapter();
    /// let y = layer.forward(x, &two_bits); // 0.2 and 0.4 round to 0
    /// assert_eq!(y.into_data().to_vec::<f32>().unwrap(), [1.0, -0.5]);
    /// ```
    pub fn forward<const D: usize>(&self, x: Tensor<B, D>, precision: &SitePrecision) -> Tensor<B, D> {
        self.forward_then(x, precision, OutputFunction::Identity)
    }

    /// [`forward`](Self::forward) followed by a function, which packed products apply while the
    /// output is still in the cache.
    ///
    /// # Shapes
    ///
    /// - `x` `[.., d_in]`
    /// - output `[.., d_out]`
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    pub fn forward_then<const D: usize>(
        &self,
        x: Tensor<B, D>,
        precision: &SitePrecision,
        function: OutputFunction,
    ) -> Tensor<B, D> {
        let mut dims = x.dims();
        let [d_in, d_out] = [self.d_in(), self.d_out()];
        assert_eq!(dims.last(), Some(&d_in), "an input of shape {dims:?} does not end in {d_in}");
        let rows = dims[..D - 1].iter().product();
        let y = match self.forward_rows(x.reshape([rows, d_in]), *precision, function) {
            Ok(y) => y,
            Err(error) => panic!("{error}"),
        };
        dims[D - 1] = d_out;
        y.reshape(dims)
    }

    /// The output for a matrix, one product whatever the batch.
    fn forward_rows(
        &self,
        x: Tensor<B, 2>,
        precision: SitePrecision,
        function: OutputFunction,
    ) -> Result<Tensor<B, 2>> {
        let update = self.update_at(&precision)?;
        let quantisation = self.quantisation(&precision);
        self.check_trained_for(&precision)?;
        self.check_codes(&precision)?;
        let rounding = self.rounding_by(precision.weights, quantisation, self.active_step(precision)?);
        let rotation = self.rotation_at(&precision);
        if let Some(activations) = self.packed_activations(precision, &x) {
            let merges = quantisation.placement == Placement::Merged;
            let merged = update.as_ref().filter(|_| merges && self.packed_weights().is_none());
            // An adapter takes what is not rotated: rotating its first factor instead costs as much as a few rows.
            let rotated_x = match &rotation {
                Some(transform) => rotate(x.clone(), transform, Direction::There),
                None => x.clone(),
            };
            let first_factor = |a| match &rotation {
                Some(transform) => rotate_inputs(a, transform, Direction::There),
                None => a,
            };
            let added = update.clone().filter(|_| merged.is_none());
            let terms = self.terms(
                added.map(|LowRankUpdate { a, b, scaling }| LowRankUpdate { a: first_factor(a), b, scaling }),
                function,
            );
            if let Some(packed) = self.base.packed_weights() {
                return Ok(packed_linear(rotated_x, packed.at(precision.weights)?, activations, terms));
            }
            let codes = match merged {
                Some(update) => self.base.merged_codes_at(rounding, update),
                None => self.base.codes_at(rounding),
            };
            if let Some(codes) = codes {
                return Ok(packed_linear(rotated_x, codes.view(), activations, terms));
            }
        }
        let quantized = |x| fake_quantize(x, precision.activations, &quantisation.activation, self.gradient);
        let quantized_x = match rotation.filter(|_| !precision.activations.is_full()) {
            Some(transform) => {
                let rotated = quantized(rotate(x.clone(), &transform, Direction::There))?;
                rotate(rotated, &transform, Direction::Back)
            }
            None => quantized(x.clone())?,
        };
        let (mut y, adapted) = match (quantisation.placement, update) {
            (Placement::Merged, Some(update)) if !precision.weights.is_full() => {
                let merged = self.weight() + update.product();
                (quantized_x.matmul(rounding.apply(merged, self.gradient)?), None)
            }
            // A weight that is not quantised takes the adapter beside it, merged or not: no copy of the weight.
            (placement, update) => {
                if self.multiplies_bf16(precision)
                    && let Some(weight) = self.base.half_at(rounding)?
                {
                    return Ok(half_linear(x, &weight, self.terms(update, function)));
                }
                let adapted = update.map(|update| match placement {
                    Placement::Residual => update.forward(x),
                    Placement::Merged => update.forward(quantized_x.clone()),
                });
                (quantized_x.matmul(self.base.at(rounding, self.gradient)?), adapted)
            }
        };
        if let Some(adapted) = adapted {
            y = y + adapted;
        }
        if let Some(bias) = self.base.bias() {
            y = y + bias.val().unsqueeze();
        }
        Ok(match function {
            OutputFunction::Identity => y,
            OutputFunction::GeluTanh => gelu_tanh(y),
        })
    }

    /// What is added to a product.
    fn terms(&self, update: Option<LowRankUpdate<B>>, function: OutputFunction) -> LinearTerms<B> {
        let primitive = |tensor: Tensor<B, 2>| tensor.into_primitive().tensor();
        LinearTerms {
            bias: self.base.bias().map(|bias| bias.val().into_primitive().tensor()),
            adapter: update.map(|LowRankUpdate { a, b, scaling }| (primitive(a), primitive(b), scaling)),
            function,
        }
    }

    /// Whether the product of a precision, adapters aside, is of bf16.
    fn multiplies_bf16(&self, precision: SitePrecision) -> bool {
        self.compute == Compute::Bf16 && precision.activations.is_full() && B::multiplies_bf16()
    }

    /// What the adapters of a precision add together.
    fn update_at(&self, precision: &SitePrecision) -> Result<Option<LowRankUpdate<B>>> {
        let update = |width| self.bank.expect(width).map(LoraAdapterPair::update);
        Ok(match (precision.adapter, precision.shared) {
            (Some(own), Some(shared)) if own != shared => Some(update(own)?.and(update(shared)?)),
            (_, Some(bits)) => return Err(Error::SharedAlone { bits }),
            (Some(own), None) => Some(update(own)?),
            (None, None) => None,
        })
    }

    /// The bits of the activations if the product can be computed from codes.
    fn packed_activations(&self, precision: SitePrecision, x: &Tensor<B, 2>) -> Option<ActivationBits> {
        let wanted = self.execution == Execution::Packed && !B::ad_enabled(&x.device());
        let QuantisationSettings { activation, .. } = self.quantisation(&precision);
        let per_token = precision.activations.is_full() || activation == QuantSpec::PER_TOKEN;
        if !wanted || !per_token || precision.weights.is_full() {
            None
        } else if self.multiplies_bf16(precision) {
            Some(ActivationBits::BF16)
        } else {
            ActivationBits::new(precision.activations).ok()
        }
    }

    fn rounding<'a>(&'a self, bits: BitWidth, step: Option<&'a AdapterStep<B>>) -> WeightRounding<'a, B> {
        self.rounding_by(bits, self.settings().quantisation(), step)
    }

    fn rounding_by<'a>(
        &'a self,
        bits: BitWidth,
        quantisation: QuantisationSettings,
        step: Option<&'a AdapterStep<B>>,
    ) -> WeightRounding<'a, B> {
        let QuantisationSettings { weight: spec, rounding: method, rotation, .. } = quantisation;
        WeightRounding { bits, spec, method, rotation, moments: self.moments.get(), step }
    }

    /// How the weight becomes codes at a precision.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn rounding_at(&self, precision: &SitePrecision) -> Result<WeightRounding<'_, B>> {
        self.check(precision)?;
        let step = self.active_step(*precision)?;
        Ok(self.rounding_by(precision.weights, self.quantisation(precision), step))
    }

    /// The layer with weights that were rounded by a method behind a rotation, or are where they are floats.
    pub fn with_rounding(self, method: RoundingMethod, rotation: Rotation) -> Self {
        Self { method, rotation, ..self }
    }

    /// What is known of the inputs.
    pub fn moments(&self) -> Option<&InputMoments> {
        self.moments.get()
    }

    /// How the factors were chosen that were folded into the model of the layer, if any were: `awq at 4 bits`.
    pub fn scaling(&self) -> Option<&str> {
        self.scaling.as_deref()
    }

    /// The layer of a model that factors were folded into, which plans then say.
    pub fn with_scaling(self, scaling: Option<Arc<str>>) -> Self {
        Self { scaling, ..self }
    }

    /// What the model of the layer was calibrated on, if it is known: the hash of model and windows, and that of the windows
    /// alone behind a `/`.
    pub fn calibration(&self) -> Option<&str> {
        self.calibration.as_deref()
    }

    /// The layer of a model that was calibrated on something, which plans then say.
    pub fn with_calibration(self, calibration: Option<Arc<str>>) -> Self {
        Self { calibration, ..self }
    }

    /// The layer with what is known of its inputs, which forms of its weight may depend on.
    ///
    /// # Errors
    ///
    /// [`Error::Quantisation`] for moments of another number of inputs.
    pub fn with_moments(self, moments: Arc<InputMoments>) -> Result<Self> {
        let (got, expected) = (moments.d_in(), self.d_in());
        if got != expected {
            return Err(quant_kernels::Error::MomentsOfInputs { got, expected }.into());
        }
        Ok(Self { base: self.base.with_new_slot(), moments: KnownMoments::of(moments), ..self })
    }

    fn base_at(&self, bits: BitWidth, step: Option<&AdapterStep<B>>) -> Result<Tensor<B, 2>> {
        self.base.at(self.rounding(bits, step), self.gradient)
    }

    /// The number of inputs.
    pub fn d_in(&self) -> usize {
        let [d_in, _] = self.base.shape();
        d_in
    }

    /// The number of outputs.
    pub fn d_out(&self) -> usize {
        let [_, d_out] = self.base.shape();
        d_out
    }

    /// The weight at full precision, `[d_in, d_out]`; what its codes stand for, where it is only there
    /// packed.
    pub fn weight(&self) -> Tensor<B, 2> {
        self.base.float(self.rotation)
    }

    /// The weight, where it is only there packed.
    pub fn packed_weights(&self) -> Option<&PackedWeights> {
        self.base.packed_weights()
    }

    /// The bias, `[d_out]`.
    pub fn bias(&self) -> Option<Tensor<B, 1>> {
        self.base.bias().map(Param::val)
    }

    /// The weight as a parameter; `None` where it is only there packed.
    pub fn weight_param(&self) -> Option<&Param<Tensor<B, 2>>> {
        self.base.weight()
    }

    /// The bias as a parameter.
    pub fn bias_param(&self) -> Option<&Param<Tensor<B, 1>>> {
        self.base.bias()
    }

    /// The layer with other values for weight and bias, and the same settings and adapters.
    ///
    /// # Panics
    ///
    /// If the shapes disagree, or the weight's differs from the one it replaces.
    pub fn with_parameters(self, weight: Tensor<B, 2>, bias: Option<Tensor<B, 1>>) -> Self {
        let (got, expected) = (weight.dims(), self.base.shape());
        assert_eq!(got, expected, "a weight of shape {got:?} cannot replace one of shape {expected:?}");
        let base = self.base.with_values(weight, bias);
        Self { base, ..self }
    }

    /// The layer with its weight only there packed, and the same bias, adapters and cache.
    ///
    /// # Errors
    ///
    /// [`Error::PackedPlacement`] if there are adapters that are merged into the weight:
    /// [`merged_with`](Self::merged_with) gives a layer whose weight has one of them in it.
    /// [`Error::PackedStep`] if an adapter has a learned step that is not the scale of the codes at its
    /// width.
    ///
    /// # Panics
    ///
    /// If the shape of the weight differs from that of the one it replaces.
    pub fn with_packed_weights(self, weights: PackedWeights) -> Result<Self> {
        let (got, expected) = (weights.shape(), self.base.shape());
        assert_eq!(got, expected, "a weight of shape {got:?} cannot replace one of shape {expected:?}");
        let settings = self.settings();
        let mut packed = Self::with_base(self.base.with_packed(weights), LoraBank::new(), settings);
        for (width, pair) in self.bank.iter() {
            packed.insert_adapter(width, pair.clone())?;
        }
        packed.bank.shared = self.bank.shared;
        (packed.trained_for, packed.calibrated_on) = (self.trained_for, self.calibrated_on);
        packed.moments = self.moments;
        packed.calibration = self.calibration;
        Ok(packed)
    }

    /// The settings.
    pub fn settings(&self) -> LinearSettings {
        LinearSettings {
            weight: self.weight_spec,
            activation: self.activation_spec,
            placement: self.placement,
            base: self.base.policy(),
            gradient: self.gradient,
            rounding: self.method,
            rotation: self.rotation,
            execution: self.execution,
            compute: self.compute,
        }
    }

    /// The layer with other settings.
    pub fn with_settings(self, settings: LinearSettings) -> Self {
        let (trained_for, calibrated_on, moments) = (self.trained_for, self.calibrated_on, self.moments);
        let (scaling, calibration) = (self.scaling, self.calibration);
        Self {
            moments,
            scaling,
            calibration,
            trained_for,
            calibrated_on,
            ..Self::with_base(self.base.with_policy(settings.base), self.bank, settings)
        }
    }

    /// The layer with weight and bias that get no gradient.
    pub fn freeze(self) -> Self {
        let base = self.base.with_policy(BasePolicy::Frozen);
        Self { base, ..self }
    }

    /// The layer with weight and bias that are trained.
    pub fn unfreeze(self) -> Self {
        let base = self.base.with_policy(BasePolicy::Trainable);
        Self { base, ..self }
    }

    /// `Qw(W)`: what the layer multiplies by at `bits` without an adapter.
    ///
    /// # Errors
    ///
    /// [`Error::Quantisation`] if the width does not fit the quantiser.
    pub fn quantized_weight(&self, bits: BitWidth) -> Result<Tensor<B, 2>> {
        self.base_at(bits, None)
    }

    /// Whether the cache holds the weight at `bits` under the present settings: by the scales that its
    /// quantiser finds, or by the learned step of the adapter for that width; no where that has none.
    pub fn keeps_quantized(&self, bits: BitWidth, scales: WeightScales) -> bool {
        let step = self.bank.get(bits).and_then(LoraAdapterPair::adapter_step);
        match (scales, step) {
            (WeightScales::Found, _) => self.base.keeps(self.rounding(bits, None)),
            (WeightScales::Learned, Some(step)) => self.base.keeps(self.rounding(bits, Some(step))),
            (WeightScales::Learned, None) => false,
        }
    }

    /// The cache that the layer's quantised weights are kept in.
    pub fn quantized_cache(&self) -> &QuantizedCache {
        self.base.cache()
    }

    /// Drops this layer's weights from the cache.
    pub fn clear_quantized(&self) {
        self.base.clear_quantized();
    }

    /// The adapters.
    pub fn bank(&self) -> &LoraBank<B> {
        &self.bank
    }
}
