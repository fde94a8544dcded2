//! The multi-layer perceptron of a block.
//!
//! ```text
//! y = act(x·W_fc + b_fc)·W_proj + b_proj
//! ```

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};

use quant_kernels::backends::quant_backend::QuantBackend;
use quant_kernels::packed::product::epilogue::OutputFunction;
use switchable_lora::switchable_linear::SwitchableLinear;
use switchable_model::pass::BlockPass;

use crate::activation::Activation;
use crate::names::{MLP_C_FC, MLP_C_PROJ};

/// Two switchable matrices with an activation between them.
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    /// First matrix, `[d, n_inner]`.
    pub c_fc: SwitchableLinear<B>,
    /// Second matrix, `[n_inner, d]`.
    pub c_proj: SwitchableLinear<B>,
    #[module(skip)]
    activation: Activation,
}

impl<B: QuantBackend> Mlp<B> {
    pub(crate) fn new(c_fc: SwitchableLinear<B>, c_proj: SwitchableLinear<B>, activation: Activation) -> Self {
        Self { c_fc, c_proj, activation }
    }

    /// # Shapes
    ///
    /// `x`: `[batch, tokens, d]`, the same out.
    pub(crate) fn forward(&self, x: Tensor<B, 3>, pass: &mut BlockPass<'_, B>) -> Tensor<B, 3> {
        let inner = match self.activation {
            Activation::GeluNew => pass.linear_then(MLP_C_FC, &self.c_fc, x, OutputFunction::GeluTanh),
            activation => activation.forward(pass.linear(MLP_C_FC, &self.c_fc, x)),
        };
        pass.linear(MLP_C_PROJ, &self.c_proj, inner)
    }
}
