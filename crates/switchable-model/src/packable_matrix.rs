//! A matrix parameter, and a packed copy of its transpose that follows its values.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use burn::module::{
    AutodiffModule, Content, Devices, HasAutodiffModule, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
    ModuleVisitor, Param,
};
use burn::tensor::{
    Tensor,
    backend::{AutodiffBackend, Backend},
};

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    packed::{packed_tensor::PackedTensor, scales::ScaleFormat},
    spec::bit_width::BitWidth,
};

use crate::packed::head::pack_head;

/// A matrix parameter, and a packed copy of its transpose where one was asked for.
///
/// The copy is of the values that the parameter has: whatever changes them (an optimizer, a record, a
/// mapper) makes the copy be packed anew when it is next used.
///
/// For visitors, mappers and records it is the parameter alone.
#[derive(Debug, Clone)]
pub struct PackableMatrix<B: Backend> {
    matrix: Param<Tensor<B, 2>>,
    packed: Option<PackedCopy>,
}

/// A packed copy of one value of a matrix. Clones share it.
#[derive(Debug, Clone)]
struct PackedCopy {
    bits: BitWidth,
    scale_format: ScaleFormat,
    /// Made at the first use; nothing where the values cannot be packed.
    codes: Arc<OnceLock<Option<PackedTensor>>>,
}

impl PackedCopy {
    fn of(codes: PackedTensor) -> Self {
        let (bits, scale_format) = (codes.bits(), codes.scale_format());
        Self { bits, scale_format, codes: Arc::new(OnceLock::from(Some(codes))) }
    }

    /// A copy of other values.
    fn renewed(self) -> Self {
        Self { codes: Arc::default(), ..self }
    }
}

impl<B: Backend> PackableMatrix<B> {
    /// A matrix without a packed copy.
    pub fn new(matrix: Param<Tensor<B, 2>>) -> Self {
        Self { matrix, packed: None }
    }

    /// Sets or drops the packed copy of the transpose, which must be of the values that the matrix has.
    pub(crate) fn set_packed(&mut self, codes: Option<PackedTensor>) {
        self.packed = codes.map(PackedCopy::of);
    }

    /// Codes of the transpose of the values that the matrix has, if a packed copy was asked for and they
    /// can be packed.
    pub fn packed(&self) -> Option<&PackedTensor>
    where
        B: QuantBackend,
    {
        let PackedCopy { bits, scale_format, codes } = self.packed.as_ref()?;
        let pack = || pack_head(self.matrix.val().set_require_grad(false), *bits, *scale_format).ok();
        codes.get_or_init(pack).as_ref()
    }

    /// The matrix with other values.
    #[must_use]
    pub fn map(self, change: impl FnOnce(Tensor<B, 2>) -> Tensor<B, 2>) -> Self {
        Self { matrix: self.matrix.map(change), packed: self.packed.map(PackedCopy::renewed) }
    }

    /// The same values, trained or not.
    #[must_use]
    pub fn set_require_grad(self, require_grad: bool) -> Self {
        Self { matrix: self.matrix.set_require_grad(require_grad), ..self }
    }

    /// The parameter alone.
    pub fn into_param(self) -> Param<Tensor<B, 2>> {
        self.matrix
    }
}

impl<B: Backend> Deref for PackableMatrix<B> {
    type Target = Param<Tensor<B, 2>>;

    fn deref(&self) -> &Self::Target {
        &self.matrix
    }
}

/// Whether two tensors hold the same numbers.
fn is_same<B: Backend>(a: &Tensor<B, 2>, b: &Tensor<B, 2>) -> bool {
    a.dims() == b.dims()
        && a.dtype() == b.dtype()
        && a.device() == b.device()
        && a.clone().equal(b.clone()).all().into_data().iter::<bool>().all(|same| same)
}

impl<B: Backend> Module<B> for PackableMatrix<B> {
    type Record = Param<Tensor<B, 2>>;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        self.matrix.collect_devices(devices)
    }

    fn fork(self, device: &B::Device) -> Self {
        Self { matrix: self.matrix.fork(device), ..self }
    }

    fn to_device(self, device: &B::Device) -> Self {
        Self { matrix: Module::to_device(self.matrix, device), ..self }
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        self.matrix.visit(visitor);
    }

    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        let Some(packed) = self.packed else { return Self::new(Module::map(self.matrix, mapper)) };
        let before = self.matrix.val();
        let is_trained = before.is_require_grad();
        let matrix = Module::map(self.matrix, mapper);
        // Every training step maps every parameter; one that is not trained mostly stays as it is.
        let stays = !is_trained && is_same(&before, &matrix.val().set_require_grad(false));
        Self { matrix, packed: Some(if stays { packed } else { packed.renewed() }) }
    }

    /// # Panics
    ///
    /// If the record is of a matrix of another shape.
    fn load_record(self, record: Self::Record) -> Self {
        let (got, expected) = (record.dims(), self.matrix.dims());
        assert_eq!(got, expected, "record of a matrix of shape {got:?}, expected {expected:?}");
        Self { matrix: self.matrix.load_record(record), packed: self.packed.map(PackedCopy::renewed) }
    }

    fn into_record(self) -> Self::Record {
        self.matrix.into_record()
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for PackableMatrix<B> {
    type InnerModule = PackableMatrix<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        PackableMatrix { matrix: self.matrix.valid(), packed: self.packed.clone() }
    }

    fn from_inner(PackableMatrix { matrix, packed }: Self::InnerModule) -> Self {
        Self { matrix: AutodiffModule::from_inner(matrix), packed }
    }
}

impl<B: AutodiffBackend> HasAutodiffModule<B> for PackableMatrix<B::InnerBackend> {
    type TrainModule = PackableMatrix<B>;
}

impl<B: Backend> ModuleDisplayDefault for PackableMatrix<B> {
    fn content(&self, content: Content) -> Option<Content> {
        self.matrix.content(content)
    }
}

impl<B: Backend> ModuleDisplay for PackableMatrix<B> {}
