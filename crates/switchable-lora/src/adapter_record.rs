//! What records hold of adapters: the factors, and what they mean nothing without.
//!
//! ```text
//! pairs   a, b, alpha, step, step_granularity      for each adapter
//! widths  the bit-widths that they are for         in rising order
//! ```
//!
//! A record decides which adapters there are after it is loaded. Records without alpha, widths and
//! granularity, which earlier versions wrote, hold numbers alone: they are read into a bank with the same
//! number of adapters, whose widths and alphas stay.

use std::fmt;

use burn::{
    module::{
        AutodiffModule, Content, Devices, HasAutodiffModule, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
        ModuleVisitor, Param,
    },
    record::Record,
    tensor::{
        Tensor,
        backend::{AutodiffBackend, Backend},
    },
};

use quant_kernels::{
    spec::{bit_width::BitWidth, granularity::Granularity},
    tensor::learned_step::LearnedStep,
};

use crate::{adapter_pair::LoraAdapterPair, adapter_step::AdapterStep, lora_bank::LoraBank, lora_config::LoraConfig};

/// What a record holds of an adapter.
#[derive(Record)]
pub struct LoraAdapterPairRecord<B: Backend> {
    /// The first factor, `[d_in, rank]`.
    pub a: Param<Tensor<B, 2>>,
    /// The second factor, `[rank, d_out]`.
    pub b: Param<Tensor<B, 2>>,
    /// The numerator of the scale.
    pub alpha: Option<f64>,
    /// The learned step.
    pub step: Option<<LearnedStep<B> as Module<B>>::Record>,
    /// Which values share a step, as text.
    pub step_granularity: Option<String>,
}

impl<B: Backend> fmt::Debug for LoraAdapterPairRecord<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoraAdapterPairRecord")
            .field("alpha", &self.alpha)
            .field("step_granularity", &self.step_granularity)
            .finish_non_exhaustive()
    }
}

/// What a record holds of the adapters of a layer.
#[derive(Record, Debug)]
pub struct LoraBankRecord<B: Backend> {
    /// The adapters, in the order of the widths.
    pub pairs: Vec<LoraAdapterPairRecord<B>>,
    /// The bit-widths that they are for.
    pub widths: Option<Vec<u8>>,
}

impl<B: Backend> LoraAdapterPairRecord<B> {
    /// A pair of the record alone, for a width.
    fn into_pair(self, width: BitWidth) -> LoraAdapterPair<B> {
        let Self { a, b, alpha, step, step_granularity } = self;
        let Some(alpha) = alpha else { panic!("the record of the adapter for {width} bits has no alpha") };
        let pair = LoraAdapterPair { a, b, alpha, step: None };
        pair.check();
        let Some(record) = step else { return pair };
        LoraAdapterPair { step: Some(new_step(record, step_granularity, width)), ..pair }
    }
}

impl<B: Backend> LoraAdapterPair<B> {
    fn check(&self) {
        let ([d_in, rank], [rows, d_out]) = (self.a.dims(), self.b.dims());
        assert_eq!(rank, rows, "record of adapter factors [{d_in}, {rank}] and [{rows}, {d_out}], which share no rank");
        if let Err(error) = LoraConfig::new(rank, self.alpha) {
            panic!("record of an adapter: {error}");
        }
    }

    /// The pair as the record has it, for a width where that is known.
    fn loaded(self, record: LoraAdapterPairRecord<B>, width: Option<BitWidth>) -> Self {
        let LoraAdapterPairRecord { a, b, alpha, step, step_granularity } = record;
        let (got, expected) = (shape_of(&a, &b), self.adapts());
        assert_eq!(got, expected, "record of an adapter for a {got:?} weight, the layer's is {expected:?}");
        let step = match (self.step, step) {
            (_, None) => None,
            (Some(step), Some(record)) if is_of(&step, step_granularity.as_deref()) => Some(step.load_record(record)),
            (_, Some(record)) => {
                let width =
                    width.unwrap_or_else(|| panic!("record of an adapter with a learned step, this one has none"));
                Some(new_step(record, step_granularity, width))
            }
        };
        let (a, b) = (self.a.load_record(a), self.b.load_record(b));
        let pair = Self { a, b, alpha: alpha.unwrap_or(self.alpha), step };
        pair.check();
        pair
    }
}

fn shape_of<B: Backend>(a: &Param<Tensor<B, 2>>, b: &Param<Tensor<B, 2>>) -> [usize; 2] {
    let ([d_in, _], [_, d_out]) = (a.dims(), b.dims());
    [d_in, d_out]
}

/// Whether a step has the granularity that a record names; records that name none fit any.
fn is_of<B: Backend>(step: &AdapterStep<B>, granularity: Option<&str>) -> bool {
    granularity.is_none_or(|granularity| granularity == step.get().granularity().to_string())
}

fn new_step<B: Backend>(
    record: <LearnedStep<B> as Module<B>>::Record,
    granularity: Option<String>,
    width: BitWidth,
) -> AdapterStep<B> {
    let Some(granularity) = granularity else {
        panic!(
            "the record of the adapter for {width} bits has a learned step without its granularity, and this adapter has none"
        )
    };
    let step = granularity
        .parse::<Granularity>()
        .and_then(|granularity| LearnedStep::from_steps(record.step.val().set_require_grad(false), width, granularity));
    match step {
        Ok(step) => AdapterStep::new(step.load_record(record)),
        Err(error) => panic!("record of the learned step for {width} bits: {error}"),
    }
}

impl<B: Backend> Module<B> for LoraAdapterPair<B> {
    type Record = LoraAdapterPairRecord<B>;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        let devices = self.b.collect_devices(self.a.collect_devices(devices));
        self.step.collect_devices(devices)
    }

    fn fork(self, device: &B::Device) -> Self {
        let Self { a, b, alpha, step } = self;
        Self { a: a.fork(device), b: b.fork(device), alpha, step: step.fork(device) }
    }

    fn to_device(self, device: &B::Device) -> Self {
        let Self { a, b, alpha, step } = self;
        Self {
            a: Module::to_device(a, device),
            b: Module::to_device(b, device),
            alpha,
            step: Module::<B>::to_device(step, device),
        }
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        let mut field = |name: &str, visit: &dyn Fn(&mut Visitor)| {
            visitor.enter_module(name, PAIR);
            visit(visitor);
            visitor.exit_module(name, PAIR);
        };
        field("a", &|visitor| self.a.visit(visitor));
        field("b", &|visitor| self.b.visit(visitor));
        field("step", &|visitor| self.step.visit(visitor));
    }

    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        let Self { a, b, alpha, step } = self;
        mapper.enter_module("a", PAIR);
        let a = Module::map(a, mapper);
        mapper.exit_module("a", PAIR);
        mapper.enter_module("b", PAIR);
        let b = Module::map(b, mapper);
        mapper.exit_module("b", PAIR);
        mapper.enter_module("step", PAIR);
        let step = Module::<B>::map(step, mapper);
        mapper.exit_module("step", PAIR);
        Self { a, b, alpha, step }
    }

    /// # Panics
    ///
    /// If the record is of an adapter for a weight of another shape, or holds a learned step without its
    /// granularity where this adapter has none.
    fn load_record(self, record: Self::Record) -> Self {
        let width = self.step.as_ref().map(|step| step.get().bits());
        self.loaded(record, width)
    }

    fn into_record(self) -> Self::Record {
        let step_granularity = self.step.as_ref().map(|step| step.get().granularity().to_string());
        LoraAdapterPairRecord {
            a: self.a.into_record(),
            b: self.b.into_record(),
            alpha: Some(self.alpha),
            step: Module::<B>::into_record(self.step),
            step_granularity,
        }
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for LoraAdapterPair<B> {
    type InnerModule = LoraAdapterPair<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        LoraAdapterPair { a: self.a.valid(), b: self.b.valid(), alpha: self.alpha, step: self.step.valid() }
    }

    fn from_inner(LoraAdapterPair { a, b, alpha, step }: Self::InnerModule) -> Self {
        let (a, b) = (AutodiffModule::from_inner(a), AutodiffModule::from_inner(b));
        Self { a, b, alpha, step: AutodiffModule::from_inner(step) }
    }
}

impl<B: AutodiffBackend> HasAutodiffModule<B> for LoraAdapterPair<B::InnerBackend> {
    type TrainModule = LoraAdapterPair<B>;
}

const PAIR: &str = "Struct:LoraAdapterPair";

impl<B: Backend> ModuleDisplayDefault for LoraAdapterPair<B> {
    fn content(&self, content: Content) -> Option<Content> {
        let content = content.set_top_level_type("LoraAdapterPair").add("a", &self.a).add("b", &self.b);
        content.add_debug_attribute("alpha", &self.alpha).add("step", &self.step).optional()
    }
}

impl<B: Backend> ModuleDisplay for LoraAdapterPair<B> {}

impl<B: Backend> Module<B> for LoraBank<B> {
    type Record = LoraBankRecord<B>;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        self.pairs.collect_devices(devices)
    }

    fn fork(self, device: &B::Device) -> Self {
        Self { pairs: self.pairs.fork(device), widths: self.widths, shared: self.shared }
    }

    fn to_device(self, device: &B::Device) -> Self {
        Self { pairs: Module::<B>::to_device(self.pairs, device), widths: self.widths, shared: self.shared }
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        visitor.enter_module("pairs", BANK);
        self.pairs.visit(visitor);
        visitor.exit_module("pairs", BANK);
    }

    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        mapper.enter_module("pairs", BANK);
        let pairs = Module::<B>::map(self.pairs, mapper);
        mapper.exit_module("pairs", BANK);
        Self { pairs, widths: self.widths, shared: self.shared }
    }

    /// The bank has the adapters of the record afterwards, and no others.
    ///
    /// # Panics
    ///
    /// If the record does not fit its own widths, names none and holds another number of adapters, or holds
    /// an adapter that does not fit the one that is there.
    fn load_record(mut self, LoraBankRecord { pairs, widths }: Self::Record) -> Self {
        let Some(widths) = widths else {
            let (got, there) = (pairs.len(), self.pairs.len());
            assert_eq!(got, there, "record of {got} adapters without their widths, the layer has {there}");
            let with_records = self.pairs.into_iter().zip(&self.widths).zip(pairs);
            let pairs = with_records.map(|((pair, &width), record)| pair.loaded(record, Some(width))).collect();
            return Self { pairs, widths: self.widths, shared: self.shared };
        };
        let (got, expected) = (pairs.len(), widths.len());
        assert_eq!(got, expected, "record of {got} adapters for {expected} widths");
        let shared = self.shared.take();
        let mut bank = Self::new();
        for (bits, record) in widths.into_iter().zip(pairs) {
            let width = BitWidth::new(bits).unwrap_or_else(|error| panic!("record of adapters: {error}"));
            let pair = match self.remove(width) {
                Some(pair) => pair.loaded(record, Some(width)),
                None => record.into_pair(width),
            };
            bank.insert(width, pair);
        }
        // Which widths share is how the bank is used, not what it holds.
        bank.shared = shared.filter(|(of, _)| bank.widths.contains(of));
        bank
    }

    fn into_record(self) -> Self::Record {
        let widths = self.widths.iter().map(|width| width.bits()).collect();
        LoraBankRecord { pairs: Module::<B>::into_record(self.pairs), widths: Some(widths) }
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for LoraBank<B> {
    type InnerModule = LoraBank<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        LoraBank { pairs: self.pairs.valid(), widths: self.widths.clone(), shared: self.shared.clone() }
    }

    fn from_inner(LoraBank { pairs, widths, shared }: Self::InnerModule) -> Self {
        Self { pairs: AutodiffModule::from_inner(pairs), widths, shared }
    }
}

impl<B: AutodiffBackend> HasAutodiffModule<B> for LoraBank<B::InnerBackend> {
    type TrainModule = LoraBank<B>;
}

const BANK: &str = "Struct:LoraBank";

impl<B: Backend> ModuleDisplayDefault for LoraBank<B> {
    fn content(&self, content: Content) -> Option<Content> {
        let content = content.set_top_level_type("LoraBank").add("pairs", &self.pairs);
        content.add_debug_attribute("widths", &self.widths).optional()
    }
}

impl<B: Backend> ModuleDisplay for LoraBank<B> {}
