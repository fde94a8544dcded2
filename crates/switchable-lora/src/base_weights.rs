//! The weight and bias that all widths of a layer share.

use burn::{
    module::{
        AutodiffModule, Content, Devices, HasAutodiffModule, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
        ModuleVisitor, Param,
    },
    tensor::{
        Tensor,
        backend::{AutodiffBackend, Backend},
    },
};
use quant_kernels::{BitWidth, GradientRule, QuantBackend, QuantSpec, Result, fake_quantize};

use crate::{BasePolicy, QuantizedCache, quantized_cache::CacheSlot};

/// The weight and bias that all widths of a layer share, and the weight's quantised forms.
///
/// It is a module of its own so that whatever changes the weight (an optimizer, a record, a mapper,
/// a move to another device) also drops the quantised forms.
#[derive(Debug, Clone)]
pub struct BaseWeights<B: Backend> {
    weight: Param<Tensor<B, 2>>,
    bias: Option<Param<Tensor<B, 1>>>,
    policy: BasePolicy,
    slot: CacheSlot,
}

impl<B: Backend> BaseWeights<B> {
    /// # Shapes
    ///
    /// - `weight` `[d_in, d_out]`
    /// - `bias` `[d_out]`
    ///
    /// # Panics
    ///
    /// If the shapes disagree.
    pub(crate) fn new(
        weight: Tensor<B, 2>,
        bias: Option<Tensor<B, 1>>,
        policy: BasePolicy,
        cache: &QuantizedCache,
    ) -> Self {
        let [d_in, d_out] = weight.dims();
        if let Some(bias) = &bias {
            let [got] = bias.dims();
            assert_eq!(got, d_out, "a bias of {got} elements does not fit a weight of shape [{d_in}, {d_out}]");
        }
        let weights = Self { weight: parameter(weight), bias: bias.map(parameter), policy, slot: cache.slot() };
        weights.with_policy(policy)
    }

    /// The weight, `[d_in, d_out]`.
    pub fn weight(&self) -> &Param<Tensor<B, 2>> {
        &self.weight
    }

    /// The bias, `[d_out]`.
    pub fn bias(&self) -> Option<&Param<Tensor<B, 1>>> {
        self.bias.as_ref()
    }

    /// Whether they are trained.
    pub fn policy(&self) -> BasePolicy {
        self.policy
    }

    /// The same values, trained or not.
    pub(crate) fn with_policy(self, policy: BasePolicy) -> Self {
        let trained = policy == BasePolicy::Trainable;
        Self {
            weight: self.weight.set_require_grad(trained),
            bias: self.bias.map(|bias| bias.set_require_grad(trained)),
            policy,
            slot: self.slot,
        }
    }

    /// Other values under the same policy and cache.
    pub(crate) fn with_values(&self, weight: Tensor<B, 2>, bias: Option<Tensor<B, 1>>) -> Self {
        Self::new(weight, bias, self.policy, self.slot.cache())
    }

    /// The weight at `bits`: kept from an earlier call unless the weight is being trained.
    pub(crate) fn at(&self, bits: BitWidth, spec: &QuantSpec, gradient: GradientRule) -> Result<Tensor<B, 2>>
    where
        B: QuantBackend,
    {
        spec.check(bits, 2)?;
        let weight = self.weight.val();
        if bits.is_full() {
            return Ok(weight);
        }
        if self.is_trained(&weight.device()) {
            return fake_quantize(weight, bits, spec, gradient);
        }
        if let Some(kept) = self.slot.get(bits, *spec) {
            return Ok(kept);
        }
        let quantized = fake_quantize(weight, bits, spec, gradient)?;
        self.slot.keep(bits, *spec, &quantized);
        Ok(quantized)
    }

    /// Whether the form at `bits` is kept.
    pub(crate) fn keeps(&self, bits: BitWidth, spec: &QuantSpec) -> bool {
        self.slot.has::<B>(bits, *spec)
    }

    /// Drops the quantised forms.
    pub(crate) fn clear_quantized(&self) {
        self.slot.clear();
    }

    /// Whether gradients are recorded for the weight. Without autodiff it cannot change between
    /// calls, whatever the policy says.
    fn is_trained(&self, device: &B::Device) -> bool {
        self.policy == BasePolicy::Trainable && B::ad_enabled(device)
    }
}

/// A parameter that takes the gradient setting of its tensor.
fn parameter<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Param<Tensor<B, D>> {
    Param::from_tensor(tensor.set_require_grad(false))
}

/// Whether two tensors hold the same numbers in the same place.
fn is_same<B: Backend>(a: &Tensor<B, 2>, b: &Tensor<B, 2>) -> bool {
    a.dims() == b.dims()
        && a.dtype() == b.dtype()
        && a.device() == b.device()
        && a.clone().equal(b.clone()).all().into_data().iter::<bool>().all(|same| same)
}

const CONTAINER: &str = "Struct:BaseWeights";

impl<B: Backend> Module<B> for BaseWeights<B> {
    type Record = (Param<Tensor<B, 2>>, Option<Param<Tensor<B, 1>>>);

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        let devices = self.weight.collect_devices(devices);
        Module::<B>::collect_devices(&self.bias, devices)
    }

    fn fork(self, device: &B::Device) -> Self {
        Self {
            weight: self.weight.fork(device),
            bias: self.bias.fork(device),
            policy: self.policy,
            slot: self.slot.renewed(),
        }
    }

    fn to_device(self, device: &B::Device) -> Self {
        Self {
            weight: Module::to_device(self.weight, device),
            bias: Module::<B>::to_device(self.bias, device),
            policy: self.policy,
            slot: self.slot.renewed(),
        }
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        visitor.enter_module("weight", CONTAINER);
        self.weight.visit(visitor);
        visitor.exit_module("weight", CONTAINER);
        visitor.enter_module("bias", CONTAINER);
        self.bias.visit(visitor);
        visitor.exit_module("bias", CONTAINER);
    }

    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        let kept_for = (!self.slot.is_empty()).then(|| self.weight.val().set_require_grad(false));
        mapper.enter_module("weight", CONTAINER);
        let weight = Module::map(self.weight, mapper);
        mapper.exit_module("weight", CONTAINER);
        mapper.enter_module("bias", CONTAINER);
        let bias = Module::<B>::map(self.bias, mapper);
        mapper.exit_module("bias", CONTAINER);
        // Every training step maps every parameter, mostly to itself: only a frozen weight that did
        // change gives up its quantised forms.
        let slot = match kept_for {
            Some(before) if !is_same(&before, &weight.val().set_require_grad(false)) => self.slot.renewed(),
            _ => self.slot,
        };
        Self { weight, bias, policy: self.policy, slot }
    }

    fn load_record(self, (weight, bias): Self::Record) -> Self {
        Self {
            weight: self.weight.load_record(weight),
            bias: Module::<B>::load_record(self.bias, bias),
            policy: self.policy,
            slot: self.slot.renewed(),
        }
    }

    fn into_record(self) -> Self::Record {
        (self.weight.into_record(), Module::<B>::into_record(self.bias))
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for BaseWeights<B> {
    type InnerModule = BaseWeights<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        BaseWeights {
            weight: self.weight.valid(),
            bias: self.bias.valid(),
            policy: self.policy,
            slot: self.slot.clone(),
        }
    }

    fn from_inner(module: Self::InnerModule) -> Self {
        let weights = Self {
            weight: AutodiffModule::from_inner(module.weight),
            bias: AutodiffModule::from_inner(module.bias),
            policy: module.policy,
            slot: module.slot,
        };
        weights.with_policy(module.policy)
    }
}

impl<B: AutodiffBackend> HasAutodiffModule<B> for BaseWeights<B::InnerBackend> {
    type TrainModule = BaseWeights<B>;
}

impl<B: Backend> ModuleDisplayDefault for BaseWeights<B> {
    fn content(&self, content: Content) -> Option<Content> {
        content
            .set_top_level_type("BaseWeights")
            .add("weight", &self.weight)
            .add("bias", &self.bias)
            .add_debug_attribute("policy", &self.policy)
            .optional()
    }
}

impl<B: Backend> ModuleDisplay for BaseWeights<B> {}
