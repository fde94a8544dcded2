//! Scales and zero points of a tensor.
//!
//! ```text
//! symmetric    s = max|x| / (2^(b−1)−1)
//! asymmetric   s = (max − min) / (2^b−1)      z = clamp(round(−min / s), 0, 2^b−1)
//! ```
//!
//! `min` and `max` are over the values that share a scale ([`Granularity`]) and come from the range
//! estimator ([`RangeEstimator`](crate::spec::range_estimator::RangeEstimator)); `b` is the number of bits.

use burn::tensor::{DType, Tensor, TensorPrimitive, backend::Backend, ops::FloatTensor};

use crate::{
    backends::{
        plain::{blocks::broadcastable, levels::Broadcast, precision::is_half},
        primitive_params::PrimitiveParams,
        quant_backend::QuantBackend,
    },
    error::Result,
    spec::{
        bit_width::BitWidth,
        formats::{code_book::LevelRange, format::Format},
        gradient_rule::GradientRule,
        granularity::Granularity,
        quant_spec::QuantSpec,
        quantizer::Quantizer,
    },
};

/// The scales and zero points of a tensor, with the options they were chosen by.
///
/// The tensors are constants: no gradient flows through them. Those of values of 16 bits are f32.
#[derive(Debug, Clone)]
pub struct QuantParams<B: Backend, const D: usize> {
    scale: Tensor<B, D>,
    zero_point: Option<Tensor<B, D>>,
    quantizer: Quantizer,
    /// The type of the values that they were chosen for.
    dtype: DType,
}

impl<B: Backend, const D: usize> QuantParams<B, D> {
    /// The parameters that `choose` finds for the primitive of a tensor that is not empty.
    pub(crate) fn choose_by(
        x: &Tensor<B, D>,
        bits: BitWidth,
        spec: &QuantSpec,
        choose: impl FnOnce(FloatTensor<B>, &Quantizer) -> PrimitiveParams<B>,
    ) -> Result<Self> {
        let quantizer = Quantizer::new(bits, *spec, GradientRule::default())?;
        let shape = spec.granularity.param_shape(x.dims())?;
        let dtype = x.dtype();
        if x.shape().num_elements() == 0 {
            let of_params = if is_half(dtype) { DType::F32 } else { dtype };
            let scale = Tensor::ones(shape, (&x.device(), of_params));
            let zero_point = spec.format.has_zero_points().then(|| scale.zeros_like());
            return Ok(Self { scale, zero_point, quantizer, dtype });
        }
        let PrimitiveParams { scale, zero_point } = choose(x.clone().into_primitive().tensor(), &quantizer);
        let tensor = |param| Tensor::<B, 3>::from_primitive(TensorPrimitive::Float(param)).reshape(shape);
        Ok(Self { scale: tensor(scale), zero_point: zero_point.map(tensor), quantizer, dtype })
    }

    /// The scales, above 0, in the shape that [`Granularity::param_shape`] gives.
    pub fn scale(&self) -> Tensor<B, D> {
        self.scale.clone()
    }

    /// The zero points, integers held as floats, in the shape of the scales; `None` for formats
    /// without them.
    pub fn zero_point(&self) -> Option<Tensor<B, D>> {
        self.zero_point.clone()
    }

    /// The number of bits.
    pub fn bits(&self) -> BitWidth {
        self.quantizer.bits()
    }

    /// Which values share a scale.
    pub fn granularity(&self) -> Granularity {
        self.quantizer.spec().granularity
    }

    /// Which numbers codes stand for.
    pub fn format(&self) -> Format {
        self.quantizer.spec().format
    }

    /// The type of the values that they were chosen for.
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// The lowest and the highest level.
    pub fn levels(&self) -> LevelRange {
        self.quantizer.levels()
    }

    /// The scales and zero points, made to broadcast against a tensor of shape `dims`.
    ///
    /// # Panics
    ///
    /// If a tensor of that shape has scales of another shape.
    pub(crate) fn for_shape(&self, dims: [usize; D]) -> Broadcast<B, D> {
        let expected = self.granularity().param_shape(dims);
        let got = self.scale.dims();
        assert!(
            expected == Ok(got),
            "{} scales of shape {got:?} do not fit a tensor of shape {dims:?}",
            self.granularity(),
        );
        let fit = |param: &Tensor<B, D>| broadcastable(param.clone(), self.granularity(), dims);
        let (scale, zero_point) = (fit(&self.scale), self.zero_point.as_ref().map(fit));
        Broadcast { scale, zero_point, book: self.quantizer.code_book() }
    }
}

/// Chooses scales and zero points for `x` at `bits`.
///
/// A block of values that are all 0 gets scale 1, so that it is quantised to zeros. A block that
/// holds a NaN or an infinity gets scale NaN, so that all of it becomes NaN when it is quantised:
/// broken input never turns into plausible numbers. An empty tensor gets scales of 1. No level of a block stands
/// for infinity: the scale of `[f32::MAX]` is a bit smaller than its formula where that rounds up.
///
/// # Shapes
///
/// - `x`: any; for channels and groups `[.., d_in, d_out]`
/// - scales: [`Granularity::param_shape`]
///
/// # Errors
///
/// [`Error::FullPrecision`](crate::error::Error::FullPrecision) at [`BitWidth::FULL`],
/// [`Error::TooFewBits`](crate::error::Error::TooFewBits) for 1 symmetric bit and
/// [`Error::Rank`](crate::error::Error::Rank) for channels or groups of a vector.
///
/// ```
/// use burn::{backend::Flex, tensor::Tensor};
/// use quant_kernels::{BitWidth, Granularity, QuantSpec, choose_params};
///
/// let x = Tensor::<Flex, 2>::from_floats([[0.7, -0.2], [-1.4, 0.1]], &Default::default());
/// let spec = QuantSpec::default().with_granularity(Granularity::PerChannel);
/// let params = choose_params(&x, BitWidth::B4, &spec)?;
/// assert_eq!(params.scale().into_data().to_vec::<f32>().unwrap(), [1.4 / 7.0, 0.2 / 7.0]);
/// # Ok::<(), quant_kernels::Error>(())
/// ```
pub fn choose_params<B: QuantBackend, const D: usize>(
    x: &Tensor<B, D>,
    bits: BitWidth,
    spec: &QuantSpec,
) -> Result<QuantParams<B, D>> {
    QuantParams::choose_by(x, bits, spec, B::choose_params)
}
