//! A model under a plan as a GGUF file.
//!
//! | weight | as |
//! |---|---|
//! | codes of 2 to 4 bits, symmetric | `Q4_0` |
//! | codes of 5 bits, symmetric | `Q5_0` |
//! | codes of 6 to 8 bits, symmetric | `Q8_0` |
//! | codes of 2 to 4, of 5 bits, asymmetric | `Q4_1`, `Q5_1` |
//! | every other matrix | floats: what the plan multiplies by, adapters in it |
//! | biases, normalisations | `F32` |
//!
//! A scale may be that of a group of a multiple of 32 inputs, of a channel or of the tensor: the codes are those of the
//! plan, and every block of 32 says the scale again, in f16. An adapter that a plan merges is in the codes; one that
//! it adds beside them makes the sum a matrix that is on no grid, which is written as floats. So is a weight that is
//! coded behind a rotation. [`WhyFloats`] says which it was.
//!
//! A plan also says how activations, keys and values are rounded. A file of weights does not: whoever runs it decides.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use half::f16;

use quant_kernels::backends::quant_backend::QuantBackend;
use quant_kernels::packed::{packed_spec::PackedSpec, packed_tensor::PackedTensor, scales::ScaleFormat};
use quant_kernels::spec::{bit_width::BitWidth, quant_spec::QuantSpec, rotation::Rotation};
use switchable_lora::packed_weights::PackedWeights;
use switchable_lora::placement::Placement;
use switchable_lora::site_precision::SitePrecision;
use switchable_lora::switchable_embedding::EMBEDDING_SPEC;
use switchable_lora::switchable_linear::SwitchableLinear;

use super::ARCHITECTURE;
use super::block_type::BlockType;
pub use super::coded_rows::WhyFloats;
use super::coded_rows::{encode, type_of};
use super::family::{GgufFamily, RowOrder};
use super::writer::{EncodedTensor, GgufWriter};
use crate::config::ModelConfig;
use crate::error::{Error, Result, at_site};
use crate::model::SwitchableModel;
use crate::packed::folder::tensor_name;
use crate::parameters::floats;
use crate::site_plan::SitePlan;
use crate::sites::Site;

/// The floats of matrices that are not codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MatrixFloats {
    /// f16, but for a matrix with a number beyond it. Rounds to 11 bits, below 6.1e-5 to 3e-8.
    #[default]
    F16,
    /// f32.
    F32,
}

/// A tensor of the file that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenTensor {
    /// Its name in the file.
    pub name: String,
    /// Its site, where it is the weight of one.
    pub site: Option<String>,
    /// How it is held.
    pub block_type: BlockType,
    /// Its bytes.
    pub bytes: usize,
    /// Why a weight is no codes.
    pub why_floats: Option<WhyFloats>,
}

/// A model as a file, but for its tokenizer.
#[derive(Debug, Clone)]
pub struct ExportedModel {
    /// The file in the making.
    pub writer: GgufWriter,
    /// Its tensors.
    pub tensors: Vec<WrittenTensor>,
}

/// The weights of a model under a plan, and what a file says of the model.
///
/// # Errors
///
/// When the model cannot run at the plan, its family has no GGUF, or llama.cpp would compute something else than the
/// configuration says, which names the field.
pub fn export_model<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    plan: &SitePlan,
    matrices: MatrixFloats,
) -> Result<ExportedModel> {
    let Some(family) = M::Config::GGUF else {
        return Err(refused("model_type", M::Config::MODEL_TYPE, "a family that llama.cpp runs"));
    };
    model.check_plan(plan)?;
    let written = (family.written)(model.config())?;
    let mut export = Export { model, family, plan, matrices, writer: GgufWriter::default(), tensors: Vec::new() };
    export.writer.pair(ARCHITECTURE, family.architecture);
    for (key, value) in written.pairs {
        export.writer.pair(format!("{}.{key}", family.architecture), value);
    }
    for site in model.sites().embeddings() {
        export.embedding(site)?;
    }
    for (name, values) in written.beside {
        export.put(name.to_owned(), None, of_floats(BlockType::F32, vec![values.len()], &values), None);
    }
    for site in model.sites().iter() {
        export.linear(site)?;
    }
    let is_vector = |shape: &[usize]| shape.len() == 1;
    for (name, parameter) in model.named_parameters() {
        if is_vector(&parameter.shape()) {
            export.vector(&name, &parameter.values());
        }
    }
    export.describe();
    Ok(ExportedModel { writer: export.writer, tensors: export.tensors })
}

/// The error of a configuration that llama.cpp would run otherwise.
pub fn refused(field: &'static str, got: &str, expected: &str) -> Error {
    Error::Config { path: "<config>".into(), field, got: got.into(), expected: expected.into() }
}

struct Export<'a, B: QuantBackend, M: SwitchableModel<B>> {
    model: &'a M,
    family: &'static GgufFamily<M::Config>,
    plan: &'a SitePlan,
    matrices: MatrixFloats,
    writer: GgufWriter,
    tensors: Vec<WrittenTensor>,
}

impl<B: QuantBackend, M: SwitchableModel<B>> Export<'_, B, M> {
    fn put(&mut self, name: String, site: Option<Site>, tensor: EncodedTensor, why_floats: Option<WhyFloats>) {
        let EncodedTensor { block_type, bytes, .. } = &tensor;
        let site = site.map(|site| self.model.sites().name(site));
        let written =
            WrittenTensor { name: name.clone(), site, block_type: *block_type, bytes: bytes.len(), why_floats };
        self.tensors.push(written);
        self.writer.tensor(name, tensor);
    }

    /// The name of a parameter in the file, and how its rows lie.
    fn place(&self, name: &str) -> (String, RowOrder) {
        let place = self.family.written_place(self.model.config(), name);
        place.unwrap_or_else(|| panic!("`{name}` has no name in a GGUF of a {}", M::Config::MODEL_TYPE))
    }

    fn vector(&mut self, name: &str, values: &[f32]) {
        let (name, order) = self.place(name);
        let rows = values.len();
        let values: Vec<f32> = (0..rows).map(|row| values[order.folder_row(row, rows)]).collect();
        self.put(name, None, of_floats(BlockType::F32, vec![rows], &values), None);
    }

    fn linear(&mut self, site: Site) -> Result<()> {
        let (layer, precision) = (self.model.site(site), self.plan.get(site));
        let named = |error| Error::from(at_site(self.model.sites().name(site), error));
        let codes = codes_of(layer, &precision).map_err(named)?;
        self.matrix(site, codes, || Ok(layer.effective_weight(&precision).map_err(named)?.transpose()))
    }

    fn embedding(&mut self, site: Site) -> Result<()> {
        let (table, precision) = (self.model.embedding_site(site), self.plan.get(site));
        let [rows, width] = table.shape();
        let spec = match table.packed_weights() {
            Some(codes) => codes.quantizer(EMBEDDING_SPEC),
            None => precision.quantizer.unwrap_or(EMBEDDING_SPEC),
        };
        let codes = if let Err(why) = grid_of([width, rows], precision.weights, spec) {
            Err(why)
        } else {
            let packed = table.pack(&precision, ScaleFormat::F32);
            Ok(packed.map_err(|error| at_site(self.model.sites().name(site), error))?)
        };
        self.matrix(site, codes, || Ok(table.table_at(&precision)))
    }

    /// A matrix as its codes, or as floats `[rows, columns]` where it has none that a type holds.
    fn matrix(
        &mut self,
        site: Site,
        codes: Result<PackedTensor, WhyFloats>,
        floats_of: impl FnOnce() -> Result<Tensor<B, 2>>,
    ) -> Result<()> {
        let (name, order) = self.place(&tensor_name::<M::Config>(self.model.sites(), site));
        match codes.and_then(|codes| encode(&codes, order)) {
            Ok(tensor) => self.put(name, Some(site), tensor, None),
            Err(why) => {
                let weight = floats_of()?;
                let [rows, columns] = weight.dims();
                let values = floats(weight.into_data());
                let row = |row: usize| &values[order.folder_row(row, rows) * columns..][..columns];
                let values: Vec<f32> = (0..rows).flat_map(row).copied().collect();
                self.put(name, Some(site), of_floats(self.type_of(&values), vec![rows, columns], &values), Some(why));
            }
        }
        Ok(())
    }

    /// The floats that hold some values.
    fn type_of(&self, values: &[f32]) -> BlockType {
        let holds = |value: &f32| f16::from_f32(*value).is_finite();
        match self.matrices {
            MatrixFloats::F16 if values.iter().all(holds) => BlockType::F16,
            MatrixFloats::F16 | MatrixFloats::F32 => BlockType::F32,
        }
    }

    /// What programs show of a file: the type that most bytes are of, and the version of the codes.
    fn describe(&mut self) {
        let mut bytes: BTreeMap<u32, usize> = BTreeMap::new();
        for tensor in self.tensors.iter().filter(|tensor| tensor.site.is_some()) {
            *bytes.entry(file_type(tensor.block_type)).or_default() += tensor.bytes;
        }
        let most = bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map_or(0, |(number, _)| number);
        self.writer.pair("general.file_type", most);
        if self.tensors.iter().any(|tensor| tensor.block_type.values() > 1) {
            self.writer.pair("general.quantization_version", 2);
        }
    }
}

/// The number of a file whose matrices are mostly of a type, by `llama_ftype` of llama.cpp.
fn file_type(block_type: BlockType) -> u32 {
    match block_type {
        BlockType::F16 => 1,
        BlockType::Q4_0 => 2,
        BlockType::Q4_1 => 3,
        BlockType::Q8_0 => 7,
        BlockType::Q5_0 => 8,
        BlockType::Q5_1 => 9,
        _ => 0,
    }
}

fn of_floats(block_type: BlockType, shape: Vec<usize>, values: &[f32]) -> EncodedTensor {
    EncodedTensor { shape, block_type, bytes: block_type.encode_floats(values) }
}

/// Whether a type has the grid of a matrix.
fn grid_of(shape: [usize; 2], bits: BitWidth, spec: QuantSpec) -> Result<(), WhyFloats> {
    if !(BitWidth::B2..=BitWidth::B8).contains(&bits) {
        return Err(WhyFloats::Width(bits));
    }
    let QuantSpec { granularity, format, .. } = spec;
    type_of(&PackedSpec { shape, bits, format, granularity, scale_format: ScaleFormat::F32 }).map(|_| ())
}

/// The codes that a layer multiplies by at a precision, where they are all that it multiplies by.
fn codes_of<B: QuantBackend>(
    layer: &SwitchableLinear<B>,
    precision: &SitePrecision,
) -> switchable_lora::Result<Result<PackedTensor, WhyFloats>> {
    let quantisation = layer.quantisation(precision);
    let (shape, bits) = ([layer.d_in(), layer.d_out()], precision.weights);
    let spec = layer.packed_weights().map_or(quantisation.weight, |codes| codes.quantizer(quantisation.weight));
    if let Err(why) = grid_of(shape, bits, spec) {
        return Ok(Err(why));
    }
    if quantisation.rotation != Rotation::None {
        return Ok(Err(WhyFloats::Rotation));
    }
    if precision.adapters().next().is_none() {
        return codes_without_adapter(layer, precision).map(Ok);
    }
    if quantisation.placement == Placement::Residual {
        return Ok(Err(WhyFloats::Adapter));
    }
    match layer.merged_at(precision) {
        Ok(merged) => codes_without_adapter(&merged, &precision.without_adapter()).map(Ok),
        Err(switchable_lora::Error::MergedStep { .. }) => Ok(Err(WhyFloats::MergedStep)),
        Err(error) => Err(error),
    }
}

fn codes_without_adapter<B: QuantBackend>(
    layer: &SwitchableLinear<B>,
    precision: &SitePrecision,
) -> switchable_lora::Result<PackedTensor> {
    let rounding = layer.rounding_at(precision)?;
    match layer.packed_weights() {
        Some(PackedWeights::Fixed(codes)) => Ok(codes.clone()),
        Some(PackedWeights::Nested(codes)) => Ok(codes.slice_to(precision.weights)?),
        None => rounding.pack(&layer.weight(), ScaleFormat::F32),
    }
}
