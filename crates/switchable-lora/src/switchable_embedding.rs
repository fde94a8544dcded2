//! An embedding whose bit-width is chosen in each call.
//!
//! ```text
//! rows     y_t = Q(E)[i_t]        look-up of tokens or positions
//! scores   z   = Qa(h) · Q(E)ᵀ    the output matrix, which may be the same E
//! ```
//!
//! `E [rows, width]`, `h [.., width]`. `Q` gives every row a scale of its own unless another quantiser is named:
//! it quantises the transpose `Eᵀ [width, rows]` per channel, which is also how codes lie, so that one packed
//! matrix serves look-up and output.

use burn::{
    module::{
        AutodiffModule, Content, Devices, HasAutodiffModule, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
        ModuleVisitor, Param,
    },
    tensor::{
        Int, Tensor, TensorData,
        backend::{AutodiffBackend, Backend},
    },
};

use quant_kernels::{
    backends::{linear_terms::LinearTerms, quant_backend::QuantBackend, same_tensor::is_same},
    packed::{
        packed_tensor::PackedTensor,
        packed_view::PackedView,
        product::{activations::ActivationBits, epilogue::OutputFunction},
        scales::ScaleFormat,
    },
    spec::{
        bit_width::BitWidth, formats::format::Format, gradient_rule::GradientRule, granularity::Granularity,
        quant_spec::QuantSpec, range_estimator::RangeEstimator, rotation::Rotation, rounding_method::RoundingMethod,
    },
    tensor::{fake_quantize::fake_quantize, packed_linear::packed_linear, rounding::Rounding},
};

use crate::{
    error::{Error, Result},
    linear_settings::{BasePolicy, Execution},
    packed_weights::PackedWeights,
    quantisation_settings::QuantisationSettings,
    quantized_cache::{CacheSlot, QuantizedCache},
    site_precision::{SitePrecision, SiteRounding},
    weight_rounding::RoundingKey,
};

/// How the transpose of an embedding is quantised where a precision does not say: a scale for each row.
pub const EMBEDDING_SPEC: QuantSpec =
    QuantSpec { granularity: Granularity::PerChannel, format: Format::Symmetric, range: RangeEstimator::MinMax };

/// An embedding `E [rows, width]` whose bit-width is chosen in each call.
///
/// In floats it keeps the quantised forms that it was asked for in the cache it was made with; packed, it
/// holds nothing but its codes. For visitors, mappers and records it is the parameter alone, and nothing
/// where there is none.
///
/// ```
/// use burn::{backend::Flex, tensor::{Int, Tensor}};
/// use switchable_lora::{BitWidth, QuantizedCache, SitePrecision, SwitchableEmbedding};
///
/// let table = Tensor::<Flex, 2>::from_floats([[0.7, 0.2], [-7.0, 3.4]], &Default::default());
/// let embedding = SwitchableEmbedding::new(table, &QuantizedCache::default());
/// let four = SitePrecision::uniform(BitWidth::B4).without_adapter();
/// let ids = Tensor::<Flex, 1, Int>::from_ints([1, 0], &Default::default());
/// let rows = embedding.rows(ids, &four).into_data().to_vec::<f32>()?;
/// assert_eq!(rows, [-7.0, 3.0, 0.7, 0.2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct SwitchableEmbedding<B: Backend> {
    table: Table<B>,
    execution: Execution,
    slot: CacheSlot,
}

/// How the table is held.
#[derive(Debug, Clone)]
enum Table<B: Backend> {
    Float(Param<Tensor<B, 2>>),
    /// Codes of the transpose.
    Packed {
        codes: PackedWeights,
        device: B::Device,
    },
}

impl<B: Backend> SwitchableEmbedding<B> {
    /// An embedding in floats that is not trained.
    ///
    /// # Shapes
    ///
    /// - `table` `[rows, width]`
    pub fn new(table: Tensor<B, 2>, cache: &QuantizedCache) -> Self {
        Self::of_param(Param::from_tensor(table.set_require_grad(false)), cache)
    }

    /// An embedding of a parameter `[rows, width]`.
    pub fn of_param(table: Param<Tensor<B, 2>>, cache: &QuantizedCache) -> Self {
        let bytes = table.val().shape().num_elements() * table.val().dtype().size();
        Self { table: Table::Float(table), execution: Execution::default(), slot: cache.slot(bytes) }
    }

    /// An embedding of which there are only codes, those of its transpose `[width, rows]`.
    pub fn from_packed(codes: PackedWeights, cache: &QuantizedCache, device: &B::Device) -> Self {
        let table = Table::Packed { codes, device: device.clone() };
        Self { table, execution: Execution::Packed, slot: cache.slot(0) }
    }

    /// `[rows, width]`.
    pub fn shape(&self) -> [usize; 2] {
        match &self.table {
            Table::Float(table) => table.dims(),
            Table::Packed { codes, .. } => {
                let [width, rows] = codes.shape();
                [rows, width]
            }
        }
    }

    /// The table as a parameter; `None` where it is only there packed.
    pub fn param(&self) -> Option<&Param<Tensor<B, 2>>> {
        match &self.table {
            Table::Float(table) => Some(table),
            Table::Packed { .. } => None,
        }
    }

    /// Codes of the transpose, where the table is only there packed.
    pub fn packed_weights(&self) -> Option<&PackedWeights> {
        match &self.table {
            Table::Float(_) => None,
            Table::Packed { codes, .. } => Some(codes),
        }
    }

    /// The table in floats, `[rows, width]`: what its codes stand for where it is only there packed.
    pub fn weight(&self) -> Tensor<B, 2> {
        match &self.table {
            Table::Float(table) => table.val(),
            Table::Packed { codes, .. } => self.floats_of(codes.stored().view()),
        }
    }

    /// Where it is.
    pub fn device(&self) -> B::Device {
        match &self.table {
            Table::Float(table) => table.val().device(),
            Table::Packed { device, .. } => device.clone(),
        }
    }

    /// The table with other values, which are floats.
    ///
    /// # Panics
    ///
    /// If it is only there packed.
    #[must_use]
    pub fn map_values(self, change: impl FnOnce(Tensor<B, 2>) -> Tensor<B, 2>) -> Self {
        self.changed(|table| table.map(change))
    }

    /// The same values, trained or not; codes are not trained.
    #[must_use]
    pub fn set_require_grad(self, require_grad: bool) -> Self {
        match self.table {
            Table::Float(table) => Self { table: Table::Float(table.set_require_grad(require_grad)), ..self },
            Table::Packed { .. } => self,
        }
    }

    /// Whether gradients are recorded for it.
    pub fn is_require_grad(&self) -> bool {
        self.param().is_some_and(|table| table.val().is_require_grad())
    }

    /// The same, its quantised forms held otherwise. Codes stay codes.
    #[must_use]
    pub fn with_execution(self, execution: Execution) -> Self {
        let execution = if self.packed_weights().is_some() { Execution::Packed } else { execution };
        Self { execution, ..self }
    }

    /// The same, only there packed: codes of the transpose.
    ///
    /// # Panics
    ///
    /// If the codes are of another shape.
    #[must_use]
    pub fn with_packed(self, codes: PackedWeights) -> Self {
        let packed = Self::from_packed(codes, self.slot.cache(), &self.device());
        assert_eq!(packed.shape(), self.shape(), "codes of another embedding");
        packed
    }

    fn floats_of(&self, codes: PackedView<'_>) -> Tensor<B, 2> {
        let values = TensorData::new(codes.dequantize(), codes.shape());
        Tensor::<B, 2>::from_data(values, &self.device()).transpose()
    }

    /// Changes the parameter; forms that were kept belong to the values before.
    fn changed(self, change: impl FnOnce(Param<Tensor<B, 2>>) -> Param<Tensor<B, 2>>) -> Self {
        match self.table {
            Table::Float(table) => Self { table: Table::Float(change(table)), slot: self.slot.renewed(), ..self },
            Table::Packed { .. } => panic!("codes cannot be given other values"),
        }
    }
}

/// What an embedding is quantised to in one call.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    bits: BitWidth,
    spec: QuantSpec,
}

impl Wanted {
    fn of(precision: &SitePrecision) -> Self {
        Self { bits: precision.weights, spec: precision.quantizer.unwrap_or(EMBEDDING_SPEC) }
    }

    fn key(self) -> RoundingKey {
        RoundingKey {
            bits: self.bits,
            spec: self.spec,
            method: RoundingMethod::Nearest,
            rotation: Rotation::None,
            step: None,
        }
    }

    fn rounding<B: Backend>(self) -> Rounding<'static, B> {
        Rounding::Nearest { bits: self.bits, spec: self.spec }
    }
}

impl<B: QuantBackend> SwitchableEmbedding<B> {
    /// Rows of the table at a precision.
    ///
    /// # Shapes
    ///
    /// - `ids` `[n]`
    /// - output `[n, width]`
    ///
    /// # Panics
    ///
    /// If there is no such row, or where [`check`](Self::check) would return an error.
    pub fn rows(&self, ids: Tensor<B, 1, Int>, precision: &SitePrecision) -> Tensor<B, 2> {
        match self.codes(precision) {
            Some(codes) => {
                let columns: Vec<usize> = ids.into_data().iter::<i64>().map(|id| id as usize).collect();
                self.rows_of(codes.view(), &columns)
            }
            None => self.table_at(precision).select(0, ids),
        }
    }

    /// Consecutive rows of the table at a precision.
    ///
    /// # Shapes
    ///
    /// - output `[count, width]`
    ///
    /// # Panics
    ///
    /// As [`rows`](Self::rows).
    pub fn range(&self, first: usize, count: usize, precision: &SitePrecision) -> Tensor<B, 2> {
        let [_, width] = self.shape();
        match self.codes(precision) {
            Some(codes) => self.rows_of(codes.view(), &(first..first + count).collect::<Vec<_>>()),
            None => self.table_at(precision).slice([first..first + count, 0..width]),
        }
    }

    fn rows_of(&self, codes: PackedView<'_>, columns: &[usize]) -> Tensor<B, 2> {
        let [_, width] = self.shape();
        Tensor::from_data(TensorData::new(codes.columns(columns), [columns.len(), width]), &self.device())
    }

    /// `Qa(h) · Q(E)ᵀ` at a precision.
    ///
    /// # Shapes
    ///
    /// - `hidden` `[n, width]`
    /// - output `[n, rows]`
    ///
    /// # Panics
    ///
    /// If `hidden` has another width, or where [`check`](Self::check) would return an error.
    pub fn scores(&self, hidden: Tensor<B, 2>, precision: &SitePrecision) -> Tensor<B, 2> {
        let per_token = precision.activation_quantizer.is_none_or(|spec| spec == QuantSpec::PER_TOKEN);
        let activations = ActivationBits::new(precision.activations);
        if per_token
            && let Ok(activations) = activations
            && !B::ad_enabled(&hidden.device())
            && let Some(codes) = self.codes(precision)
        {
            let nothing = LinearTerms { bias: None, adapter: None, function: OutputFunction::Identity };
            return packed_linear(hidden, codes.view(), activations, nothing);
        }
        let spec = precision.activation_quantizer.unwrap_or(QuantSpec::PER_TOKEN);
        let hidden = match fake_quantize(hidden, precision.activations, &spec, GradientRule::Identity) {
            Ok(hidden) => hidden,
            Err(error) => panic!("{error}"),
        };
        hidden.matmul(self.table_at(precision).transpose())
    }

    /// The codes that a product at a precision is computed from; `None` where it is computed in floats.
    fn codes(&self, precision: &SitePrecision) -> Option<Codes<'_>> {
        let wanted = Wanted::of(precision);
        match &self.table {
            Table::Packed { codes, .. } => match codes.at(wanted.bits) {
                Ok(view) => Some(Codes::Stored(view)),
                Err(error) => panic!("{error}"),
            },
            Table::Float(table) => {
                let table = table.val();
                let is_trained = B::ad_enabled(&table.device());
                if self.execution != Execution::Packed || wanted.bits.is_full() || is_trained {
                    return None;
                }
                if let Some(kept) = self.slot.get(wanted.key()) {
                    return Some(Codes::Kept(kept));
                }
                let packed = wanted.rounding().pack(&table.transpose(), ScaleFormat::F32).ok()?;
                self.slot.keep(wanted.key(), &packed);
                Some(Codes::Kept(packed))
            }
        }
    }

    /// The table in floats as its quantiser leaves it at a precision.
    ///
    /// # Shapes
    ///
    /// - output `[rows, width]`
    ///
    /// # Panics
    ///
    /// Where [`check`](Self::check) would return an error.
    pub fn table_at(&self, precision: &SitePrecision) -> Tensor<B, 2> {
        let wanted = Wanted::of(precision);
        let table = match &self.table {
            Table::Packed { codes, .. } => match codes.at(wanted.bits) {
                Ok(view) => return self.floats_of(view),
                Err(error) => panic!("{error}"),
            },
            Table::Float(table) => table.val(),
        };
        if wanted.bits.is_full() {
            return table;
        }
        let trained = B::ad_enabled(&table.device()) && table.is_require_grad();
        if !trained && let Some(kept) = self.slot.get(wanted.key()) {
            return kept;
        }
        let rounded = match wanted.rounding().apply(table.transpose(), GradientRule::Identity) {
            Ok(rounded) => rounded.transpose(),
            Err(error) => panic!("{error}"),
        };
        if !trained {
            self.slot.keep(wanted.key(), &rounded);
        }
        rounded
    }

    /// Codes of the transpose at a precision, to be stored.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check), and when the table holds what cannot be packed.
    pub fn pack(&self, precision: &SitePrecision, scale_format: ScaleFormat) -> Result<PackedTensor> {
        self.check(precision)?;
        let wanted = Wanted::of(precision);
        match &self.table {
            Table::Packed { codes: PackedWeights::Nested(nested), .. } => Ok(nested.slice_to(wanted.bits)?),
            Table::Packed { codes: PackedWeights::Fixed(tensor), .. } => Ok(tensor.clone()),
            Table::Float(table) => {
                Ok(wanted.rounding().pack(&table.val().set_require_grad(false).transpose(), scale_format)?)
            }
        }
    }

    /// Checks that the embedding can be at a precision.
    ///
    /// # Errors
    ///
    /// [`Error::EmbeddingAdapter`] if an adapter or a learned step is asked for, [`Error::EmbeddingRotation`] if
    /// it is to be rotated, [`Error::EmbeddingRounding`] if it is to be rounded otherwise than to the nearest level, [`Error::Quantisation`] if a width does not fit its quantiser, and [`Error::PackedWidth`] and [`Error::PackedQuantizer`] if the table is only
    /// there packed, otherwise.
    pub fn check(&self, precision: &SitePrecision) -> Result<()> {
        if precision.adapters().next().is_some() || precision.rounding == Some(SiteRounding::LearnedStep) {
            return Err(Error::EmbeddingAdapter);
        }
        if let Some(rotation @ Rotation::Hadamard(_)) = precision.rotation {
            return Err(Error::EmbeddingRotation { rotation });
        }
        if let Some(rounding) = precision.rounding.filter(|_| !precision.weights.is_full())
            && rounding != SiteRounding::Nearest
        {
            return Err(Error::EmbeddingRounding { rounding });
        }
        precision.activation_quantizer.unwrap_or(QuantSpec::PER_TOKEN).check(precision.activations, 2)?;
        match (self.packed_weights(), precision.quantizer) {
            (Some(codes), Some(got)) if codes.quantizer(got) != got => {
                Err(Error::PackedQuantizer { got, expected: codes.quantizer(got) })
            }
            (Some(codes), _) => codes.at(precision.weights).map(|_| ()),
            (None, _) => Ok(Wanted::of(precision).spec.check(precision.weights, 2)?),
        }
    }

    /// The precision of the table as it is: full, or that of its codes.
    pub fn own_precision(&self) -> SitePrecision {
        match self.packed_weights() {
            None => SitePrecision::FULL,
            Some(codes) => SitePrecision { weights: codes.stored().bits(), ..SitePrecision::FULL },
        }
    }

    /// How the table is quantised at a precision: what it says, and else [`EMBEDDING_SPEC`] or the quantiser of
    /// the codes.
    pub fn quantisation(&self, precision: &SitePrecision) -> QuantisationSettings {
        let own = self.packed_weights().map_or(EMBEDDING_SPEC, |codes| codes.quantizer(EMBEDDING_SPEC));
        precision.quantisation(QuantisationSettings { weight: own, ..QuantisationSettings::default() })
    }

    /// The precision with all that it leaves open said.
    pub fn explicit(&self, precision: &SitePrecision) -> SitePrecision {
        let rounding = precision.rounding.or(Some(SiteRounding::Nearest));
        SitePrecision { rounding, ..precision.with_quantisation(self.quantisation(precision)) }
    }

    /// The precision without what the embedding does of itself, so that precisions that compute the same are
    /// equal. An adapter would be added nowhere, so that its placement says nothing.
    pub fn implicit(&self, precision: &SitePrecision) -> SitePrecision {
        let own = self.quantisation(&SitePrecision::FULL);
        SitePrecision {
            quantizer: precision.quantizer.filter(|spec| *spec != own.weight && !precision.weights.is_full()),
            activation_quantizer: precision.activation_quantizer.filter(|spec| *spec != own.activation),
            placement: None,
            rounding: precision.rounding.filter(|rounding| *rounding != SiteRounding::Nearest),
            rotation: precision.rotation.filter(|rotation| *rotation != Rotation::None),
            ..*precision
        }
    }
}

/// Codes of the transpose.
enum Codes<'a> {
    Stored(PackedView<'a>),
    Kept(PackedTensor),
}

impl Codes<'_> {
    fn view(&self) -> PackedView<'_> {
        match self {
            Self::Stored(view) => *view,
            Self::Kept(tensor) => tensor.view(),
        }
    }
}

impl<B: Backend> Module<B> for SwitchableEmbedding<B> {
    /// Codes are not recorded.
    type Record = Option<Param<Tensor<B, 2>>>;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        match &self.table {
            Table::Float(table) => table.collect_devices(devices),
            Table::Packed { .. } => devices,
        }
    }

    fn fork(self, device: &B::Device) -> Self {
        match self.table {
            Table::Float(_) => self.changed(|table| table.fork(device)),
            Table::Packed { codes, .. } => Self { table: Table::Packed { codes, device: device.clone() }, ..self },
        }
    }

    fn to_device(self, device: &B::Device) -> Self {
        match self.table {
            Table::Float(_) => self.changed(|table| Module::to_device(table, device)),
            Table::Packed { codes, .. } => Self { table: Table::Packed { codes, device: device.clone() }, ..self },
        }
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        if let Table::Float(table) = &self.table {
            table.visit(visitor);
        }
    }

    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        let Table::Float(table) = self.table else { return self };
        let before = (!self.slot.is_empty() && !table.val().is_require_grad()).then(|| table.val());
        let table = Module::map(table, mapper);
        // Every training step maps every parameter; one that is not trained mostly stays as it is.
        let stays = before.is_some_and(|before| is_same(&before, &table.val().set_require_grad(false)));
        let slot = if stays { self.slot } else { self.slot.renewed() };
        Self { table: Table::Float(table), slot, ..self }
    }

    /// # Panics
    ///
    /// If the record is of a table of another shape, or one of the two is only there packed.
    fn load_record(self, record: Self::Record) -> Self {
        match (&self.table, record) {
            (Table::Float(table), Some(record)) => {
                let (got, expected) = (record.dims(), table.dims());
                assert_eq!(got, expected, "record of an embedding of shape {got:?}, expected {expected:?}");
                self.changed(|table| table.load_record(record))
            }
            (Table::Packed { .. }, None) => self,
            (Table::Float(_), None) => panic!("record of a packed embedding, which holds no codes"),
            (Table::Packed { .. }, Some(_)) => {
                panic!("record of an embedding in floats, this one is only there packed")
            }
        }
    }

    fn into_record(self) -> Self::Record {
        match self.table {
            Table::Float(table) => Some(table.into_record()),
            Table::Packed { .. } => None,
        }
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for SwitchableEmbedding<B> {
    type InnerModule = SwitchableEmbedding<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        let table = match &self.table {
            Table::Float(table) => Table::Float(table.valid()),
            Table::Packed { codes, device } => Table::Packed { codes: codes.clone(), device: device.clone() },
        };
        SwitchableEmbedding { table, execution: self.execution, slot: self.slot.clone() }
    }

    fn from_inner(SwitchableEmbedding { table, execution, slot }: Self::InnerModule) -> Self {
        let table = match table {
            Table::Float(table) => Table::Float(AutodiffModule::from_inner(table)),
            Table::Packed { codes, device } => Table::Packed { codes, device },
        };
        Self { table, execution, slot }
    }
}

impl<B: AutodiffBackend> HasAutodiffModule<B> for SwitchableEmbedding<B::InnerBackend> {
    type TrainModule = SwitchableEmbedding<B>;
}

impl<B: Backend> ModuleDisplayDefault for SwitchableEmbedding<B> {
    fn content(&self, content: Content) -> Option<Content> {
        match &self.table {
            Table::Float(table) => table.content(content),
            Table::Packed { codes, .. } => content.add_formatted(&format!("{:?}", codes.stored().spec())).optional(),
        }
    }
}

impl<B: Backend> ModuleDisplay for SwitchableEmbedding<B> {}

/// Whether the base weights of a model train decides whether its embeddings do.
impl<B: Backend> SwitchableEmbedding<B> {
    /// The same values under a base policy.
    #[must_use]
    pub fn with_policy(self, policy: BasePolicy) -> Self {
        self.set_require_grad(policy == BasePolicy::Trainable)
    }
}
