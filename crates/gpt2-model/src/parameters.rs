//! Parameters by name, whatever their rank.

use burn::module::Param;
use burn::nn::LayerNorm;
use burn::tensor::{
    Tensor, TensorData,
    backend::{AutodiffBackend, Backend},
};

/// A parameter of the model.
#[derive(Debug)]
pub enum ParameterRef<'a, B: Backend> {
    /// A bias or a normalisation's gain.
    Vector(&'a Param<Tensor<B, 1>>),
    /// A weight.
    Matrix(&'a Param<Tensor<B, 2>>),
}

impl<B: Backend> ParameterRef<'_, B> {
    /// Its shape.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::Vector(p) => p.val().dims().to_vec(),
            Self::Matrix(p) => p.val().dims().to_vec(),
        }
    }

    /// Its values in row-major order.
    pub fn values(&self) -> Vec<f32> {
        floats(match self {
            Self::Vector(p) => p.val().into_data(),
            Self::Matrix(p) => p.val().into_data(),
        })
    }
}

impl<B: AutodiffBackend> ParameterRef<'_, B> {
    /// Its gradient in row-major order; `None` when the loss does not depend on it.
    pub fn gradient(&self, gradients: &B::Gradients) -> Option<Vec<f32>> {
        match self {
            Self::Vector(p) => p.val().grad(gradients).map(|g| floats(g.into_data())),
            Self::Matrix(p) => p.val().grad(gradients).map(|g| floats(g.into_data())),
        }
    }
}

/// Values of a tensor in f32.
pub(crate) fn floats(data: TensorData) -> Vec<f32> {
    data.convert::<f32>().into_vec().expect("data converted to f32 is f32")
}

/// Gain and shift of a normalisation under their Hugging Face names.
pub(crate) fn norm_parameters<'a, B: Backend>(
    name: &str,
    norm: &'a LayerNorm<B>,
) -> impl Iterator<Item = (String, ParameterRef<'a, B>)> + use<'a, B> {
    let bias = norm.beta.as_ref().map(|beta| (format!("{name}.bias"), ParameterRef::Vector(beta)));
    std::iter::once((format!("{name}.weight"), ParameterRef::Vector(&norm.gamma))).chain(bias)
}
