//! The output matrix `O` of a language model.
//!
//! ```text
//! z = y·Oᵀ        O = E, the token embedding, where the two are tied
//! ```

use burn::module::{
    AutodiffModule, Content, Devices, HasAutodiffModule, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
    ModuleVisitor, Param,
};
use burn::tensor::{
    Tensor,
    backend::{AutodiffBackend, Backend},
};

use switchable_lora::linear_settings::BasePolicy;
use switchable_lora::switchable_embedding::SwitchableEmbedding;

/// The output matrix `O` of a language model, `[vocabulary, width]`.
///
/// A record of it is that of the parameter of its own, if it has one in floats.
#[derive(Debug, Clone)]
pub enum OutputMatrix<B: Backend> {
    /// The token embedding.
    Tied,
    /// A matrix of its own.
    Own(SwitchableEmbedding<B>),
}

impl<B: Backend> OutputMatrix<B> {
    /// Whether it is the token embedding.
    pub fn is_tied(&self) -> bool {
        matches!(self, Self::Tied)
    }

    /// The matrix of its own, if there is one.
    pub fn own(&self) -> Option<&SwitchableEmbedding<B>> {
        match self {
            Self::Own(matrix) => Some(matrix),
            Self::Tied => None,
        }
    }

    /// The same, to be changed.
    pub fn own_mut(&mut self) -> Option<&mut SwitchableEmbedding<B>> {
        match self {
            Self::Own(matrix) => Some(matrix),
            Self::Tied => None,
        }
    }

    /// The parameter of its own, if there is one in floats.
    pub fn param(&self) -> Option<&Param<Tensor<B, 2>>> {
        self.own()?.param()
    }

    /// The same under a base policy; codes are not trained.
    #[must_use]
    pub fn with_policy(self, policy: BasePolicy) -> Self {
        self.map_own(|matrix| matrix.with_policy(policy))
    }

    fn map_own(self, change: impl FnOnce(SwitchableEmbedding<B>) -> SwitchableEmbedding<B>) -> Self {
        match self {
            Self::Own(matrix) => Self::Own(change(matrix)),
            Self::Tied => Self::Tied,
        }
    }
}

impl<B: Backend> Module<B> for OutputMatrix<B> {
    type Record = Option<Param<Tensor<B, 2>>>;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        match self {
            Self::Own(matrix) => matrix.collect_devices(devices),
            Self::Tied => devices,
        }
    }

    fn fork(self, device: &B::Device) -> Self {
        self.map_own(|matrix| matrix.fork(device))
    }

    fn to_device(self, device: &B::Device) -> Self {
        self.map_own(|matrix| Module::to_device(matrix, device))
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        if let Self::Own(matrix) = self {
            matrix.visit(visitor);
        }
    }

    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        self.map_own(|matrix| Module::map(matrix, mapper))
    }

    /// # Panics
    ///
    /// If one of the two has an output matrix of its own in floats and the other has not, or the shapes differ.
    fn load_record(self, record: Self::Record) -> Self {
        match (self, record) {
            (Self::Own(matrix), Some(record)) if matrix.param().is_some() => {
                let (got, expected) = (record.dims(), matrix.shape());
                assert_eq!(got, expected, "record of an output matrix of shape {got:?}, expected {expected:?}");
                Self::Own(matrix.load_record(Some(record)))
            }
            (Self::Own(matrix), None) if matrix.param().is_some() => {
                panic!("record of a model without an output matrix of its own, this one has one")
            }
            (other, None) => other,
            (_, Some(_)) => {
                panic!("record of a model with an output matrix of its own, this one has none in floats")
            }
        }
    }

    fn into_record(self) -> Self::Record {
        match self {
            Self::Own(matrix) => matrix.into_record(),
            Self::Tied => None,
        }
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for OutputMatrix<B> {
    type InnerModule = OutputMatrix<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        match self {
            Self::Tied => OutputMatrix::Tied,
            Self::Own(matrix) => OutputMatrix::Own(matrix.valid()),
        }
    }

    fn from_inner(module: Self::InnerModule) -> Self {
        match module {
            OutputMatrix::Tied => Self::Tied,
            OutputMatrix::Own(matrix) => Self::Own(AutodiffModule::from_inner(matrix)),
        }
    }
}

impl<B: AutodiffBackend> HasAutodiffModule<B> for OutputMatrix<B::InnerBackend> {
    type TrainModule = OutputMatrix<B>;
}

impl<B: Backend> ModuleDisplayDefault for OutputMatrix<B> {
    fn content(&self, content: Content) -> Option<Content> {
        match self {
            Self::Tied => content.add_formatted(&"tied to the token embedding").optional(),
            Self::Own(matrix) => matrix.content(content),
        }
    }
}

impl<B: Backend> ModuleDisplay for OutputMatrix<B> {}
