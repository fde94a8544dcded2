//! The product of activations and packed weights.

use std::mem::MaybeUninit;

use crate::packed::{
    grid::{Grid, as_uninit, collect},
    packed_tensor::{PackedTensor, assert_len},
    packed_view::PackedView,
    product::{activations::ActivationBits, half, integer, options::Product, weight_only},
    target::dispatch::dispatch,
};

impl PackedView<'_> {
    /// The product `x·W` of activations and these weights.
    ///
    /// # Shapes
    ///
    /// - `x`: `[rows, d_in]`, row-major
    /// - output: `[rows, d_out]`
    ///
    /// # Panics
    ///
    /// If a slice has another length than its shape, the processor lacks the instructions, or the weights do
    /// not [take](PackedView::takes) such activations.
    ///
    /// ```
    /// use quant_kernels::{BitWidth, Granularity, Format, PackedSpec, PackedTensor, Product, ScaleFormat};
    ///
    /// let spec = PackedSpec {
    ///     shape: [2, 2],
    ///     bits: BitWidth::B8,
    ///     format: Format::Symmetric,
    ///     granularity: Granularity::PerTensor,
    ///     scale_format: ScaleFormat::F32,
    /// };
    /// let packed = PackedTensor::from_weights(spec, &[1.0, 2.0, 3.0, 4.0], &[0.5], &[])?;
    /// assert_eq!(packed.view().matmul(&[1.0, 10.0], 1, &Product::default()), [31.0, 42.0]);
    /// # Ok::<(), quant_kernels::Error>(())
    /// ```
    pub fn matmul(self, x: &[f32], rows: usize, product: &Product) -> Vec<f32> {
        let len = rows.checked_mul(self.shape()[1]);
        let len = len.unwrap_or_else(|| panic!("a product of {rows} rows does not fit the address space"));
        collect(len, |output| multiply(self, x, rows, product, output))
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
    pub fn matmul_into(self, x: &[f32], rows: usize, product: &Product, output: &mut [f32]) {
        multiply(self, x, rows, product, as_uninit(output));
    }
}

impl PackedTensor {
    /// [`PackedView::matmul`] with the whole.
    ///
    /// # Panics
    ///
    /// The same.
    pub fn matmul(&self, x: &[f32], rows: usize, product: &Product) -> Vec<f32> {
        self.view().matmul(x, rows, product)
    }

    /// [`PackedView::matmul_into`] with the whole.
    ///
    /// # Panics
    ///
    /// The same.
    pub fn matmul_into(&self, x: &[f32], rows: usize, product: &Product, output: &mut [f32]) {
        self.view().matmul_into(x, rows, product, output);
    }
}

/// Writes all of `output`.
fn multiply(view: PackedView, x: &[f32], rows: usize, product: &Product, output: &mut [MaybeUninit<f32>]) {
    let [d_in, d_out] = view.spec().shape;
    assert_len("activations", x.len(), [rows, d_in]);
    assert_len("outputs", output.len(), [rows, d_out]);
    assert!(view.takes(product.activations), "{} weights are not multiplied by integers", view.spec().format);
    product.epilogue.check(rows, d_out);
    let is_empty = output.is_empty();
    let output = Grid::new(output, d_out);
    let bits = product.activations.width();
    dispatch!(product.instructions, target => {
        if is_empty {
            return;
        }
        if product.activations == ActivationBits::BF16 {
            half::multiply(target, view, x, rows, product, &output);
        } else if bits.is_full() {
            weight_only::multiply(target, view, x, rows, product, &output);
        } else {
            integer::multiply(target, view, x, rows, bits, product, &output);
        }
    });
}
