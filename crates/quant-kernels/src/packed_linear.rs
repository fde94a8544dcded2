//! Linear layers on packed weights.
//!
//! ```text
//! y = f(Qa(x)·W + s·(x·A)·B + bias)        x [rows, d_in],  W [d_in, d_out] packed
//! ```

use burn::tensor::{DType, FloatDType, Tensor, TensorData, TensorPrimitive, backend::Backend, ops::FloatTensor};

use crate::{
    ActivationBits, BitWidth, GradientRule, NestedTensor, OutputFunction, PackedTensor, Product, QuantBackend,
    QuantSpec, Quantizer, Result, gelu_tanh,
};

/// Packed weights of a product: at their own width, or 8-bit ones at a lower width.
#[derive(Debug, Clone, Copy)]
pub struct PackedOperand<'a>(Operand<'a>);

#[derive(Debug, Clone, Copy)]
enum Operand<'a> {
    Whole(&'a PackedTensor),
    Nested { tensor: &'a NestedTensor, bits: BitWidth },
}

impl<'a> PackedOperand<'a> {
    /// Weights at their own width.
    pub fn whole(tensor: &'a PackedTensor) -> Self {
        Self(Operand::Whole(tensor))
    }

    /// 8-bit weights, cut to `bits` in the course of the product.
    ///
    /// # Errors
    ///
    /// [`Error::PackedBits`](crate::Error::PackedBits) unless `bits` is 2 to 8.
    pub fn nested(tensor: &'a NestedTensor, bits: BitWidth) -> Result<Self> {
        tensor.at(bits)?;
        Ok(Self(Operand::Nested { tensor, bits }))
    }

    /// `[d_in, d_out]`.
    pub fn shape(self) -> [usize; 2] {
        match self.0 {
            Operand::Whole(tensor) => tensor.shape(),
            Operand::Nested { tensor, .. } => tensor.tensor().shape(),
        }
    }

    /// The weights that hold the codes, and the bits that are taken of them.
    #[cfg(feature = "cube")]
    pub(crate) fn stored(self) -> (&'a PackedTensor, BitWidth) {
        match self.0 {
            Operand::Whole(tensor) => (tensor, tensor.bits()),
            Operand::Nested { tensor, bits } => (tensor.tensor(), bits),
        }
    }

    /// The values, `[d_in, d_out]` in row-major order.
    pub fn dequantize(self) -> Vec<f32> {
        match self.0 {
            Operand::Whole(tensor) => tensor.dequantize(),
            Operand::Nested { tensor, bits } => expect_width(tensor.dequantize(bits)),
        }
    }

    /// [`PackedTensor::matmul`].
    ///
    /// # Panics
    ///
    /// The same.
    pub fn matmul(self, x: &[f32], rows: usize, product: &Product<'_>) -> Vec<f32> {
        match self.0 {
            Operand::Whole(tensor) => tensor.matmul(x, rows, product),
            Operand::Nested { tensor, bits } => expect_width(tensor.matmul(x, rows, bits, product)),
        }
    }
}

fn expect_width<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => unreachable!("the width was checked when the operand was made: {error}"),
    }
}

/// What a linear layer adds to its product, as primitives of a backend.
#[derive(Debug, Clone)]
pub struct LinearTerms<B: Backend> {
    /// Added to each row, `[d_out]`.
    pub bias: Option<FloatTensor<B>>,
    /// An adapter: `A [d_in, rank]`, `B [rank, d_out]` and its factor `s`.
    pub adapter: Option<(FloatTensor<B>, FloatTensor<B>, f64)>,
    /// Applied last.
    pub function: OutputFunction,
}

/// `f(Qa(x)·W + s·(x·A)·B + bias)` without a copy of `W` in floats, where the backend can.
///
/// Activations are quantised per row, symmetrically, to their largest magnitude, as
/// [`QuantSpec::PER_TOKEN`] says; the adapter takes them as they are.
///
/// # Shapes
///
/// - `x` `[rows, d_in]`, output `[rows, d_out]`
///
/// # Panics
///
/// If the shapes disagree.
pub fn packed_linear<B: QuantBackend>(
    x: Tensor<B, 2>,
    weight: PackedOperand<'_>,
    activations: ActivationBits,
    terms: LinearTerms<B>,
) -> Tensor<B, 2> {
    let [_, d_in] = x.dims();
    assert_eq!(
        d_in,
        weight.shape()[0],
        "activations of {d_in} features do not fit weights of shape {:?}",
        weight.shape()
    );
    let y = B::packed_linear(x.into_primitive().tensor(), weight, activations, terms);
    Tensor::from_primitive(TensorPrimitive::Float(y))
}

/// The values of packed weights, widened on the host.
pub(crate) fn widened_on_host<B: Backend>(
    weight: PackedOperand<'_>,
    device: &B::Device,
    dtype: FloatDType,
) -> FloatTensor<B> {
    let values = TensorData::new(weight.dequantize(), weight.shape());
    Tensor::<B, 2>::from_data(values, (device, DType::from(dtype))).into_primitive().tensor()
}

/// The same in the backend's own operations, on weights that are widened for the call.
pub(crate) fn in_plain_operations<B: QuantBackend>(
    x: FloatTensor<B>,
    weight: PackedOperand<'_>,
    activations: ActivationBits,
    terms: LinearTerms<B>,
) -> FloatTensor<B> {
    let tensor = |primitive| TensorPrimitive::Float(primitive);
    let x = Tensor::<B, 2>::from_primitive(tensor(x));
    let weight = B::widen_packed(weight, &x.device(), x.dtype().into());
    let weight = Tensor::<B, 2>::from_primitive(tensor(weight));
    let quantized = match Quantizer::new(activations.width(), QuantSpec::PER_TOKEN, GradientRule::Identity) {
        Ok(quantizer) if x.shape().num_elements() > 0 => {
            let x = x.clone().into_primitive().tensor();
            Tensor::from_primitive(tensor(B::fake_quantize(x, &quantizer)))
        }
        _ => x.clone(),
    };
    let mut y = quantized.matmul(weight);
    if let Some((a, b, scaling)) = terms.adapter {
        let [a, b] = [a, b].map(|factor| Tensor::<B, 2>::from_primitive(tensor(factor)));
        y = y + x.matmul(a).mul_scalar(scaling).matmul(b);
    }
    if let Some(bias) = terms.bias {
        y = y + Tensor::<B, 1>::from_primitive(tensor(bias)).unsqueeze();
    }
    match terms.function {
        OutputFunction::Identity => y,
        OutputFunction::GeluTanh => gelu_tanh(y),
    }
    .into_primitive()
    .tensor()
}
