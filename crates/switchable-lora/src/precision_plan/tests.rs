use quant_kernels::spec::{quant_spec::QuantSpec, rotation::Rotation, rounding_method::RoundingMethod};

use super::*;
use crate::{placement::Placement, quantisation_settings::QuantisationSettings, site_precision::SiteRounding};

const ONE: SitePrecision = SitePrecision::uniform(BitWidth::B2);
const TWO: SitePrecision = SitePrecision::uniform(BitWidth::B3);
const THREE: SitePrecision = SitePrecision::uniform(BitWidth::B4);
const FOUR: SitePrecision = SitePrecision::uniform(BitWidth::B8);

fn sites() -> Vec<String> {
    let subs = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"];
    (0..12).flat_map(|block| subs.map(|sub| format!("h.{block}.{sub}"))).collect()
}

fn known(widths: &[BitWidth]) -> Vec<(String, Vec<BitWidth>)> {
    sites().into_iter().map(|site| (site, widths.to_vec())).collect()
}

#[test]
fn the_most_specific_entry_decides() {
    let plan = PrecisionPlan::uniform(ONE)
        .with_sub_module("mlp.c_proj", TWO)
        .with_block("h.3", THREE)
        .with_site("h.3.mlp.c_proj", FOUR);
    for site in sites() {
        let expected = match site.as_str() {
            "h.3.mlp.c_proj" => FOUR,
            site if site.starts_with("h.3.") => THREE,
            site if site.ends_with("mlp.c_proj") => TWO,
            _ => ONE,
        };
        assert_eq!(plan.get(&site), expected, "{site}");
    }
}

#[test]
fn names_match_at_dots_only() {
    let plan = PrecisionPlan::uniform(ONE).with_block("h.1", TWO).with_sub_module("c_proj", THREE);
    assert_eq!(plan.get("h.1.attn.c_attn"), TWO);
    assert_eq!(plan.get("h.11.attn.c_attn"), ONE);
    assert_eq!(plan.get("h.0.attn.c_proj"), THREE);
    assert_eq!(plan.get("h.0.attn.xc_proj"), ONE);
}

#[test]
fn longer_names_win_over_shorter_ones() {
    let plan = PrecisionPlan::uniform(ONE)
        .with_block("h", TWO)
        .with_block("h.3", THREE)
        .with_sub_module("c_proj", THREE)
        .with_sub_module("attn.c_proj", FOUR);
    assert_eq!(plan.get("h.2.mlp.c_fc"), TWO);
    assert_eq!(plan.get("h.3.mlp.c_fc"), THREE);
    assert_eq!(plan.get("g.0.mlp.c_proj"), THREE);
    assert_eq!(plan.get("g.0.attn.c_proj"), FOUR);
}

#[test]
fn json_round_trips_every_kind_of_entry() {
    let plan = PrecisionPlan::uniform(SitePrecision::FULL)
        .with_sub_module("attn.c_attn", ONE.with_activations(BitWidth::B8))
        .with_block("h.7", TWO.without_adapter())
        .with_site("h.0.mlp.c_fc", THREE.with_weights(BitWidth::B16))
        .with_kv_cache(BitWidth::B8)
        .with_kv_cache_block("h.3", BitWidth::B4);
    assert_eq!(PrecisionPlan::from_json(&plan.to_json()).unwrap(), plan);
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<PrecisionPlan>(&json).unwrap(), plan);
}

/// Every quantiser that differs from others in its text form.
fn quantizers() -> impl Iterator<Item = QuantSpec> {
    let granularities = ["per-tensor", "per-channel", "per-group:1", "per-group:64", "per-token"];
    let formats = ["symmetric", "asymmetric", "nf4"];
    let ranges = ["min-max", "mse", "percentile:99.95"];
    granularities.into_iter().flat_map(move |granularity| {
        formats.into_iter().flat_map(move |format| {
            ranges.into_iter().map(move |range| format!("{granularity},{format},{range}").parse().unwrap())
        })
    })
}

#[test]
fn a_plan_says_the_quantiser_rounding_and_placement_of_every_site() {
    for quantizer in quantizers() {
        for placement in [Placement::Residual, Placement::Merged] {
            for rounding in [SiteRounding::Nearest, SiteRounding::LearnedStep, SiteRounding::Hqq, SiteRounding::Gptq] {
                let settings = QuantisationSettings {
                    weight: quantizer,
                    activation: QuantSpec::PER_TOKEN,
                    placement,
                    rounding: RoundingMethod::Nearest,
                    rotation: Rotation::None,
                };
                let said = ONE.with_quantisation(settings).with_rounding(rounding);
                let plan = PrecisionPlan::uniform(said).with_site("h.0.mlp.c_fc", TWO);
                assert!(!plan.is_explicit());
                let plan = plan.with_site("h.0.mlp.c_fc", TWO.with_quantisation(settings).with_rounding(rounding));
                assert!(plan.is_explicit());
                let json = plan.to_json();
                assert_eq!(PrecisionPlan::from_json(&json).unwrap(), plan);
                for text in [
                    "\"version\": 2".to_owned(),
                    format!("\"quantizer\": \"{quantizer}\""),
                    "\"activation_quantizer\": \"per-token,symmetric,min-max\"".to_owned(),
                    format!("\"placement\": \"{placement}\""),
                    format!("\"rounding\": \"{rounding}\""),
                ] {
                    assert_eq!(json.matches(&text).count(), if text.contains("version") { 1 } else { 2 }, "{json}");
                }
            }
        }
    }
}

#[test]
fn a_plan_says_where_inputs_are_rotated() {
    let rotated = QuantisationSettings { rotation: Rotation::Hadamard(7), ..Default::default() };
    let said = ONE.with_quantisation(rotated).with_rounding(SiteRounding::Nearest);
    let plan = PrecisionPlan::uniform(said).with_site("h.0.mlp.c_fc", said.with_rotation(Rotation::None));
    assert!(plan.is_explicit());
    let json = plan.to_json();
    assert!(json.contains("\"rotation\": \"hadamard:7\"") && json.contains("\"rotation\": \"none\""), "{json}");
    assert_eq!(PrecisionPlan::from_json(&json).unwrap(), plan);
}

#[test]
fn a_plan_of_version_1_leaves_quantisers_to_the_run() {
    let text = r#"{"version":1,"default":{"weights":4,"activations":32,"adapter":null}}"#;
    let plan = PrecisionPlan::from_json(text).unwrap();
    assert_eq!(plan, PrecisionPlan::uniform(SitePrecision::FULL.with_weights(BitWidth::B4)));
    assert!(!plan.is_explicit());
}

#[test]
fn the_documented_json_is_read() {
    let text = r#"{
        "version": 1,
        "default": { "weights": 32, "activations": 32, "adapter": null },
        "sites": { "h.0.mlp.c_fc": { "weights": 4, "activations": 8, "adapter": 4 } }
    }"#;
    let plan = PrecisionPlan::from_json(text).unwrap();
    assert_eq!(plan.default_precision(), SitePrecision::FULL);
    let fc = SitePrecision::uniform(BitWidth::B4).with_activations(BitWidth::B8);
    assert_eq!(plan.sites().collect::<Vec<_>>(), [("h.0.mlp.c_fc", fc)]);
}

#[test]
fn bad_json_is_an_error_that_says_what_is_wrong() {
    let full = r#"{"weights":32,"activations":32,"adapter":null}"#;
    let cases = [
        (String::new(), "EOF"),
        ("[]".into(), "invalid length 0"),
        (r#"{"version":1}"#.into(), "missing field `default`"),
        (format!(r#"{{"default":{full}}}"#), "missing field `version`"),
        (format!(r#"{{"version":3,"default":{full},"new":1}}"#), "plan version 3 is unknown, expected 1 to 2"),
        (
            r#"{"version":1,"default":{"weights":4,"activations":32,"quantizer":"per-channel"}}"#.into(),
            "field `quantizer` of a plan of version 1, expected version 2",
        ),
        (r#"{"version":2,"default":{"weights":4,"activations":32,"quantizer":"per-row"}}"#.into(), "`per-row`"),
        (r#"{"version":2,"default":{"weights":4,"activations":32,"placement":"beside"}}"#.into(), "`beside`"),
        (r#"{"version":2,"default":{"weights":4,"activations":32,"rounding":"up"}}"#.into(), "`up`"),
        (r#"{"version":2,"default":{"weights":4,"activations":32,"rotation":"haar"}}"#.into(), "`haar`"),
        (format!(r#"{{"version":1,"default":{full},"layers":{{}}}}"#), "unknown field `layers`"),
        (r#"{"version":1,"default":{"weights":4,"activations":32,"bits":4}}"#.into(), "unknown field `bits`"),
        (r#"{"version":1,"default":{"weights":24,"activations":32}}"#.into(), "bit-width 24"),
        (r#"{"version":1,"default":{"weights":4.5,"activations":32}}"#.into(), "4.5"),
        (format!(r#"{{"version":1,"default":{full}}} x"#), "invalid json: trailing"),
        (
            format!(r#"{{"version":1,"default":{full},"sites":{{"h.0.mlp.c_fc":{{"weights":7.5,"activations":8}}}}}}"#),
            "field `sites.h.0.mlp.c_fc.weights`: invalid type: floating point `7.5`",
        ),
        (
            format!(r#"{{"version":1,"default":{full},"sites":{{"h.0.mlp.c_fc":{full},"h.0.mlp.c_fc":{full}}}}}"#),
            "field `sites`: `h.0.mlp.c_fc` stands there twice",
        ),
        (
            format!(r#"{{"version":1,"default":{full},"kv_cache_blocks":{{"h.0":8,"h.0":4}}}}"#),
            "`h.0` stands there twice",
        ),
        (format!(r#"{{"version":1,"default":{full},"kv_cache":17}}"#), "bit-width 17"),
        (format!(r#"{{"version":1,"default":{full},"kv_cache":null}}"#), "null"),
        (format!(r#"{{"version":1,"default":{full},"kv_cache_blocks":{{"h.0":0}}}}"#), "bit-width 0"),
        (format!(r#"{{"version":1,"default":{full},"kv_cache_blocks":[4]}}"#), "expected a json object"),
        (
            format!(r#"{{"version":1,"default":{full},"span_head":8}}"#),
            "field `span_head` of a plan of version 1, expected version 2",
        ),
        (format!(r#"{{"version":2,"default":{full},"span_head":"8"}}"#), "expected `base` or a number of bits"),
        (format!(r#"{{"version":2,"default":{full},"span_head":24}}"#), "expected `base` or a number of bits"),
        (format!(r#"{{"version":2,"default":{full},"span_head":true}}"#), "expected `base` or a number of bits"),
    ];
    for (text, expected) in cases {
        let message = PrecisionPlan::from_json(&text).unwrap_err().to_string();
        assert!(message.contains(expected), "`{text}` gave `{message}`, not `{expected}`");
    }
}

#[test]
fn keys_and_values_have_the_bits_of_their_block_or_else_of_the_plan() {
    let text = r#"{
        "version": 1,
        "default": { "weights": 4, "activations": 8, "adapter": null },
        "kv_cache": 8,
        "kv_cache_blocks": { "h.1": 4 }
    }"#;
    let plan = PrecisionPlan::from_json(text).unwrap();
    let bits = ["h.0", "h.1", "h.11"].map(|block| plan.kv_cache(block).bits());
    assert_eq!(bits, [8, 4, 8], "a block is named in full");
    let set = PrecisionPlan::uniform(plan.default_precision());
    assert_eq!(set.with_kv_cache(BitWidth::B8).with_kv_cache_block("h.1", BitWidth::B4), plan);
}

#[test]
fn a_plan_that_says_nothing_of_keys_and_values_keeps_them_at_full_precision() {
    let text = r#"{"version":1,"default":{"weights":4,"activations":8,"adapter":null}}"#;
    let plan = PrecisionPlan::from_json(text).unwrap();
    assert_eq!(plan.kv_cache("h.0"), BitWidth::FULL);
    assert!(!plan.to_json().contains("kv_cache"), "{}", plan.to_json());
    assert_ne!(plan.clone().with_kv_cache(BitWidth::B8), plan);
}

#[test]
fn a_plan_says_its_span_head_or_leaves_it_to_the_model() {
    let plan = PrecisionPlan::uniform(ONE);
    assert_eq!(plan.span_head(), None);
    assert!(!plan.to_json().contains("span_head"), "{}", plan.to_json());
    for (head, text) in
        [(HeadChoice::Base, r#""span_head": "base""#), (HeadChoice::Width(BitWidth::B8), r#""span_head": 8"#)]
    {
        let said = plan.clone().with_span_head(Some(head));
        assert_ne!(said, plan);
        assert!(said.to_json().contains(text), "{}", said.to_json());
        assert_eq!(PrecisionPlan::from_json(&said.to_json()).unwrap(), said);
    }
}

#[test]
fn validation_names_the_block_whose_keys_and_values_it_refuses() {
    let plan = || PrecisionPlan::uniform(ONE).with_kv_cache(BitWidth::B8);
    let check = |plan: PrecisionPlan| plan.validate_kv_cache(["h.0", "h.1"], QuantSpec::PER_TOKEN);
    let message = |plan: PrecisionPlan| check(plan).unwrap_err().to_string();
    for name in ["h.2", "h", "h.1.attn", "h.1.attn.c_attn", ""] {
        assert_eq!(
            message(plan().with_kv_cache_block(name, BitWidth::B4)),
            format!("kv cache of unknown block `{name}`, expected `h.0`, `h.1`")
        );
    }
    let one_bit = message(plan().with_kv_cache_block("h.1", BitWidth::B1));
    assert!(one_bit.starts_with("kv cache of block `h.1`: "), "{one_bit}");
    for bits in BitWidth::quantised().skip(1).chain([BitWidth::FULL]) {
        check(plan().with_kv_cache_block("h.1", bits)).unwrap();
    }
}

#[test]
fn validation_names_what_covers_nothing() {
    let all = known(&[BitWidth::B2, BitWidth::B3, BitWidth::B4, BitWidth::B8]);
    let message = |plan: PrecisionPlan| plan.validate(all.clone()).unwrap_err().to_string();
    let plan = || PrecisionPlan::uniform(ONE);
    let blocks: Vec<String> = (0..12).map(|block| format!("`h.{block}`")).collect();
    let (blocks, modules) = (blocks.join(", "), "`attn.c_attn`, `attn.c_proj`, `mlp.c_fc`, `mlp.c_proj`");
    assert_eq!(
        message(plan().with_site("h.12.mlp.c_fc", TWO)),
        format!(
            "unknown site `h.12.mlp.c_fc`, expected a block ({blocks}) and a sub-module ({modules}) with a dot between"
        )
    );
    assert_eq!(message(plan().with_block("h.12", TWO)), format!("block `h.12` matches no site, expected {blocks}"));
    for name in ["mlp", "mlp.fc"] {
        assert_eq!(
            message(plan().with_sub_module(name, TWO)),
            format!("sub-module `{name}` matches no site, expected {modules}")
        );
    }
    let good = plan().with_site("h.11.mlp.c_fc", TWO).with_block("h.3", THREE).with_sub_module("mlp.c_fc", FOUR);
    good.validate(all).unwrap();
}

#[test]
fn validation_names_the_site_that_lacks_an_adapter() {
    let mut known = known(&[BitWidth::B4]);
    let plan = PrecisionPlan::uniform(THREE);
    plan.validate(known.clone()).unwrap();
    known[5].1 = vec![BitWidth::B2, BitWidth::B8];
    let message = plan.validate(known.clone()).unwrap_err().to_string();
    assert_eq!(message, "site `h.1.attn.c_proj`: no adapter for 4 bits, available: 2, 8");
    let without = plan.with_site("h.1.attn.c_proj", THREE.without_adapter());
    without.validate(known).unwrap();
}

#[test]
fn files_round_trip_and_errors_name_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plans/low.json");
    let plan = PrecisionPlan::uniform(ONE).with_block("h.3", TWO);
    plan.save(&path).unwrap();
    plan.with_block("h.4", TWO).save(&path).unwrap();
    assert_eq!(PrecisionPlan::load(&path).unwrap().get("h.4.mlp.c_fc"), TWO);
    let left: Vec<_> = fs::read_dir(dir.path().join("plans")).unwrap().collect();
    assert_eq!(left.len(), 1, "temporary files were left behind");

    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    for path in [path, dir.path().join("none.json")] {
        let message = PrecisionPlan::load(&path).unwrap_err().to_string();
        assert!(message.contains(&path.display().to_string()), "{message}");
    }
}

#[test]
fn a_save_that_fails_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plan.json");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("kept"), "x").unwrap();
    let message = PrecisionPlan::uniform(ONE).save(&path).unwrap_err().to_string();
    assert!(message.contains("plan.json"), "{message}");
    assert!(path.join("kept").is_file());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file was left behind");
}
