//! What a plan takes on a model that is not loaded: from the shapes of its matrices alone.
//!
//! ```text
//! stored    = Σ ⌈parameters · bits / 8⌉ + scales and zero points + 4 · (everything that is no site)
//! KV cache  = tokens · sequences · bytes of a token
//! ```
//!
//! The figures are those of [`Cost`](crate::cost::Cost) of the loaded model in floats, adapters apart: their ranks stand in
//! their own files. Packed weights may hold smaller scales, padding, or every width at once.

use serde::{Deserialize, Serialize};

use quant_kernels::spec::bit_width::BitWidth;
use switchable_lora::quantisation_settings::QuantisationSettings;
use switchable_lora::site_precision::SitePrecision;
use switchable_lora::switchable_embedding::EMBEDDING_SPEC;
use switchable_model::config::ModelConfig;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::Site;

use crate::cost::{F32_BYTES, matrix_bytes, scale_bytes};

/// Bytes and work of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Footprint {
    /// Parameters of the language model.
    pub parameters: usize,
    /// The linear sites and the embeddings, each kind of sub-module at each width in a row.
    pub rows: Vec<FootprintRow>,
    /// Parameters of biases and normalisations, in f32.
    pub rest: usize,
    /// Bytes of keys and values of a token.
    pub kv_cache_bytes_per_token: usize,
    /// Multiply-accumulates of the linear sites for a token.
    pub macs_per_token: usize,
}

/// The matrices of a sub-module that run at one width.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FootprintRow {
    /// The sub-module, such as `attn.c_attn` or `wte`.
    pub module: String,
    /// Whether it is an embedding or output matrix.
    pub is_embedding: bool,
    /// Shape of each, `[d_in, d_out]`; of an embedding `[rows, width]`.
    pub shape: [usize; 2],
    /// The width.
    pub bits: BitWidth,
    /// How many there are.
    pub count: usize,
    /// Bytes of all of them, with scales and zero points.
    pub bytes: usize,
}

impl Footprint {
    /// What a plan takes on a model of a configuration whose layers are quantised as the settings say, where the plan
    /// does not.
    pub fn of(config: &impl ModelConfig, plan: &SitePlan, settings: QuantisationSettings) -> Self {
        let sites = plan.sites();
        let mut rows: Vec<FootprintRow> = Vec::new();
        let mut add = |site: Site, precision: SitePrecision| {
            let is_embedding = site.block.is_none();
            let spec = if is_embedding { EMBEDDING_SPEC } else { settings.weight };
            let spec = precision.quantizer.unwrap_or(spec);
            let bits = precision.weights;
            let bytes = matrix_bytes(sites.parameters(site), bits) + scale_bytes(sites, site, (bits, spec));
            let module = site.module.to_string();
            match rows.iter_mut().find(|row| row.module == module && row.bits == bits) {
                Some(row) => {
                    row.count += 1;
                    row.bytes += bytes;
                }
                None => {
                    rows.push(FootprintRow { module, is_embedding, shape: sites.shape(site), bits, count: 1, bytes });
                }
            }
        };
        plan.embeddings().for_each(|(site, precision)| add(site, precision));
        plan.iter().for_each(|(site, precision)| add(site, precision));
        let of_embeddings: usize = sites.embeddings().map(|site| sites.parameters(site)).sum();
        let parameters = config.parameters();
        Self {
            parameters,
            rows,
            rest: parameters - config.site_parameters() - of_embeddings,
            kv_cache_bytes_per_token: plan.kv_cache_bytes_per_token(&config.shape()),
            macs_per_token: config.site_parameters(),
        }
    }

    /// Bytes of the weights: codes with their scales, everything else in f32.
    pub fn stored(&self) -> usize {
        self.rows.iter().map(|row| row.bytes).sum::<usize>() + self.rest * F32_BYTES
    }

    /// Bytes of the weights in f32.
    pub fn in_f32(&self) -> usize {
        self.parameters * F32_BYTES
    }
}

#[cfg(test)]
mod tests {
    use gpt2_model::{Gpt2, Gpt2Config};
    use quant_kernels::spec::quant_spec::QuantSpec;
    use switchable_lora::linear_settings::LinearSettings;
    use switchable_model::model::SwitchableModel as _;
    use switchable_model::model_weights::ModelWeights as _;
    use switchable_model::options::ModelOptions;

    use super::*;
    use crate::cost::Cost;

    type Plain = burn::backend::Flex;

    #[test]
    fn a_model_that_is_loaded_costs_what_its_shapes_say() {
        let config = Gpt2Config::new(211, 64, 24, 2, 3);
        let device = burn::backend::flex::FlexDevice;
        for quantizer in [
            "per-tensor,symmetric,min-max",
            "per-channel,asymmetric,min-max",
            "per-group:16,asymmetric,mse",
            "per-group:7,symmetric,min-max",
        ] {
            let weight: QuantSpec = quantizer.parse().expect("a quantiser");
            let linear = LinearSettings { weight, ..LinearSettings::default() };
            let options = ModelOptions { linear, ..ModelOptions::default() };
            let model = Gpt2::<Plain>::random(&config, &options, 1, &device).expect("a model");
            for bits in [2, 3, 4, 8, 32] {
                let bits = BitWidth::new(bits).expect("a width");
                let mut plan = model.uniform_plan(SitePrecision::FULL.with_weights(bits));
                for embeddings in [BitWidth::FULL, BitWidth::B8, BitWidth::B3] {
                    for site in plan.sites().clone().embeddings() {
                        plan.set(site, SitePrecision::FULL.with_weights(embeddings));
                    }
                    let (cost, footprint) =
                        (Cost::of(&model, &plan), Footprint::of(&config, &plan, linear.quantisation()));
                    assert_eq!(footprint.stored(), cost.stored.bytes, "{quantizer}, {bits} and {embeddings} bits");
                    assert_eq!(footprint.in_f32(), cost.stored.baseline);
                    assert_eq!(footprint.kv_cache_bytes_per_token, cost.kv_cache_bytes_per_token);
                    let parameters: usize =
                        footprint.rows.iter().map(|row| row.count * row.shape[0] * row.shape[1]).sum();
                    assert_eq!(parameters + footprint.rest, footprint.parameters);
                }
            }
        }
    }
}
