//! What records hold of the heads that came with adapters.
//!
//! ```text
//! none                    where no adapter brought a head
//! heads, widths           the heads, and the bit-widths that they are for, in rising order
//! ```
//!
//! A record decides which heads there are after it is loaded, as it does for adapters. Records without widths,
//! which earlier versions wrote of such heads, do not say whose head is whose, and are refused.

use std::fmt;

use burn::module::{
    AutodiffModule, Content, Devices, HasAutodiffModule, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
    ModuleVisitor,
};
use burn::record::Record;
use burn::tensor::backend::{AutodiffBackend, Backend};

use quant_kernels::spec::bit_width::BitWidth;

use crate::width_heads::{SpanHead, WidthHeads};

/// The heads of a model, and their widths.
#[derive(Record)]
pub struct WidthHeadsRecord<B: Backend> {
    /// The heads, in the order of the widths.
    pub heads: Vec<<SpanHead<B> as Module<B>>::Record>,
    /// The bit-widths that they are for.
    pub widths: Option<Vec<u8>>,
}

impl<B: Backend> fmt::Debug for WidthHeadsRecord<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WidthHeadsRecord").field("widths", &self.widths).finish_non_exhaustive()
    }
}

impl<B: Backend> Module<B> for WidthHeads<B> {
    type Record = Option<WidthHeadsRecord<B>>;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        self.heads.collect_devices(devices)
    }

    fn fork(self, device: &B::Device) -> Self {
        Self { heads: self.heads.fork(device), ..self }
    }

    fn to_device(self, device: &B::Device) -> Self {
        Self { heads: Module::<B>::to_device(self.heads, device), ..self }
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        visitor.enter_module("heads", NAME);
        self.heads.visit(visitor);
        visitor.exit_module("heads", NAME);
    }

    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        mapper.enter_module("heads", NAME);
        let heads = Module::<B>::map(self.heads, mapper);
        mapper.exit_module("heads", NAME);
        Self { heads, ..self }
    }

    /// # Panics
    ///
    /// If the record does not fit its own widths, names none, or holds a head that fits no other.
    fn load_record(mut self, record: Self::Record) -> Self {
        let mut heads = self.clone().cleared();
        let Some(WidthHeadsRecord { heads: records, widths }) = record else { return heads };
        let Some(widths) = widths else { panic!("record of {} span heads without their widths", records.len()) };
        let (got, expected) = (records.len(), widths.len());
        assert_eq!(got, expected, "record of {got} span heads for {expected} widths");
        for (bits, record) in widths.into_iter().zip(records) {
            let width = BitWidth::new(bits).unwrap_or_else(|error| panic!("record of span heads: {error}"));
            let head = match self.remove(width) {
                Some(head) => head.load_record(record),
                None => SpanHead { weight: record.weight, bias: record.bias },
            };
            heads.insert(width, head);
        }
        heads
    }

    fn into_record(self) -> Self::Record {
        if self.widths.is_empty() {
            return None;
        }
        let widths = self.widths.iter().map(|width| width.bits()).collect();
        Some(WidthHeadsRecord { heads: Module::<B>::into_record(self.heads), widths: Some(widths) })
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for WidthHeads<B> {
    type InnerModule = WidthHeads<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        WidthHeads { heads: self.heads.valid(), widths: self.widths.clone(), trained: self.trained }
    }

    fn from_inner(WidthHeads { heads, widths, trained }: Self::InnerModule) -> Self {
        Self { heads: AutodiffModule::from_inner(heads), widths, trained }
    }
}

impl<B: AutodiffBackend> HasAutodiffModule<B> for WidthHeads<B::InnerBackend> {
    type TrainModule = WidthHeads<B>;
}

const NAME: &str = "Struct:WidthHeads";

impl<B: Backend> ModuleDisplayDefault for WidthHeads<B> {
    fn content(&self, content: Content) -> Option<Content> {
        let content = content.set_top_level_type("WidthHeads").add("heads", &self.heads);
        content.add_debug_attribute("widths", &self.widths).optional()
    }
}

impl<B: Backend> ModuleDisplay for WidthHeads<B> {}
