//! One transformer block.
//!
//! ```text
//! x ← x + attention(norm₁(x)),   x ← x + mlp(norm₂(x))
//! ```

use burn::module::Module;
use burn::nn::LayerNorm;
use burn::tensor::{Tensor, backend::Backend};
use quant_kernels::{BitWidth, QuantBackend};
use switchable_lora::{SitePrecision, SwitchableLinear};

use crate::attention::{AttentionMask, CausalSelfAttention};
use crate::kv_cache::LayerCache;
use crate::mlp::Mlp;
use crate::{SITES_PER_BLOCK, SubModule};

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
    pub(crate) fn forward(
        &self,
        x: Tensor<B, 3>,
        [c_attn, attn_c_proj, c_fc, mlp_c_proj]: &[SitePrecision; SITES_PER_BLOCK],
        kv_cache: BitWidth,
        mask: &AttentionMask<B>,
        cache: Option<(&mut LayerCache<B>, usize)>,
    ) -> Tensor<B, 3> {
        let attended = self.attn.forward(self.ln_1.forward(x.clone()), [c_attn, attn_c_proj], kv_cache, mask, cache);
        let x = x + attended;
        let inner = self.mlp.forward(self.ln_2.forward(x.clone()), [c_fc, mlp_c_proj]);
        x + inner
    }

    /// A linear sub-module of the block.
    pub fn site(&self, module: SubModule) -> &SwitchableLinear<B> {
        match module {
            SubModule::AttnCAttn => &self.attn.c_attn,
            SubModule::AttnCProj => &self.attn.c_proj,
            SubModule::MlpCFc => &self.mlp.c_fc,
            SubModule::MlpCProj => &self.mlp.c_proj,
        }
    }

    /// A linear sub-module of the block, to be changed.
    pub fn site_mut(&mut self, module: SubModule) -> &mut SwitchableLinear<B> {
        match module {
            SubModule::AttnCAttn => &mut self.attn.c_attn,
            SubModule::AttnCProj => &mut self.attn.c_proj,
            SubModule::MlpCFc => &mut self.mlp.c_fc,
            SubModule::MlpCProj => &mut self.mlp.c_proj,
        }
    }
}
