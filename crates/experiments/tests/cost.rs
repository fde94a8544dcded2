//! Costs against counts made by hand.

use gpt2_model::names::{ATTN_C_PROJ, MLP_C_FC};
use gpt2_model::{Gpt2, Gpt2Config};
use quant_kernels::spec::bit_width::BitWidth;
use span_reader::cost::{Cost, macs_per_token, plan_bit_ops, plan_bytes, site_bytes};
use switchable_lora::{lora_config::LoraConfig, placement::Placement, site_precision::SitePrecision};
use switchable_model::config::ModelConfig;
use switchable_model::model::SwitchableModel;
use switchable_model::model_weights::ModelWeights;
use switchable_model::options::ModelOptions;
use switchable_model::sites::Site;

use crate::support::{Plain, device, skip_without_device};

fn tiny() -> Gpt2<Plain> {
    // Sites: 12·d² = 12·64 per block; d = 8.
    Gpt2::random(&Gpt2Config::new(10, 4, 8, 2, 2), &ModelOptions::default(), 1, &device()).expect("a valid shape")
}

#[test]
fn full_precision_saves_nothing() {
    skip_without_device!();
    let model = tiny();
    let cost = Cost::of(&model, &model.uniform_plan(SitePrecision::FULL));
    for bytes in [cost.sites, cost.whole_vs_fp32, cost.whole_vs_fp16, cost.stored] {
        assert_eq!(bytes.bytes, bytes.baseline);
        assert!(bytes.saved.abs() < 1e-12);
    }
    assert!((cost.average_bits - 32.0).abs() < 1e-12);
    assert!((cost.bit_ops_per_token - 1536.0 * 1024.0).abs() < 1e-6);
    assert_eq!(macs_per_token(model.config()), 1536);
    // 2 blocks, a key and a value of 8 floats each.
    assert_eq!(cost.kv_cache_bytes_per_token, 2 * 2 * 8 * 4);
}

#[test]
fn four_bits_with_adapters_are_counted_in_all_four_ways() {
    skip_without_device!();
    let mut model = tiny();
    model.init_adapters(BitWidth::B4, &LoraConfig::new(2, 4.0).unwrap(), 1).unwrap();
    let cost = Cost::of(&model, &model.uniform_plan(SitePrecision::uniform(BitWidth::B4)));
    let sites = 2 * 12 * 64;
    let all = 10 * 8 + 4 * 8 + sites + 2 * (24 + 8 + 32 + 8 + 4 * 8) + 2 * 8;
    assert_eq!(model.config().parameters(), all);
    assert_eq!(cost.sites.bytes, sites / 2);
    assert_eq!(cost.sites.baseline, sites * 4);
    assert_eq!(cost.whole_vs_fp32.bytes, sites / 2 + (all - sites) * 4);
    assert_eq!(cost.whole_vs_fp16.bytes, sites / 2 + (all - sites) * 2);
    assert_eq!(cost.whole_vs_fp16.baseline, all * 2);
    // One f32 scale per matrix; rank 2 on [8, 24], [8, 8], [8, 32] and [32, 8].
    let adapters = 2 * 2 * (32 + 16 + 40 + 40) * 4;
    assert_eq!(cost.adapters, adapters);
    assert_eq!(cost.stored.bytes, sites / 2 + 8 * 4 + (all - sites) * 4 + adapters);
    assert!((cost.average_bits - 4.0).abs() < 1e-12);
    // The adapters read and hold f32, whatever the activations of the sites.
    let eight = SitePrecision::uniform(BitWidth::B4).with_activations(BitWidth::B8);
    for (precision, activations) in [(SitePrecision::uniform(BitWidth::B4), 32), (eight, 8)] {
        let cost = Cost::of(&model, &model.uniform_plan(precision));
        let expected = sites * 4 * activations + adapters / 4 * 32 * 32;
        assert!((cost.bit_ops_per_token - expected as f64).abs() < 1e-6, "{}", cost.bit_ops_per_token);
        // Merged into the quantised weight there is no product of their own.
        let merged = Cost::of(&model, &model.uniform_plan(precision.with_placement(Placement::Merged)));
        assert!((merged.bit_ops_per_token - (sites * 4 * activations) as f64).abs() < 1e-6);
    }
    let full = SitePrecision::uniform(BitWidth::B4).with_weights(BitWidth::FULL).with_activations(BitWidth::B8);
    let beside = Cost::of(&model, &model.uniform_plan(full.with_placement(Placement::Merged)));
    assert!((beside.bit_ops_per_token - ((sites + adapters / 4) * 32 * 8) as f64).abs() < 1e-6);
    // What budgets are compared with: all that the sites take.
    let plan = model.uniform_plan(SitePrecision::uniform(BitWidth::B4));
    assert_eq!(plan_bytes(&model, &plan), cost.stored.bytes - (all - sites) * 4);
    assert_eq!(plan_bytes(&model, &plan), sites / 2 + 8 * 4 + adapters);
    let site = Site::in_block(1, ATTN_C_PROJ);
    assert_eq!(site_bytes(&model, site, plan.get(site)), 64 / 2 + 4 + 2 * (8 + 8) * 4);
    assert_eq!(site_bytes(&model, site, plan.get(site).without_adapter()), 64 / 2 + 4);
    assert_eq!(site_bytes(&model, site, SitePrecision::FULL), 64 * 4);
}

#[test]
fn adapters_count_site_by_site_at_the_rank_that_each_precision_uses() {
    skip_without_device!();
    let mut model = tiny();
    let (attention, mlp) = (Site::in_block(0, ATTN_C_PROJ), Site::in_block(1, MLP_C_FC));
    let mut init = |site, bits, rank: usize| {
        model.site_mut(site).init_adapter(bits, &LoraConfig::new(rank, 4.0).unwrap(), 1).unwrap();
    };
    init(attention, BitWidth::B4, 3);
    init(mlp, BitWidth::B4, 1);
    init(mlp, BitWidth::B2, 5);
    let bare = SitePrecision::uniform(BitWidth::B4).without_adapter();
    let with = |site, bits| {
        let plan = model.uniform_plan(bare).with(site, SitePrecision { adapter: Some(bits), ..bare });
        (plan_bytes(&model, &plan), plan_bit_ops(&model, &plan), Cost::of(&model, &plan))
    };
    let (bytes, bit_ops) = (plan_bytes(&model, &model.uniform_plan(bare)), 1536.0 * 4.0 * 32.0);
    // [8, 8] and [8, 32]: 3 · 16, 1 · 40 and 5 · 40 numbers; none at a site that has no adapter of the width.
    for (site, bits, numbers) in
        [(attention, BitWidth::B4, 48), (mlp, BitWidth::B4, 40), (mlp, BitWidth::B2, 200), (attention, BitWidth::B2, 0)]
    {
        let (found, ops, cost) = with(site, bits);
        assert_eq!((found - bytes, cost.adapters), (numbers * 4, numbers * 4), "{site:?} {bits}");
        assert!((ops - bit_ops - (numbers * 1024) as f64).abs() < 1e-6, "{site:?} {bits}: {ops}");
        assert_eq!(ops.to_bits(), cost.bit_ops_per_token.to_bits());
    }
}

#[test]
fn average_bits_are_weighted_by_parameters() {
    skip_without_device!();
    let model = tiny();
    let site = Site::in_block(0, MLP_C_FC);
    let plan =
        model.uniform_plan(SitePrecision::FULL).with(site, SitePrecision::uniform(BitWidth::B8).without_adapter());
    let cost = Cost::of(&model, &plan);
    assert!((cost.average_bits - (256.0 * 8.0 + 1280.0 * 32.0) / 1536.0).abs() < 1e-12);
}

#[test]
fn keys_and_values_count_their_codes_and_a_scale_for_every_head() {
    skip_without_device!();
    let model = tiny();
    let plan = model.uniform_plan(SitePrecision::FULL).with_kv_cache(BitWidth::B8);
    // 2 heads of width 4: 4 bytes of codes and 4 of scale in each block for a key, and as many for a value.
    let cost = Cost::of(&model, &plan);
    assert_eq!(cost.kv_cache_bytes_per_token, 2 * 2 * 2 * (4 + 4));
    // 4 codes of 3 bits take 12 bits, which are 2 bytes.
    let mixed = Cost::of(&model, &plan.with_block_kv_cache(1, BitWidth::B3));
    assert_eq!(mixed.kv_cache_bytes_per_token, 2 * 2 * (4 + 4) + 2 * 2 * (2 + 4));
    // The cache is no part of the model's own memory.
    let full = Cost::of(&model, &model.uniform_plan(SitePrecision::FULL));
    assert_eq!(Cost { kv_cache_bytes_per_token: full.kv_cache_bytes_per_token, ..mixed }, full);
}

#[test]
fn a_cost_without_the_bytes_of_keys_and_values_is_read() {
    skip_without_device!();
    let model = tiny();
    let cost = Cost::of(&model, &model.uniform_plan(SitePrecision::FULL));
    let mut json = serde_json::to_value(cost).unwrap();
    for field in ["kv_cache_bytes_per_token", "adapters"] {
        json.as_object_mut().unwrap().remove(field).unwrap();
    }
    assert_eq!(
        serde_json::from_value::<Cost>(json).unwrap(),
        Cost { kv_cache_bytes_per_token: 0, adapters: 0, ..cost }
    );
}
