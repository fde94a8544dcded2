//! One transformer block.
//!
//! ```text
//! x ← x + attention(norm₁(x)),   x ← x + mlp(norm₂(x))
//! ```

use burn::module::Module;
use burn::nn::LayerNorm;
use burn::tensor::{Tensor, backend::Backend};

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_lora::switchable_linear::SwitchableLinear;
use switchable_model::pass::BlockPass;
use switchable_model::sites::sub_module::SubModule;

use crate::attention::CausalSelfAttention;
use crate::mlp::Mlp;
use crate::names::{ATTN_C_ATTN, ATTN_C_PROJ, MLP_C_FC, MLP_C_PROJ};

/// A block of a GPT-2: normalisation before each of attention and MLP, residual around each.
#[derive(Module, Debug)]
pub struct Block<B: Backend> {
    /// Normalisation before attention.
    pub ln_1: LayerNorm<B>,
    /// Self-attention.
    pub attn: CausalSelfAttention<B>,
    /// Normalisation before the MLP.
    pub ln_2: LayerNorm<B>,
    /// The MLP.
    pub mlp: Mlp<B>,
}

impl<B: QuantBackend> Block<B> {
    /// # Shapes
    ///
    /// `x`: `[batch, tokens, d]`, the same out.
    pub(crate) fn forward(&self, x: Tensor<B, 3>, pass: &mut BlockPass<'_, B>) -> Tensor<B, 3> {
        let attended = self.attn.forward(self.ln_1.forward(x.clone()), pass);
        let x = x + attended;
        let inner = self.mlp.forward(self.ln_2.forward(x.clone()), pass);
        x + inner
    }

    /// A linear sub-module of the block; `None` if there is none of this name.
    pub fn site(&self, module: SubModule) -> Option<&SwitchableLinear<B>> {
        match module {
            ATTN_C_ATTN => Some(&self.attn.c_attn),
            ATTN_C_PROJ => Some(&self.attn.c_proj),
            MLP_C_FC => Some(&self.mlp.c_fc),
            MLP_C_PROJ => Some(&self.mlp.c_proj),
            _ => None,
        }
    }

    /// A linear sub-module of the block, to be changed; `None` if there is none of this name.
    pub fn site_mut(&mut self, module: SubModule) -> Option<&mut SwitchableLinear<B>> {
        match module {
            ATTN_C_ATTN => Some(&mut self.attn.c_attn),
            ATTN_C_PROJ => Some(&mut self.attn.c_proj),
            MLP_C_FC => Some(&mut self.mlp.c_fc),
            MLP_C_PROJ => Some(&mut self.mlp.c_proj),
            _ => None,
        }
    }
}
