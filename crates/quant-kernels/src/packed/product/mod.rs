//! Products of activations and packed weights.
//!
//! ```text
//! y = f(x·W + bias + adapter + addend)         x [rows, d_in],  W [d_in, d_out],  y [rows, d_out]
//! ```
//!
//! | activations | what is multiplied | file |
//! |---|---|---|
//! | 2 to 8 bits | integers, exactly | `integer` |
//! | full precision | floats and widened codes | `weight_only` |

pub mod activations;
pub mod epilogue;
mod integer;
pub(crate) mod schedule;
pub(crate) mod scratch;
pub(crate) mod segments;
pub(crate) mod tile;
mod weight_only;

use std::mem::MaybeUninit;

use crate::cpu::instruction_set::InstructionSet;
use crate::packed::{
    grid::{Grid, as_uninit, collect},
    packed_tensor::{PackedTensor, assert_len},
    product::{activations::ActivationBits, epilogue::Epilogue},
    view::View,
};

/// How a product is computed.
///
/// | option | default |
/// |---|---|
/// | `activations` | full precision |
/// | `epilogue` | none |
/// | `instructions` | the best that the processor has |
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    /// The bits of the activations, quantised per row.
    pub activations: ActivationBits,
    /// What is done to each output.
    pub epilogue: Epilogue<'a>,
    /// The instructions that are used.
    pub instructions: InstructionSet,
}

impl Default for Product<'_> {
    fn default() -> Self {
        Self { activations: ActivationBits::FULL, epilogue: Epilogue::default(), instructions: InstructionSet::best() }
    }
}

impl PackedTensor {
    /// The product `x·W` of activations and these weights.
    ///
    /// # Shapes
    ///
    /// - `x`: `[rows, d_in]`, row-major
    /// - output: `[rows, d_out]`
    ///
    /// # Panics
    ///
    /// If a slice has another length than its shape, or the processor lacks the instructions.
    ///
    /// ```
    /// use quant_kernels::{BitWidth, Granularity, Mapping, PackedSpec, PackedTensor, Product, ScaleFormat};
    ///
    /// let spec = PackedSpec {
    ///     shape: [2, 2],
    ///     bits: BitWidth::B8,
    ///     mapping: Mapping::Symmetric,
    ///     granularity: Granularity::PerTensor,
    ///     scale_format: ScaleFormat::F32,
    /// };
    /// let packed = PackedTensor::from_weights(spec, &[1.0, 2.0, 3.0, 4.0], &[0.5], &[])?;
    /// assert_eq!(packed.matmul(&[1.0, 10.0], 1, &Product::default()), [31.0, 42.0]);
    /// # Ok::<(), quant_kernels::Error>(())
    /// ```
    pub fn matmul(&self, x: &[f32], rows: usize, product: &Product) -> Vec<f32> {
        matmul(View::whole(self), x, rows, product)
    }

    /// [`matmul`](Self::matmul) into a slice.
    ///
    /// # Shapes
    ///
    /// - `x`: `[rows, d_in]`, row-major
    /// - `output`: `[rows, d_out]`, row-major
    ///
    /// # Panics
    ///
    /// As [`matmul`](Self::matmul).
    pub fn matmul_into(&self, x: &[f32], rows: usize, product: &Product, output: &mut [f32]) {
        multiply(View::whole(self), x, rows, product, as_uninit(output));
    }
}

/// The product of activations and weights as a vector.
pub(super) fn matmul(view: View, x: &[f32], rows: usize, product: &Product) -> Vec<f32> {
    let len = rows.checked_mul(view.spec().shape[1]);
    let len = len.unwrap_or_else(|| panic!("a product of {rows} rows does not fit the address space"));
    collect(len, |output| multiply(view, x, rows, product, output))
}

/// Writes all of `output`.
pub(super) fn multiply(view: View, x: &[f32], rows: usize, product: &Product, output: &mut [MaybeUninit<f32>]) {
    let [d_in, d_out] = view.spec().shape;
    assert_len("activations", x.len(), [rows, d_in]);
    assert_len("outputs", output.len(), [rows, d_out]);
    product.epilogue.check(rows, d_out);
    let set = product.instructions;
    assert!(set.is_available(), "this processor lacks the instructions {set:?}");
    if output.is_empty() {
        return;
    }
    let output = Grid::new(output, d_out);
    let bits = product.activations.width();
    if bits.is_full() {
        weight_only::multiply(view, x, rows, product, &output);
    } else {
        integer::multiply(view, x, rows, bits, product, &output);
    }
}
