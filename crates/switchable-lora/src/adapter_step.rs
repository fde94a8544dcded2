//! The learned step of an adapter, and how anyone can tell that it changed.
//!
//! ```text
//! Qw(W) = ⌊clamp(W / s, −Q, Q)⌉ · s          Q = 2^(b−1) − 1
//! ```
//!
//! `s` is the step of one weight at one width, trained with the adapter of that width. LSQ, Esser et
//! al., arXiv:1902.08153.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
};

use burn::{
    module::{
        AutodiffModule, Content, Devices, HasAutodiffModule, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
        ModuleVisitor, Param, ParamId,
    },
    tensor::{
        Tensor,
        backend::{AutodiffBackend, Backend},
    },
};

use quant_kernels::{
    spec::{formats::format::Format, quant_spec::QuantSpec},
    tensor::learned_step::LearnedStep,
};

use crate::error::{Error, Result};

/// The state of a step: two steps of the same version have the same values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StepVersion(u64);

impl StepVersion {
    /// A version that no step has had.
    fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A learned step with its version.
///
/// The step is only reached through a shared reference, so whatever changes its values (an optimizer,
/// a mapper, a record, a move to another device) goes through this module and gives it another version.
#[derive(Debug, Clone)]
pub(crate) struct AdapterStep<B: Backend> {
    step: LearnedStep<B>,
    version: StepVersion,
}

impl<B: Backend> AdapterStep<B> {
    pub(crate) fn new(step: LearnedStep<B>) -> Self {
        Self { step, version: StepVersion::fresh() }
    }

    pub(crate) fn get(&self) -> &LearnedStep<B> {
        &self.step
    }

    pub(crate) fn version(&self) -> StepVersion {
        self.version
    }

    /// Whether an optimizer may change it between calls.
    pub(crate) fn is_trained(&self) -> bool {
        let step = self.step.step.val();
        B::ad_enabled(&step.device()) && step.is_require_grad()
    }
}

/// Checks that a weight that is quantised as `spec` says can have a step at `bits`.
pub(crate) fn check_spec<B: Backend>(step: &LearnedStep<B>, spec: &QuantSpec) -> Result<()> {
    if spec.format != Format::Symmetric {
        return Err(Error::StepFormat { format: spec.format });
    }
    if spec.granularity != step.granularity() {
        return Err(Error::StepGranularity { got: step.granularity(), expected: spec.granularity });
    }
    Ok(())
}

/// The identifiers of a module's learned steps among its parameters.
///
/// An optimizer that gives every parameter the same update, as Adam does, should treat them apart: a
/// step is a size that its updates must be small against.
///
/// ```
/// use burn::{backend::Flex, tensor::Tensor};
/// use switchable_lora::{BitWidth, LinearSettings, LoraConfig, QuantizedCache, SwitchableLinear, WeightScales, adapter_step::learned_step_ids};
///
/// let weight = Tensor::<Flex, 2>::from_floats([[0.7, -0.3], [0.1, 0.6]], &Default::default());
/// let mut layer = SwitchableLinear::new(weight, None, LinearSettings::default(), &QuantizedCache::default());
/// layer.init_adapter(BitWidth::B4, &LoraConfig::new(1, 1.0)?.with_scales(WeightScales::Learned), 0)?;
///
/// let ids = learned_step_ids::<Flex, _>(&layer);
/// let step = layer.bank().get(BitWidth::B4).and_then(|pair| pair.step()).unwrap();
/// assert!(ids.len() == 1 && ids.contains(&step.step.id));
/// # Ok::<(), switchable_lora::Error>(())
/// ```
pub fn learned_step_ids<B: Backend, M: Module<B>>(module: &M) -> HashSet<ParamId> {
    let mut steps = Steps { depth: 0, found: HashSet::new() };
    module.visit(&mut steps);
    steps.found
}

struct Steps {
    /// The adapter steps that are being visited, 0 or 1.
    depth: usize,
    found: HashSet<ParamId>,
}

impl<B: Backend> ModuleVisitor<B> for Steps {
    fn enter_module(&mut self, _name: &str, container_type: &str) {
        self.depth += usize::from(container_type == CONTAINER);
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.depth -= usize::from(container_type == CONTAINER);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if self.depth > 0 {
            self.found.insert(param.id);
        }
    }
}

const CONTAINER: &str = "Struct:AdapterStep";
/// The name of the values in records' and visitors' paths, `…step.values.step`.
const FIELD: &str = "values";

impl<B: Backend> Module<B> for AdapterStep<B> {
    type Record = <LearnedStep<B> as Module<B>>::Record;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        self.step.collect_devices(devices)
    }

    fn fork(self, device: &B::Device) -> Self {
        Self::new(self.step.fork(device))
    }

    fn to_device(self, device: &B::Device) -> Self {
        Self::new(self.step.to_device(device))
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        visitor.enter_module(FIELD, CONTAINER);
        self.step.visit(visitor);
        visitor.exit_module(FIELD, CONTAINER);
    }

    /// A mapping to the same values gives another version too: to compare them would make a device wait.
    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        mapper.enter_module(FIELD, CONTAINER);
        let step = self.step.map(mapper);
        mapper.exit_module(FIELD, CONTAINER);
        Self::new(step)
    }

    fn load_record(self, record: Self::Record) -> Self {
        Self::new(self.step.load_record(record))
    }

    fn into_record(self) -> Self::Record {
        self.step.into_record()
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for AdapterStep<B> {
    type InnerModule = AdapterStep<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        AdapterStep { step: self.step.valid(), version: self.version }
    }

    fn from_inner(module: Self::InnerModule) -> Self {
        Self { step: AutodiffModule::from_inner(module.step), version: module.version }
    }
}

impl<B: AutodiffBackend> HasAutodiffModule<B> for AdapterStep<B::InnerBackend> {
    type TrainModule = AdapterStep<B>;
}

impl<B: Backend> ModuleDisplayDefault for AdapterStep<B> {
    fn content(&self, content: Content) -> Option<Content> {
        content.set_top_level_type("AdapterStep").add("values", &self.step).optional()
    }
}

impl<B: Backend> ModuleDisplay for AdapterStep<B> {}
