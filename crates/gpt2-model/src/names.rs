//! The names of GPT-2's parts in the Hugging Face model.

use burn::nn::LayerNorm;
use burn::tensor::backend::Backend;

use switchable_model::parameters::ParameterRef;
use switchable_model::sites::sub_module::SubModule;

/// Query, key and value projection, `[d, 3d]`.
pub const ATTN_C_ATTN: SubModule = SubModule::new("attn.c_attn");
/// Output projection of attention, `[d, d]`.
pub const ATTN_C_PROJ: SubModule = SubModule::new("attn.c_proj");
/// First matrix of the MLP, `[d, 4d]`.
pub const MLP_C_FC: SubModule = SubModule::new("mlp.c_fc");
/// Second matrix of the MLP, `[4d, d]`.
pub const MLP_C_PROJ: SubModule = SubModule::new("mlp.c_proj");

/// Token embedding, `[vocab_size, d]`.
pub const WTE: SubModule = SubModule::new("wte");
/// Position embedding, `[n_positions, d]`.
pub const WPE: SubModule = SubModule::new("wpe");

/// The four linear sub-modules of a block, in the order in which it applies them.
pub const SUB_MODULES: [SubModule; 4] = [ATTN_C_ATTN, ATTN_C_PROJ, MLP_C_FC, MLP_C_PROJ];

/// Gain and shift of a normalisation under their Hugging Face names.
pub(crate) fn norm_parameters<'a, B: Backend>(
    name: &str,
    norm: &'a LayerNorm<B>,
) -> impl Iterator<Item = (String, ParameterRef<'a, B>)> + use<'a, B> {
    let bias = norm.beta.as_ref().map(|beta| (format!("{name}.bias"), ParameterRef::Vector(beta)));
    std::iter::once((format!("{name}.weight"), ParameterRef::Vector(&norm.gamma))).chain(bias)
}
