//! What a plan costs: memory in four figures, average bits, BitOps and the KV cache.
//!
//! ```text
//! site bytes     = ⌈parameters · bits / 8⌉ (4 per parameter at 32 bits)
//! average bits   = Σ parameters · bits / Σ parameters            over the sites
//! adapters       = Σ 4 · rank · (d_in + d_out)                    over the adapters that the plan uses
//! BitOps         = Σ MACs · weight bits · activation bits        per token, over the sites and the
//!                                                                adapters that the plan uses
//! KV cache       = Σ 2 · heads · (⌈w · bits / 8⌉ + 4)            per token, over the blocks; 4·w at 32 bits
//! ```
//!
//! A site of `[d_in, d_out]` is `d_in · d_out` MACs at its own widths. An adapter of rank `r` beside it
//! (residual) is `r · (d_in + d_out)` MACs at 32 bits by 32; one that is merged into a quantised weight
//! is none, and beside a weight of 32 bits it reads the quantised activations.
//!
//! `w` is the width of a head; the 4 bytes are the scale of a token's key or value in one head.
//!
//! Source of BitOps: Baskin et al., *UNIQ*, arXiv:1804.10969.

use serde::{Deserialize, Serialize};

use quant_kernels::{
    backends::quant_backend::QuantBackend, packed::packed_tensor::PackedTensor, spec::bit_width::BitWidth,
};
use switchable_lora::adapter_pair::LoraAdapterPair;
use switchable_lora::placement::Placement;
use switchable_lora::site_precision::SitePrecision;
use switchable_lora::switchable_linear::SwitchableLinear;
use switchable_model::config::ModelConfig;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::Site;

const F32_BYTES: usize = 4;

/// Bytes against a baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bytes {
    /// Bytes under the plan.
    pub bytes: usize,
    /// Bytes of the baseline.
    pub baseline: usize,
    /// Share of the baseline that is saved, 0 to 1; negative when the plan needs more.
    pub saved: f64,
}

impl Bytes {
    fn new(bytes: usize, baseline: usize) -> Self {
        Self { bytes, baseline, saved: 1.0 - bytes as f64 / baseline as f64 }
    }
}

/// Cost of a plan on one model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The matrices of the sites alone, against f32.
    pub sites: Bytes,
    /// The whole model, everything but the sites in f32, against f32.
    pub whole_vs_fp32: Bytes,
    /// The whole model, everything but the sites in f16, against f16.
    pub whole_vs_fp16: Bytes,
    /// What storage needs: packed sites with their scales and zero points, everything else in f32,
    /// and the adapters that the plan uses; against f32. Of weights that are packed already, and of a packed
    /// output matrix, it is what their codes and scales take, whatever quantiser the model was opened with.
    pub stored: Bytes,
    /// Bytes of the adapters that the plan uses, in f32; part of `stored`, and no part of the others. 0 where
    /// a file has none.
    #[serde(default)]
    pub adapters: usize,
    /// Mean width of the sites' weights in bits, weighted by parameters.
    pub average_bits: f64,
    /// Bit operations of the sites and of the adapters that the plan uses, per token.
    pub bit_ops_per_token: f64,
    /// Bytes of keys and values per token of context, computed for packed storage with an f32 scale
    /// for every token and head; see [`SitePlan::kv_cache_bytes_per_token`]. 0 where a file has none.
    #[serde(default)]
    pub kv_cache_bytes_per_token: usize,
}

impl Cost {
    /// Cost of a plan on a model, its adapters and quantisers as they are.
    pub fn of<B: QuantBackend, M: SwitchableModel<B>>(model: &M, plan: &SitePlan) -> Self {
        let config = model.config();
        let all = config.parameters();
        let rest = all - config.site_parameters();
        let mut sites = 0;
        let mut stored = 0;
        let mut adapters = 0;
        let mut bit_ops = 0.0;
        for (site, precision) in plan.iter() {
            let linear = model.site(site);
            let parameters = plan.sites().parameters(site);
            let weight_bits = usize::from(precision.weights.bits());
            sites += packed_bytes(parameters, weight_bits);
            bit_ops += parameters as f64 * weight_bits as f64 * f64::from(precision.activations.bits());
            bit_ops += adapter_bit_ops(linear, precision);
            stored += match linear.packed_weights() {
                Some(weights) => weights.bytes(),
                None => site_bytes(model, site, precision),
            };
            if let Some(pair) = precision.adapter.and_then(|width| linear.bank().get(width)) {
                adapters += adapter_parameters(linear, pair) * F32_BYTES;
            }
        }
        let head = model.packed_head().map_or(0, PackedTensor::bytes);
        let replaced = model.packed_only_head().map_or(0, |head| head.shape().iter().product::<usize>() * F32_BYTES);
        Self {
            sites: Bytes::new(sites, config.site_parameters() * F32_BYTES),
            whole_vs_fp32: Bytes::new(sites + rest * F32_BYTES, all * F32_BYTES),
            whole_vs_fp16: Bytes::new(half_bytes(plan) + rest * 2, all * 2),
            stored: Bytes::new(stored + rest * F32_BYTES - replaced + head + adapters, all * F32_BYTES),
            adapters,
            average_bits: plan.average_weight_bits(),
            bit_ops_per_token: bit_ops,
            kv_cache_bytes_per_token: plan.kv_cache_bytes_per_token(&config.shape()),
        }
    }
}

fn adapter_parameters<B: QuantBackend>(linear: &SwitchableLinear<B>, pair: &LoraAdapterPair<B>) -> usize {
    pair.rank() * (linear.d_in() + linear.d_out())
}

/// Bit operations per token of the adapter that a precision names.
fn adapter_bit_ops<B: QuantBackend>(linear: &SwitchableLinear<B>, precision: SitePrecision) -> f64 {
    let Some(pair) = precision.adapter.and_then(|width| linear.bank().get(width)) else { return 0.0 };
    let activations = match linear.quantisation(&precision).placement {
        Placement::Residual => BitWidth::FULL,
        Placement::Merged if precision.weights.is_full() => precision.activations,
        Placement::Merged => return 0.0,
    };
    adapter_parameters(linear, pair) as f64 * f64::from(BitWidth::FULL.bits()) * f64::from(activations.bits())
}

/// Bytes of the sites in a model whose unquantised weights are f16: 32 bits count as 16.
fn half_bytes(plan: &SitePlan) -> usize {
    plan.iter()
        .map(|(site, precision)| {
            packed_bytes(plan.sites().parameters(site), usize::from(precision.weights.bits()).min(16))
        })
        .sum()
}

/// Bytes of a site as its quantiser would store it: its packed weights, scales and zero points.
///
/// Adapters are left out, so that the bytes of a plan are the sum over its sites and depend on their
/// widths alone: [`Cost::adapters`] are their bytes.
///
/// # Panics
///
/// When the model has no such block.
pub fn site_bytes<B: QuantBackend, M: SwitchableModel<B>>(model: &M, site: Site, precision: SitePrecision) -> usize {
    let bits = usize::from(precision.weights.bits());
    packed_bytes(model.sites().parameters(site), bits) + table_bytes(model, site, precision)
}

/// Sum of [`site_bytes`] over a plan: of a model in floats [`Cost::stored`] without the adapters and the rest
/// of the model.
///
/// # Panics
///
/// When the plan is of a model with more blocks.
pub fn plan_bytes<B: QuantBackend, M: SwitchableModel<B>>(model: &M, plan: &SitePlan) -> usize {
    plan.iter().map(|(site, precision)| site_bytes(model, site, precision)).sum()
}

fn packed_bytes(parameters: usize, bits: usize) -> usize {
    (parameters * bits).div_ceil(8)
}

/// Bytes of a site's scales in f32 and, where the mapping has them, zero points of one byte. A learned
/// step is such a scale: there are as many, and they take the same bytes.
fn table_bytes<B: QuantBackend, M: SwitchableModel<B>>(model: &M, site: Site, precision: SitePrecision) -> usize {
    if precision.weights.is_full() {
        return 0;
    }
    let spec = model.site(site).quantisation(&precision).weight;
    let shape = spec.granularity.param_shape(model.sites().shape(site));
    let scales = shape.map_or(1, |shape| shape.iter().product());
    let zero_point = usize::from(spec.format.has_zero_points());
    scales * (F32_BYTES + zero_point)
}

/// Multiply-accumulates of the sites per token: one per weight.
pub fn macs_per_token(config: &impl ModelConfig) -> usize {
    config.site_parameters()
}
