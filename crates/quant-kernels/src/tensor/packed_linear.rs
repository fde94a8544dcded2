//! Linear layers on packed weights.
//!
//! ```text
//! y = f(Qa(x)·W + s·(x·A)·B + bias)        x [rows, d_in],  W [d_in, d_out] packed
//! ```

use burn::tensor::{Tensor, TensorPrimitive};

use crate::{
    backends::{linear_terms::LinearTerms, quant_backend::QuantBackend},
    packed::{packed_view::PackedView, product::activations::ActivationBits},
};

/// `f(Qa(x)·W + s·(x·A)·B + bias)` without a copy of `W` in floats, where the backend can.
///
/// Activations are quantised per row, symmetrically, to their largest magnitude, as
/// [`QuantSpec::PER_TOKEN`](crate::spec::quant_spec::QuantSpec::PER_TOKEN) says; the adapter takes them as they are.
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
    weight: PackedView<'_>,
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
