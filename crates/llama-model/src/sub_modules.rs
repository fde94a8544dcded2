//! The quantisable matrices, seven in each block and the embeddings, by name, place and shape.
//!
//! ```text
//! layers.<block>.self_attn.{q,k,v,o}_proj      layers.<block>.mlp.{gate,up,down}_proj
//! embed_tokens      lm_head, where it is not the same
//! ```

use switchable_model::sites::{LM_HEAD, Sites, sub_module::SubModule};

use crate::config::LlamaConfig;

/// Token embedding.
pub const EMBED_TOKENS: SubModule = SubModule::new("embed_tokens");
/// Query projection.
pub const Q_PROJ: SubModule = SubModule::new("self_attn.q_proj");
/// Key projection.
pub const K_PROJ: SubModule = SubModule::new("self_attn.k_proj");
/// Value projection.
pub const V_PROJ: SubModule = SubModule::new("self_attn.v_proj");
/// Output projection of attention.
pub const O_PROJ: SubModule = SubModule::new("self_attn.o_proj");
/// Gate of the MLP.
pub const GATE_PROJ: SubModule = SubModule::new("mlp.gate_proj");
/// What the MLP's gate lets through.
pub const UP_PROJ: SubModule = SubModule::new("mlp.up_proj");
/// The MLP's way back into the residual stream.
pub const DOWN_PROJ: SubModule = SubModule::new("mlp.down_proj");

/// Those of attention, in the order in which it applies them.
pub(crate) const ATTENTION: [SubModule; 4] = [Q_PROJ, K_PROJ, V_PROJ, O_PROJ];
/// Those of the MLP, in the order in which it applies them.
pub(crate) const MLP: [SubModule; 3] = [GATE_PROJ, UP_PROJ, DOWN_PROJ];

/// The sites of a Llama: its seven matrices per block, in the order in which a block applies them, with
/// their shapes `[d_in, d_out]`, and its embeddings `[vocab_size, hidden_size]`.
///
/// ```
/// use llama_model::{config::LlamaConfig, sub_modules};
///
/// let config = LlamaConfig { num_key_value_heads: 2, ..LlamaConfig::new(97, 24, 3, 4) };
/// let sites = sub_modules::sites(&config);
/// let names: Vec<String> = sites.iter().map(|site| sites.name(site)).collect();
/// assert_eq!((names.len(), names[7].as_str()), (21, "layers.1.self_attn.q_proj"));
/// // Per block 2·24·24 for queries and output, 2·24·12 for keys and values, 3·24·96 in the MLP.
/// assert_eq!(sites.all_parameters(), 3 * (1152 + 576 + 6912));
/// ```
pub fn sites(config: &LlamaConfig) -> Sites {
    let [d, inner] = [config.hidden_size, config.intermediate_size];
    let [queries, keys] = [config.query_width(), config.key_value_width()];
    let modules = [
        (Q_PROJ, [d, queries]),
        (K_PROJ, [d, keys]),
        (V_PROJ, [d, keys]),
        (O_PROJ, [queries, d]),
        (GATE_PROJ, [d, inner]),
        (UP_PROJ, [d, inner]),
        (DOWN_PROJ, [inner, d]),
    ];
    let embedding = [config.vocab_size, d];
    let head = (!config.tie_word_embeddings).then_some((LM_HEAD, embedding));
    Sites::new("layers", config.num_hidden_layers, modules)
        .with_embeddings([(EMBED_TOKENS, embedding)].into_iter().chain(head))
}
