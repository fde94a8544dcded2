//! Parameters by name, whatever their rank, and how files lay out matrices.

use burn::module::Param;
use burn::tensor::{
    Tensor, TensorData,
    backend::{AutodiffBackend, Backend},
};

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_lora::switchable_linear::SwitchableLinear;

/// How files hold the weight of a linear layer, which in memory is `[d_in, d_out]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightLayout {
    /// `[d_in, d_out]`, as GPT-2's `Conv1D`.
    InOut,
    /// `[d_out, d_in]`, as torch's `Linear`.
    OutIn,
}

impl WeightLayout {
    /// The shape that a file gives a weight of `[d_in, d_out]`.
    pub fn in_file(self, [d_in, d_out]: [usize; 2]) -> [usize; 2] {
        match self {
            Self::InOut => [d_in, d_out],
            Self::OutIn => [d_out, d_in],
        }
    }

    /// Values of a file's weight as those of `[d_in, d_out]`.
    pub fn from_file(self, values: Vec<f32>, [d_in, d_out]: [usize; 2]) -> Vec<f32> {
        match self {
            Self::InOut => values,
            Self::OutIn => transposed(&values, [d_out, d_in]),
        }
    }

    /// Values of a weight of `[d_in, d_out]` as a file holds them.
    pub fn to_file(self, values: Vec<f32>, [d_in, d_out]: [usize; 2]) -> Vec<f32> {
        match self {
            Self::InOut => values,
            Self::OutIn => transposed(&values, [d_in, d_out]),
        }
    }
}

/// Values of a matrix `[rows, columns]` with rows and columns exchanged.
pub(crate) fn transposed(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// A parameter of the model.
#[derive(Debug)]
pub enum ParameterRef<'a, B: Backend> {
    /// A bias or a normalisation's gain.
    Vector(&'a Param<Tensor<B, 1>>),
    /// A matrix that files hold as it is in memory.
    Matrix(&'a Param<Tensor<B, 2>>),
    /// A weight `[d_in, d_out]` that files hold as `[d_out, d_in]`.
    Transposed(&'a Param<Tensor<B, 2>>),
}

impl<'a, B: Backend> ParameterRef<'a, B> {
    /// The weight of a linear layer.
    pub fn weight(weight: &'a Param<Tensor<B, 2>>, layout: WeightLayout) -> Self {
        match layout {
            WeightLayout::InOut => Self::Matrix(weight),
            WeightLayout::OutIn => Self::Transposed(weight),
        }
    }

    /// Its shape, as files have it.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::Vector(p) => p.val().dims().to_vec(),
            Self::Matrix(p) => p.val().dims().to_vec(),
            Self::Transposed(p) => WeightLayout::OutIn.in_file(p.val().dims()).to_vec(),
        }
    }

    /// Its values in row-major order, as files have them.
    pub fn values(&self) -> Vec<f32> {
        match self {
            Self::Vector(p) => floats(p.val().into_data()),
            Self::Matrix(p) => floats(p.val().into_data()),
            Self::Transposed(p) => transposed(&floats(p.val().into_data()), p.val().dims()),
        }
    }
}

impl<B: AutodiffBackend> ParameterRef<'_, B> {
    /// Its gradient in row-major order, as files have the parameter; `None` when the loss does not
    /// depend on it.
    pub fn gradient(&self, gradients: &B::Gradients) -> Option<Vec<f32>> {
        match self {
            Self::Vector(p) => p.val().grad(gradients).map(|g| floats(g.into_data())),
            Self::Matrix(p) => p.val().grad(gradients).map(|g| floats(g.into_data())),
            Self::Transposed(p) => {
                p.val().grad(gradients).map(|g| transposed(&floats(g.clone().into_data()), g.dims()))
            }
        }
    }
}

/// Weight and bias of a linear layer under their Hugging Face names; a weight that is only there packed
/// is not among them.
pub fn linear_parameters<'a, B: QuantBackend>(
    name: &str,
    linear: &'a SwitchableLinear<B>,
    layout: WeightLayout,
) -> impl Iterator<Item = (String, ParameterRef<'a, B>)> + use<'a, B> {
    let name = |part| format!("{name}.{part}");
    let weight = linear.weight_param().map(|weight| (name("weight"), ParameterRef::weight(weight, layout)));
    let bias = linear.bias_param().map(|bias| (name("bias"), ParameterRef::Vector(bias)));
    weight.into_iter().chain(bias)
}

/// Values of a tensor in f32.
pub(crate) fn floats(data: TensorData) -> Vec<f32> {
    data.convert::<f32>().into_vec().expect("data converted to f32 is f32")
}

#[cfg(test)]
mod tests {
    use burn::backend::{Flex, flex::FlexDevice};

    use super::*;

    #[test]
    fn weights_of_either_layout_return_to_what_the_file_held() {
        let (shape, values): ([usize; 2], Vec<f32>) = ([2, 3], (0..6).map(|i| i as f32).collect());
        for layout in [WeightLayout::InOut, WeightLayout::OutIn] {
            let weight = layout.from_file(values.clone(), shape);
            assert_eq!(layout.to_file(weight.clone(), shape), values);
            let weight = Tensor::<Flex, 2>::from_data(TensorData::new(weight, shape), &FlexDevice);
            let param = Param::from_tensor(weight);
            let parameter = ParameterRef::weight(&param, layout);
            assert_eq!((parameter.shape(), parameter.values()), (layout.in_file(shape).to_vec(), values.clone()));
        }
    }
}
