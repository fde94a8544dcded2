//! The gated multi-layer perceptron of a block (SwiGLU).
//!
//! ```text
//! y = (silu(x·W_gate + b_gate) ⊙ (x·W_up + b_up))·W_down + b_down,     silu(z) = z·σ(z)
//! ```
//!
//! The biases are there where the configuration's `mlp_bias` says so. Source: Shazeer, *GLU Variants
//! Improve Transformer*, arXiv:2002.05202.

use burn::module::Module;
use burn::tensor::{Tensor, activation, backend::Backend};

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_lora::switchable_linear::SwitchableLinear;
use switchable_model::pass::BlockPass;

use crate::sub_modules::{DOWN_PROJ, GATE_PROJ, UP_PROJ};

/// Three switchable matrices, the first of which opens and closes the second.
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    /// The gate, `[hidden, intermediate]`.
    pub gate_proj: SwitchableLinear<B>,
    /// What the gate lets through, `[hidden, intermediate]`.
    pub up_proj: SwitchableLinear<B>,
    /// Back into the residual stream, `[intermediate, hidden]`.
    pub down_proj: SwitchableLinear<B>,
}

impl<B: QuantBackend> Mlp<B> {
    /// # Shapes
    ///
    /// `x`: `[batch, tokens, hidden]`, the same out.
    pub(crate) fn forward(&self, x: Tensor<B, 3>, pass: &mut BlockPass<'_, B>) -> Tensor<B, 3> {
        let gate = activation::silu(pass.linear(GATE_PROJ, &self.gate_proj, x.clone()));
        let inner = gate * pass.linear(UP_PROJ, &self.up_proj, x);
        pass.linear(DOWN_PROJ, &self.down_proj, inner)
    }
}
