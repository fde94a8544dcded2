//! A linear layer whose bit-width and adapter are chosen in each call.
//!
//! ```text
//! residual   y = Qa(x) · Qw(W) + b + s · (x · A) · B
//! merged     y = Qa(x) · Qw(W + s · A · B) + b
//! ```
//!
//! `W [d_in, d_out]`, `b [d_out]`, `A [d_in, rank]`, `B [rank, d_out]`, `s = alpha / rank`. The
//! residual form is that of QLoRA (arXiv:2305.14314), the merged one trains the adapter through the
//! quantiser, as L4Q does (arXiv:2402.04902).

use burn::{
    module::{Module, Param},
    tensor::{Tensor, backend::Backend},
};
use quant_kernels::{GradientRule, QuantBackend, QuantSpec, fake_quantize};

use crate::{
    BasePolicy, BaseWeights, BitWidth, Error, LinearSettings, LoraAdapterPair, LoraBank, LoraConfig, LoraInit,
    Placement, QuantizedCache, Result, SitePrecision,
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
        Self {
            base: BaseWeights::new(weight, bias, settings.base, cache),
            bank: LoraBank::new(),
            weight_spec: settings.weight,
            activation_spec: settings.activation,
            placement: settings.placement,
            gradient: settings.gradient,
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
        let mut dims = x.dims();
        let [d_in, d_out] = [self.d_in(), self.d_out()];
        assert_eq!(dims.last(), Some(&d_in), "an input of shape {dims:?} does not end in {d_in}");
        let rows = dims[..D - 1].iter().product();
        let y = match self.forward_rows(x.reshape([rows, d_in]), *precision) {
            Ok(y) => y,
            Err(error) => panic!("{error}"),
        };
        dims[D - 1] = d_out;
        y.reshape(dims)
    }

    /// The output for a matrix, one product whatever the batch.
    fn forward_rows(&self, x: Tensor<B, 2>, precision: SitePrecision) -> Result<Tensor<B, 2>> {
        let pair = precision.adapter.map(|width| self.bank.expect(width)).transpose()?;
        let quantized_x = fake_quantize(x.clone(), precision.activations, &self.activation_spec, self.gradient)?;
        let (weight, adapted) = match (self.placement, pair) {
            (_, None) => (self.base_at(precision.weights)?, None),
            (Placement::Residual, Some(pair)) => (self.base_at(precision.weights)?, Some(pair.forward(x))),
            // A weight that is not quantised takes the adapter beside it: no copy of the weight.
            (Placement::Merged, Some(pair)) if precision.weights.is_full() => {
                (self.weight(), Some(pair.forward(quantized_x.clone())))
            }
            (Placement::Merged, Some(pair)) => (self.merged_weight(pair, precision.weights)?, None),
        };
        let mut y = quantized_x.matmul(weight);
        if let Some(adapted) = adapted {
            y = y + adapted;
        }
        Ok(match self.base.bias() {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        })
    }

    fn base_at(&self, bits: BitWidth) -> Result<Tensor<B, 2>> {
        Ok(self.base.at(bits, &self.weight_spec, self.gradient)?)
    }

    fn merged_weight(&self, pair: &LoraAdapterPair<B>, bits: BitWidth) -> Result<Tensor<B, 2>> {
        let weight = self.weight() + pair.product();
        Ok(fake_quantize(weight, bits, &self.weight_spec, self.gradient)?)
    }

    /// Checks that the layer can compute at a precision.
    ///
    /// # Errors
    ///
    /// [`Error::MissingAdapter`] if the bank lacks the adapter, [`Error::Quantisation`] if a width
    /// does not fit its quantiser.
    pub fn check(&self, precision: &SitePrecision) -> Result<()> {
        self.weight_spec.check(precision.weights, 2)?;
        self.activation_spec.check(precision.activations, 2)?;
        if let Some(width) = precision.adapter {
            self.bank.expect(width)?;
        }
        Ok(())
    }

    /// The number of inputs.
    pub fn d_in(&self) -> usize {
        let [d_in, _] = self.base.weight().dims();
        d_in
    }

    /// The number of outputs.
    pub fn d_out(&self) -> usize {
        let [_, d_out] = self.base.weight().dims();
        d_out
    }

    /// The weight at full precision, `[d_in, d_out]`.
    pub fn weight(&self) -> Tensor<B, 2> {
        self.base.weight().val()
    }

    /// The bias, `[d_out]`.
    pub fn bias(&self) -> Option<Tensor<B, 1>> {
        self.base.bias().map(Param::val)
    }

    /// The weight as a parameter.
    pub fn weight_param(&self) -> &Param<Tensor<B, 2>> {
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
        let (got, expected) = (weight.dims(), self.weight_param().dims());
        assert_eq!(got, expected, "a weight of shape {got:?} cannot replace one of shape {expected:?}");
        let base = self.base.with_values(weight, bias);
        Self { base, ..self }
    }

    /// The settings.
    pub fn settings(&self) -> LinearSettings {
        LinearSettings {
            weight: self.weight_spec,
            activation: self.activation_spec,
            placement: self.placement,
            base: self.base.policy(),
            gradient: self.gradient,
        }
    }

    /// The layer with other settings.
    pub fn with_settings(self, settings: LinearSettings) -> Self {
        Self {
            base: self.base.with_policy(settings.base),
            bank: self.bank,
            weight_spec: settings.weight,
            activation_spec: settings.activation,
            placement: settings.placement,
            gradient: settings.gradient,
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

    /// `Qw(W)`: what the layer multiplies by at `bits` when no adapter is merged.
    ///
    /// # Errors
    ///
    /// [`Error::Quantisation`] if the width does not fit the quantiser.
    pub fn quantized_weight(&self, bits: BitWidth) -> Result<Tensor<B, 2>> {
        self.base_at(bits)
    }

    /// Whether the cache holds the weight at `bits` under the present settings.
    pub fn keeps_quantized(&self, bits: BitWidth) -> bool {
        self.base.keeps(bits, &self.weight_spec)
    }

    /// Drops this layer's weights from the cache.
    pub fn clear_quantized(&self) {
        self.base.clear_quantized();
    }

    /// The adapters.
    pub fn bank(&self) -> &LoraBank<B> {
        &self.bank
    }

    /// Adds the adapter for a width, in place of any that was there.
    ///
    /// # Errors
    ///
    /// [`Error::AdapterShape`] if it is for a weight of another shape.
    pub fn insert_adapter(&mut self, width: BitWidth, pair: LoraAdapterPair<B>) -> Result<()> {
        let (got, expected) = (pair.adapts(), [self.d_in(), self.d_out()]);
        if got != expected {
            return Err(Error::AdapterShape { got, expected });
        }
        self.bank.insert(width, pair);
        Ok(())
    }

    /// Adds a fresh adapter for a width, in place of any that was there. The seed decides its random
    /// numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Quantisation`] if the adapter starts from the quantisation residual and the width
    /// does not fit the quantiser.
    pub fn init_adapter(&mut self, width: BitWidth, config: &LoraConfig, seed: u64) -> Result<()> {
        let weight = self.weight().set_require_grad(false);
        let pair = match config.init() {
            LoraInit::ZeroB => LoraAdapterPair::adding_nothing(config, weight.dims(), seed, &weight.device()),
            LoraInit::LoftQ { iterations } => {
                let quantized = self.base_at(width)?.set_require_grad(false);
                LoraAdapterPair::from_residual(config, &(weight - quantized), iterations, seed)
            }
        };
        self.insert_adapter(width, pair)
    }

    /// A layer whose base weight is `W + s · A · B`, without adapters: what merged placement computes
    /// at the adapter's width, with the quantised weight kept from call to call. It shares the cache.
    ///
    /// # Errors
    ///
    /// [`Error::MissingAdapter`] if there is no adapter for the width.
    pub fn merged_with(&self, width: BitWidth) -> Result<Self> {
        let weight = self.weight() + self.bank.expect(width)?.product();
        let base = self.base.with_values(weight.set_require_grad(false), self.bias());
        Ok(Self { base, bank: LoraBank::new(), ..self.clone() })
    }

    /// Takes the adapter for a width out.
    pub fn remove_adapter(&mut self, width: BitWidth) -> Option<LoraAdapterPair<B>> {
        self.bank.remove(width)
    }
}
