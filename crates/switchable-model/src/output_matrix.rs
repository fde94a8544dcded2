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

use quant_kernels::packed::packed_tensor::PackedTensor;

/// The output matrix `O` of a language model, `[vocabulary, width]`.
///
/// A record of it is that of the parameter of its own, if it has one.
#[derive(Debug, Clone)]
pub enum OutputMatrix<B: Backend> {
    /// The token embedding, which may have a packed copy.
    Tied,
    /// A parameter of its own.
    Own(Param<Tensor<B, 2>>),
    /// A matrix of its own of which there are only codes, transposed.
    Packed(PackedTensor),
}

impl<B: Backend> OutputMatrix<B> {
    /// Whether it is the token embedding.
    pub fn is_tied(&self) -> bool {
        matches!(self, Self::Tied)
    }

    /// The parameter of its own, if there is one in floats.
    pub fn param(&self) -> Option<&Param<Tensor<B, 2>>> {
        match self {
            Self::Own(matrix) => Some(matrix),
            Self::Tied | Self::Packed(_) => None,
        }
    }

    /// The same, trained or not; codes are not trained.
    #[must_use]
    pub fn set_require_grad(self, require_grad: bool) -> Self {
        self.map_param(|matrix| matrix.set_require_grad(require_grad))
    }

    fn map_param(self, change: impl FnOnce(Param<Tensor<B, 2>>) -> Param<Tensor<B, 2>>) -> Self {
        match self {
            Self::Own(matrix) => Self::Own(change(matrix)),
            other => other,
        }
    }
}

impl<B: Backend> Module<B> for OutputMatrix<B> {
    type Record = Option<Param<Tensor<B, 2>>>;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        match self {
            Self::Own(matrix) => matrix.collect_devices(devices),
            Self::Tied | Self::Packed(_) => devices,
        }
    }

    fn fork(self, device: &B::Device) -> Self {
        self.map_param(|matrix| matrix.fork(device))
    }

    fn to_device(self, device: &B::Device) -> Self {
        self.map_param(|matrix| Module::to_device(matrix, device))
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        if let Self::Own(matrix) = self {
            matrix.visit(visitor);
        }
    }

    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        self.map_param(|matrix| Module::map(matrix, mapper))
    }

    /// # Panics
    ///
    /// If one of the two has an output matrix of its own and the other has not, or the shapes differ.
    fn load_record(self, record: Self::Record) -> Self {
        match (self, record) {
            (Self::Own(matrix), Some(record)) => {
                let (got, expected) = (record.dims(), matrix.dims());
                assert_eq!(got, expected, "record of an output matrix of shape {got:?}, expected {expected:?}");
                Self::Own(matrix.load_record(record))
            }
            (Self::Own(_), None) => panic!("record of a model without an output matrix of its own, this one has one"),
            (other, None) => other,
            (Self::Tied | Self::Packed(_), Some(_)) => {
                panic!("record of a model with an output matrix of its own, this one has none in floats")
            }
        }
    }

    fn into_record(self) -> Self::Record {
        match self {
            Self::Own(matrix) => Some(matrix.into_record()),
            Self::Tied | Self::Packed(_) => None,
        }
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for OutputMatrix<B> {
    type InnerModule = OutputMatrix<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        match self {
            Self::Tied => OutputMatrix::Tied,
            Self::Own(matrix) => OutputMatrix::Own(matrix.valid()),
            Self::Packed(codes) => OutputMatrix::Packed(codes.clone()),
        }
    }

    fn from_inner(module: Self::InnerModule) -> Self {
        match module {
            OutputMatrix::Tied => Self::Tied,
            OutputMatrix::Own(matrix) => Self::Own(AutodiffModule::from_inner(matrix)),
            OutputMatrix::Packed(codes) => Self::Packed(codes),
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
            Self::Packed(codes) => content.add_formatted(&format!("{:?}", codes.spec())).optional(),
        }
    }
}

impl<B: Backend> ModuleDisplay for OutputMatrix<B> {}
