//! Packed weights of a product.

use crate::{
    error::Result,
    packed::{nested::NestedTensor, packed_tensor::PackedTensor, product::options::Product},
    spec::bit_width::BitWidth,
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
    /// [`Error::PackedBits`](crate::error::Error::PackedBits) unless `bits` is 2 to 8.
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
