//! The weight and bias that all widths of a layer share.

use burn::{
    module::{
        AutodiffModule, Content, Devices, HasAutodiffModule, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
        ModuleVisitor, Param,
    },
    tensor::{
        Tensor, TensorData,
        backend::{AutodiffBackend, Backend},
    },
};

use quant_kernels::{
    backends::{quant_backend::QuantBackend, same_tensor::is_same},
    packed::{half_weight::HalfWeight, packed_tensor::PackedTensor, scales::ScaleFormat},
    rotation::hadamard::{Direction, HadamardTransform},
    spec::{bit_width::BitWidth, gradient_rule::GradientRule, quant_spec::QuantSpec, rotation::Rotation},
    tensor::rotation::rotate_inputs,
};

use crate::{
    error::Result,
    linear_settings::BasePolicy,
    low_rank_update::LowRankUpdate,
    packed_weights::PackedWeights,
    quantized_cache::{CacheSlot, Form, QuantizedCache},
    weight_rounding::WeightRounding,
};

/// The weight and bias that all widths of a layer share, and the weight's quantised forms.
///
/// It is a module of its own so that whatever changes the weight (an optimizer, a record, a mapper,
/// a move to another device) also drops the quantised forms.
#[derive(Debug, Clone)]
pub struct BaseWeights<B: Backend> {
    weight: Weight<B>,
    bias: Option<Param<Tensor<B, 1>>>,
    policy: BasePolicy,
    slot: CacheSlot,
}

/// How the weight is held.
#[derive(Debug, Clone)]
enum Weight<B: Backend> {
    Float(Param<Tensor<B, 2>>),
    Packed { weights: PackedWeights, device: B::Device },
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
        check_bias(weight.dims(), bias.as_ref());
        let slot = cache.slot(weight.shape().num_elements() * weight.dtype().size());
        let weight = Weight::Float(parameter(weight));
        Self { weight, bias: bias.map(parameter), policy, slot }.with_policy(policy)
    }

    /// A weight that is only there packed, and a bias. Neither is trained.
    ///
    /// # Panics
    ///
    /// If the shapes disagree.
    pub(crate) fn packed(
        weights: PackedWeights,
        bias: Option<Tensor<B, 1>>,
        cache: &QuantizedCache,
        device: &B::Device,
    ) -> Self {
        check_bias(weights.shape(), bias.as_ref());
        let weight = Weight::Packed { weights, device: device.clone() };
        Self { weight, bias: bias.map(parameter), policy: BasePolicy::Frozen, slot: cache.slot(0) }
    }

    /// The weight in floats, `[d_in, d_out]`; `None` where it is only there packed.
    pub fn weight(&self) -> Option<&Param<Tensor<B, 2>>> {
        match &self.weight {
            Weight::Float(weight) => Some(weight),
            Weight::Packed { .. } => None,
        }
    }

    /// The weight, where it is only there packed.
    pub fn packed_weights(&self) -> Option<&PackedWeights> {
        match &self.weight {
            Weight::Float(_) => None,
            Weight::Packed { weights, .. } => Some(weights),
        }
    }

    /// `[d_in, d_out]`.
    pub fn shape(&self) -> [usize; 2] {
        match &self.weight {
            Weight::Float(weight) => weight.dims(),
            Weight::Packed { weights, .. } => weights.shape(),
        }
    }

    /// The best there is of the weight in floats: itself, or what its codes stand for, which are of it rotated.
    pub(crate) fn float(&self, rotation: Rotation) -> Tensor<B, 2>
    where
        B: QuantBackend,
    {
        match &self.weight {
            Weight::Float(weight) => weight.val(),
            Weight::Packed { weights, device } => {
                as_it_stands(weights.stored().dequantize(), weights.shape(), rotation, device)
            }
        }
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
        let (weight, policy) = match self.weight {
            Weight::Float(weight) => (Weight::Float(weight.set_require_grad(policy == BasePolicy::Trainable)), policy),
            // Codes cannot be trained.
            packed @ Weight::Packed { .. } => (packed, BasePolicy::Frozen),
        };
        let trained = policy == BasePolicy::Trainable;
        Self { weight, bias: self.bias.map(|bias| bias.set_require_grad(trained)), policy, slot: self.slot }
    }

    /// The same values with no form kept.
    pub(crate) fn with_new_slot(self) -> Self {
        Self { slot: self.slot.renewed(), ..self }
    }

    /// Other values under the same policy and cache.
    pub(crate) fn with_values(&self, weight: Tensor<B, 2>, bias: Option<Tensor<B, 1>>) -> Self {
        Self::new(weight, bias, self.policy, self.slot.cache())
    }

    /// The weight only there packed, the bias and the cache as they are.
    pub(crate) fn with_packed(&self, weights: PackedWeights) -> Self {
        let device = match &self.weight {
            Weight::Float(weight) => weight.val().device(),
            Weight::Packed { device, .. } => device.clone(),
        };
        let bias = self.bias.as_ref().map(|bias| bias.val().set_require_grad(false));
        Self::packed(weights, bias, self.slot.cache(), &device)
    }

    /// The weight in floats as a rounding leaves it: kept from an earlier call unless the weight or its
    /// step is being trained. Codes of a weight that is only there packed are those of the step, or the
    /// step is refused where it is given to the layer.
    pub(crate) fn at(&self, rounding: WeightRounding<'_, B>, gradient: GradientRule) -> Result<Tensor<B, 2>>
    where
        B: QuantBackend,
    {
        let weight = match &self.weight {
            Weight::Float(weight) => weight.val(),
            Weight::Packed { weights, device } => {
                let values = weights.at(rounding.bits)?.dequantize();
                return Ok(as_it_stands(values, weights.shape(), rounding.rotation, device));
            }
        };
        if rounding.bits.is_full() {
            return Ok(weight);
        }
        if rounding.is_trained() || is_trained(&weight) {
            return rounding.apply(weight, gradient);
        }
        if let Some(kept) = self.slot.get(rounding.key()) {
            return Ok(kept);
        }
        let quantized = rounding.apply(weight, gradient)?;
        self.slot.keep(rounding.key(), &quantized);
        Ok(quantized)
    }

    /// What [`at`](Self::at) gives in bf16, kept from an earlier call; `None` where the weight, its step or
    /// the bias is being trained.
    pub(crate) fn half_at(&self, rounding: WeightRounding<'_, B>) -> Result<Option<HalfWeight>>
    where
        B: QuantBackend,
    {
        let bias_is_trained = self.bias.as_ref().is_some_and(|bias| is_trained(&bias.val()));
        if rounding.is_trained() || bias_is_trained || self.weight().is_some_and(|weight| is_trained(&weight.val())) {
            return Ok(None);
        }
        if let Some(kept) = self.slot.get(rounding.key()) {
            return Ok(Some(kept));
        }
        let values = match &self.weight {
            // Rounded beside what is kept in floats: of the two forms one is wanted.
            Weight::Float(weight) if !rounding.bits.is_full() => {
                rounding.apply(weight.val(), GradientRule::Identity)?
            }
            _ => self.at(rounding, GradientRule::Identity)?,
        };
        let Ok(values) = values.into_data().convert::<f32>().into_vec::<f32>() else { return Ok(None) };
        let half = HalfWeight::new(&values, self.shape());
        self.slot.keep(rounding.key(), &half);
        Ok(Some(half))
    }

    /// The codes of a float weight, kept from an earlier call; `None` where they cannot be packed.
    pub(crate) fn codes_at(&self, rounding: WeightRounding<'_, B>) -> Option<PackedTensor>
    where
        B: QuantBackend,
    {
        let weight = self.weight()?;
        if let Some(kept) = self.slot.get(rounding.key()) {
            return Some(kept);
        }
        let packed = rounding.pack(&weight.val(), ScaleFormat::F32).ok()?;
        self.slot.keep(rounding.key(), &packed);
        Some(packed)
    }

    /// The codes of a float weight with an adapter in it, kept from an earlier call with the same adapter; `None`
    /// where they cannot be packed.
    pub(crate) fn merged_codes_at(
        &self,
        rounding: WeightRounding<'_, B>,
        update: &LowRankUpdate<B>,
    ) -> Option<PackedTensor>
    where
        B: QuantBackend,
    {
        let weight = self.weight()?;
        let LowRankUpdate { a, b, scaling } = update.clone();
        let is_of = |kept: &MergedCodes<B>| {
            kept.scaling.to_bits() == scaling.to_bits() && is_same(&kept.a, &a) && is_same(&kept.b, &b)
        };
        if let Some(kept) = self.slot.get::<MergedCodes<B>>(rounding.key()).filter(is_of) {
            return Some(kept.codes);
        }
        let codes = rounding.pack(&(weight.val() + update.product()), ScaleFormat::F32).ok()?;
        let merged = MergedCodes { a, b, scaling, codes };
        self.slot.keep(rounding.key(), &merged);
        Some(merged.codes)
    }

    /// Checks that there is a form of the weight at `bits`.
    pub(crate) fn check(&self, bits: BitWidth, spec: &QuantSpec) -> Result<()> {
        match self.packed_weights() {
            Some(weights) => weights.at(bits).map(|_| ()),
            None => Ok(spec.check(bits, 2)?),
        }
    }

    /// Whether a form that the rounding gives is kept.
    pub(crate) fn keeps(&self, rounding: WeightRounding<'_, B>) -> bool {
        let key = rounding.key();
        self.slot.has::<Tensor<B, 2>>(key)
            || self.slot.has::<HalfWeight>(key)
            || self.slot.has::<PackedTensor>(key)
            || self.slot.has::<MergedCodes<B>>(key)
    }

    /// Where the quantised forms are kept.
    pub(crate) fn cache(&self) -> &QuantizedCache {
        self.slot.cache()
    }

    /// Drops the quantised forms.
    pub(crate) fn clear_quantized(&self) {
        self.slot.clear();
    }
}

/// Codes of a weight with an adapter in it, and the adapter.
#[derive(Clone)]
struct MergedCodes<B: Backend> {
    a: Tensor<B, 2>,
    b: Tensor<B, 2>,
    scaling: f64,
    codes: PackedTensor,
}

impl<B: Backend> Form for MergedCodes<B> {
    fn bytes(&self) -> usize {
        Form::bytes(&self.a) + Form::bytes(&self.b) + PackedTensor::bytes(&self.codes)
    }
}

/// The weight that the values of codes are a rotation of.
fn as_it_stands<B: QuantBackend>(
    values: Vec<f32>,
    shape: [usize; 2],
    rotation: Rotation,
    device: &B::Device,
) -> Tensor<B, 2> {
    let values = Tensor::from_data(TensorData::new(values, shape), device);
    match HadamardTransform::of(rotation, shape[0]) {
        Some(transform) => rotate_inputs(values, &transform, Direction::Back),
        None => values,
    }
}

/// Whether gradients are recorded for a weight, which goes by the tensor: a mapper may let a weight train
/// whatever the policy says. Without autodiff it cannot change between calls.
fn is_trained<B: Backend, const D: usize>(weight: &Tensor<B, D>) -> bool {
    B::ad_enabled(&weight.device()) && weight.is_require_grad()
}

fn check_bias<B: Backend>([d_in, d_out]: [usize; 2], bias: Option<&Tensor<B, 1>>) {
    if let Some(bias) = bias {
        let [got] = bias.dims();
        assert_eq!(got, d_out, "a bias of {got} elements does not fit a weight of shape [{d_in}, {d_out}]");
    }
}

/// A parameter that takes the gradient setting of its tensor.
fn parameter<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Param<Tensor<B, D>> {
    Param::from_tensor(tensor.set_require_grad(false))
}

const CONTAINER: &str = "Struct:BaseWeights";

impl<B: Backend> Weight<B> {
    /// The weight with its float form changed.
    fn map_float(self, change: impl FnOnce(Param<Tensor<B, 2>>) -> Param<Tensor<B, 2>>) -> Self {
        match self {
            Self::Float(weight) => Self::Float(change(weight)),
            packed @ Self::Packed { .. } => packed,
        }
    }

    fn moved(self, device: &B::Device, move_float: impl FnOnce(Param<Tensor<B, 2>>) -> Param<Tensor<B, 2>>) -> Self {
        match self {
            Self::Float(weight) => Self::Float(move_float(weight)),
            Self::Packed { weights, .. } => Self::Packed { weights, device: device.clone() },
        }
    }
}

impl<B: Backend> Module<B> for BaseWeights<B> {
    /// Packed weights are not recorded.
    type Record = (Option<Param<Tensor<B, 2>>>, Option<Param<Tensor<B, 1>>>);

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        let devices = match &self.weight {
            Weight::Float(weight) => weight.collect_devices(devices),
            Weight::Packed { .. } => devices,
        };
        Module::<B>::collect_devices(&self.bias, devices)
    }

    fn fork(self, device: &B::Device) -> Self {
        Self {
            weight: self.weight.moved(device, |weight| weight.fork(device)),
            bias: self.bias.fork(device),
            policy: self.policy,
            slot: self.slot.renewed(),
        }
    }

    fn to_device(self, device: &B::Device) -> Self {
        Self {
            weight: self.weight.moved(device, |weight| Module::to_device(weight, device)),
            bias: Module::<B>::to_device(self.bias, device),
            policy: self.policy,
            slot: self.slot.renewed(),
        }
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        if let Weight::Float(weight) = &self.weight {
            visitor.enter_module("weight", CONTAINER);
            weight.visit(visitor);
            visitor.exit_module("weight", CONTAINER);
        }
        visitor.enter_module("bias", CONTAINER);
        self.bias.visit(visitor);
        visitor.exit_module("bias", CONTAINER);
    }

    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        let float = |weight: &Weight<B>| match weight {
            Weight::Float(weight) => Some(weight.val().set_require_grad(false)),
            Weight::Packed { .. } => None,
        };
        // Where nothing is kept, another slot costs nothing; a weight that is trained mostly changes.
        let may_stay = !self.slot.is_empty() && self.weight().is_none_or(|weight| !is_trained(&weight.val()));
        let kept_for = if may_stay { float(&self.weight) } else { None };
        let weight = self.weight.map_float(|weight| {
            mapper.enter_module("weight", CONTAINER);
            let weight = Module::map(weight, mapper);
            mapper.exit_module("weight", CONTAINER);
            weight
        });
        mapper.enter_module("bias", CONTAINER);
        let bias = Module::<B>::map(self.bias, mapper);
        mapper.exit_module("bias", CONTAINER);
        // Every training step maps every parameter, mostly to itself: a frozen weight with forms keeps them
        // if it did not change.
        let is_packed = matches!(weight, Weight::Packed { .. });
        let slot = match (kept_for, float(&weight)) {
            // Codes do not change.
            _ if is_packed => self.slot,
            (Some(before), Some(after)) if is_same(&before, &after) => self.slot,
            _ => self.slot.renewed(),
        };
        Self { weight, bias, policy: self.policy, slot }
    }

    /// # Panics
    ///
    /// If the record is of a weight or bias of another shape, of a layer with a bias where this one has none
    /// or the other way round, or if the weight is only there packed in one of the two.
    fn load_record(self, (weight, bias): Self::Record) -> Self {
        let shape = self.shape();
        let weight = match (self.weight, weight) {
            (Weight::Float(weight), Some(record)) => {
                let got = record.dims();
                assert_eq!(got, shape, "record of a weight of shape {got:?}, the layer's is {shape:?}");
                Weight::Float(weight.load_record(record))
            }
            (packed @ Weight::Packed { .. }, None) => packed,
            (Weight::Float(_), None) => {
                panic!("record of a packed weight, which holds no codes; the layer's weight is in floats")
            }
            (Weight::Packed { .. }, Some(_)) => {
                panic!("record of a weight in floats, the layer's is only there packed")
            }
        };
        let bias = match (self.bias, bias) {
            (Some(bias), Some(record)) => {
                check_bias(shape, Some(&record.val()));
                Some(bias.load_record(record))
            }
            (None, None) => None,
            (Some(_), None) => panic!("record of a layer without a bias, the layer has one"),
            (None, Some(_)) => panic!("record of a layer with a bias, the layer has none"),
        };
        Self { weight, bias, policy: self.policy, slot: self.slot.renewed() }
    }

    fn into_record(self) -> Self::Record {
        let weight = match self.weight {
            Weight::Float(weight) => Some(weight.into_record()),
            Weight::Packed { .. } => None,
        };
        (weight, Module::<B>::into_record(self.bias))
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for BaseWeights<B> {
    type InnerModule = BaseWeights<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        BaseWeights {
            weight: match &self.weight {
                Weight::Float(weight) => Weight::Float(weight.valid()),
                Weight::Packed { weights, device } => {
                    Weight::Packed { weights: weights.clone(), device: device.clone() }
                }
            },
            bias: self.bias.valid(),
            policy: self.policy,
            slot: self.slot.clone(),
        }
    }

    fn from_inner(module: Self::InnerModule) -> Self {
        let weights = Self {
            weight: match module.weight {
                Weight::Float(weight) => Weight::Float(AutodiffModule::from_inner(weight)),
                Weight::Packed { weights, device } => Weight::Packed { weights, device },
            },
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
        let content = content.set_top_level_type("BaseWeights");
        let content = match &self.weight {
            Weight::Float(weight) => content.add("weight", weight),
            Weight::Packed { weights, .. } => content.add_debug_attribute("packed", &weights.stored().spec()),
        };
        content.add("bias", &self.bias).add_debug_attribute("policy", &self.policy).optional()
    }
}

impl<B: Backend> ModuleDisplay for BaseWeights<B> {}
