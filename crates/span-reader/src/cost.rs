//! What a plan costs: memory in four figures, average bits, BitOps and the KV cache.
//!
//! ```text
//! matrix         = ⌈parameters · bits / 8⌉ (4 per parameter at 32 bits)
//! adapter        = 4 · rank · (d_in + d_out)                     of the adapter that the site uses, if any
//! site bytes     = matrix + scales and zero points + adapter     what every budget in bytes is compared with
//! embedding      = matrix + a scale for each row                 of the token and position embedding, and of an
//!                                                                output matrix of its own
//! average bits   = Σ parameters · bits / Σ parameters            over the linear sites
//! BitOps         = Σ MACs · weight bits · activation bits        per token, over the sites and the
//!                                                                adapters and rotations that they use
//! KV cache       = Σ 2 · heads · (⌈w · bits / 8⌉ + 4)            per token, over the blocks; 4·w at 32 bits
//! ```
//!
//! A site of `[d_in, d_out]` is `d_in · d_out` MACs at its own widths. An adapter of rank `r` beside it
//! (residual) is `r · (d_in + d_out)` MACs at 32 bits by 32; one that is merged into a quantised weight
//! is none, and beside a weight of 32 bits it reads the quantised activations. A rotation of its inputs is
//! `d_in · (n + log2 p)` additions, counted as MACs at 32 bits by 32
//! ([`HadamardTransform`](quant_kernels::HadamardTransform)).
//!
//! **Adapters count wherever bytes or BitOps are compared**: in the budgets of searches and allocations, in
//! those of the controller at run time, in the steps that training regimes get, and in what is stored. They
//! count site by site: the rank is that of the adapter which the site has for the width that its precision
//! names, and a site without one adds nothing. Only [`Cost::sites`], [`Cost::whole_vs_fp32`] and
//! [`Cost::whole_vs_fp16`] are of the weights alone; they compare widths, and are no budget.
//!
//! **Embeddings** are counted apart from the linear sites ([`Cost::embeddings`]), which budgets in average bits and
//! the figures of the study are of; whatever is of the whole model counts them at their own widths. A search that
//! may change them counts them in its budgets.
//!
//! `w` is the width of a head; the 4 bytes are the scale of a token's key or value in one head.
//!
//! Source of BitOps: Baskin et al., *UNIQ*, arXiv:1804.10969.

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantBackend;
use quant_kernels::spec::{bit_width::BitWidth, quant_spec::QuantSpec};
use switchable_lora::placement::Placement;
use switchable_lora::site_precision::SitePrecision;
use switchable_lora::switchable_linear::SwitchableLinear;
use switchable_model::config::ModelConfig;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::{Site, Sites};

pub(crate) const F32_BYTES: usize = 4;

/// Bytes against a baseline.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
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
    /// The matrices of the linear sites alone, against f32.
    pub sites: Bytes,
    /// Embeddings and output matrix as they are stored, with their scales, against f32. Empty where a file has none.
    #[serde(default)]
    pub embeddings: Bytes,
    /// The whole model, everything but sites and embeddings in f32, against f32.
    pub whole_vs_fp32: Bytes,
    /// The whole model, everything but sites and embeddings in f16, against f16.
    pub whole_vs_fp16: Bytes,
    /// What storage needs: packed sites and embeddings with their scales and zero points, everything else in f32,
    /// and the adapters that the plan uses; against f32. Of weights that are packed already it is what their codes
    /// and scales take, whatever quantiser the model was opened with.
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
        let of_embeddings: usize = plan.embeddings().map(|(site, _)| plan.sites().parameters(site)).sum();
        let rest = all - config.site_parameters() - of_embeddings;
        let (mut sites, mut stored, mut adapters) = (0, 0, 0);
        for (site, precision) in plan.iter() {
            let linear = model.site(site);
            sites += matrix_bytes(plan.sites().parameters(site), precision.weights);
            stored += match linear.packed_weights() {
                Some(weights) => weights.bytes(),
                None => weight_bytes(model, site, precision),
            };
            adapters += adapter_bytes(linear, precision);
        }
        let embeddings = embedding_bytes(model, plan);
        let matrices =
            |(site, precision): (Site, SitePrecision)| matrix_bytes(plan.sites().parameters(site), precision.weights);
        let of_widths: usize = plan.embeddings().map(matrices).sum();
        Self {
            sites: Bytes::new(sites, config.site_parameters() * F32_BYTES),
            embeddings: Bytes::new(embeddings, of_embeddings * F32_BYTES),
            whole_vs_fp32: Bytes::new(sites + of_widths + rest * F32_BYTES, all * F32_BYTES),
            whole_vs_fp16: Bytes::new(half_bytes(plan) + rest * 2, all * 2),
            stored: Bytes::new(stored + embeddings + rest * F32_BYTES + adapters, all * F32_BYTES),
            adapters,
            average_bits: plan.average_weight_bits(),
            bit_ops_per_token: plan_bit_ops(model, plan),
            kv_cache_bytes_per_token: plan.kv_cache_bytes_per_token(&config.shape()),
        }
    }
}

/// Bytes that a site takes, as its quantiser would store it: its packed weights, scales and zero points, and
/// the adapter that the precision uses there. An embedding has no adapter.
///
/// The bytes of a plan are the sum over its linear sites, [`plan_bytes`].
///
/// # Panics
///
/// When the model has no such site.
pub fn site_bytes<B: QuantBackend, M: SwitchableModel<B>>(model: &M, site: Site, precision: SitePrecision) -> usize {
    let adapter = if site.block.is_some() { adapter_bytes(model.site(site), precision) } else { 0 };
    weight_bytes(model, site, precision) + adapter
}

/// Bytes of the embeddings and the output matrix under a plan, with their scales; of those that are packed already
/// what their codes take.
///
/// # Panics
///
/// When the plan is one for other embeddings.
pub fn embedding_bytes<B: QuantBackend, M: SwitchableModel<B>>(model: &M, plan: &SitePlan) -> usize {
    let bytes = |(site, precision)| match model.embedding_site(site).packed_weights() {
        Some(codes) => codes.bytes(),
        None => site_bytes(model, site, precision),
    };
    plan.embeddings().map(bytes).sum()
}

/// Sum of [`site_bytes`] over the linear sites of a plan: of a model in floats [`Cost::stored`] without the rest of the model.
///
/// # Panics
///
/// When the plan is of a model with more blocks.
pub fn plan_bytes<B: QuantBackend, M: SwitchableModel<B>>(model: &M, plan: &SitePlan) -> usize {
    plan.iter().map(|(site, precision)| site_bytes(model, site, precision)).sum()
}

/// Bit operations of a plan per token: of its sites, and of the adapters and rotations that they use.
///
/// # Panics
///
/// When the plan is of a model with more blocks.
pub fn plan_bit_ops<B: QuantBackend, M: SwitchableModel<B>>(model: &M, plan: &SitePlan) -> f64 {
    let site = |(site, precision): (Site, SitePrecision)| {
        let bits = f64::from(precision.weights.bits()) * f64::from(precision.activations.bits());
        let layer = model.site(site);
        let beside = adapter_bit_ops(layer, precision) + rotation_bit_ops(layer, precision);
        plan.sites().parameters(site) as f64 * bits + beside
    };
    plan.iter().map(site).sum()
}

/// Bytes of the adapters that a plan uses, in f32.
///
/// # Panics
///
/// When the plan is of a model with more blocks.
pub fn plan_adapter_bytes<B: QuantBackend, M: SwitchableModel<B>>(model: &M, plan: &SitePlan) -> usize {
    plan.iter().map(|(site, precision)| adapter_bytes(model.site(site), precision)).sum()
}

/// Numbers of the adapters that a precision uses at a layer, none where there is none of a width.
fn adapter_parameters<B: QuantBackend>(linear: &SwitchableLinear<B>, precision: SitePrecision) -> usize {
    let pairs = precision.adapters().filter_map(|width| linear.bank().get(width));
    pairs.map(|pair| pair.rank() * (linear.d_in() + linear.d_out())).sum()
}

fn adapter_bytes<B: QuantBackend>(linear: &SwitchableLinear<B>, precision: SitePrecision) -> usize {
    adapter_parameters(linear, precision) * F32_BYTES
}

/// Bit operations per token of the adapter that a precision uses at a layer.
fn adapter_bit_ops<B: QuantBackend>(linear: &SwitchableLinear<B>, precision: SitePrecision) -> f64 {
    let activations = match linear.quantisation(&precision).placement {
        Placement::Residual => BitWidth::FULL,
        Placement::Merged if precision.weights.is_full() => precision.activations,
        Placement::Merged => return 0.0,
    };
    let bits = f64::from(BitWidth::FULL.bits()) * f64::from(activations.bits());
    adapter_parameters(linear, precision) as f64 * bits
}

/// Bit operations per token of the rotation of a layer's inputs.
fn rotation_bit_ops<B: QuantBackend>(linear: &SwitchableLinear<B>, precision: SitePrecision) -> f64 {
    let additions = linear.rotation_at(&precision).map_or(0, |transform| transform.additions());
    additions as f64 * f64::from(BitWidth::FULL.bits()).powi(2)
}

/// Bytes of sites and embeddings in a model whose unquantised weights are f16: 32 bits count as 16.
fn half_bytes(plan: &SitePlan) -> usize {
    let bits = |precision: SitePrecision| usize::from(precision.weights.bits()).min(16);
    plan.iter()
        .chain(plan.embeddings())
        .map(|(site, precision)| packed_bytes(plan.sites().parameters(site), bits(precision)))
        .sum()
}

pub(crate) fn matrix_bytes(parameters: usize, weights: BitWidth) -> usize {
    packed_bytes(parameters, usize::from(weights.bits()))
}

fn packed_bytes(parameters: usize, bits: usize) -> usize {
    (parameters * bits).div_ceil(8)
}

/// Bytes of a site's packed weights, scales and zero points.
fn weight_bytes<B: QuantBackend, M: SwitchableModel<B>>(model: &M, site: Site, precision: SitePrecision) -> usize {
    matrix_bytes(model.sites().parameters(site), precision.weights) + table_bytes(model, site, precision)
}

fn table_bytes<B: QuantBackend, M: SwitchableModel<B>>(model: &M, site: Site, precision: SitePrecision) -> usize {
    let spec = match site.block {
        Some(_) => model.site(site).quantisation(&precision).weight,
        None => model.embedding_site(site).quantisation(&precision).weight,
    };
    scale_bytes(model.sites(), site, (precision.weights, spec))
}

/// Bytes of a site's scales in f32 and, where the mapping has them, zero points of one byte. A learned
/// step is such a scale: there are as many, and they take the same bytes.
pub(crate) fn scale_bytes(sites: &Sites, site: Site, (bits, spec): (BitWidth, QuantSpec)) -> usize {
    if bits.is_full() {
        return 0;
    }
    let shape = match (site.block, sites.shape(site)) {
        (Some(_), shape) => shape,
        // Codes are of the transpose.
        (None, [rows, width]) => [width, rows],
    };
    let shape = spec.granularity.param_shape(shape);
    let scales = shape.map_or(1, |shape| shape.iter().product());
    let zero_point = usize::from(spec.format.has_zero_points());
    scales * (F32_BYTES + zero_point)
}

/// Multiply-accumulates of the sites per token: one per weight.
pub fn macs_per_token(config: &impl ModelConfig) -> usize {
    config.site_parameters()
}
