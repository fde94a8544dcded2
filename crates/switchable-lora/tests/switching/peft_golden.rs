//! Adapters that PEFT wrote, against what PEFT computes with them.
//!
//! `python tests/golden/peft/make_golden.py` makes the files anew.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{Tensor, TensorData};
use safetensors::SafeTensors;

use quant_kernels::spec::bit_width::BitWidth;
use switchable_lora::{
    adapter_pair::LoraAdapterPair,
    linear_settings::LinearSettings,
    peft::{PeftOptions, load::load_peft, save::save_peft},
    quantized_cache::QuantizedCache,
    site_precision::SitePrecision,
    switchable_linear::SwitchableLinear,
};

use crate::support::{Plain, assert_close, device, skip_without_device, values};

fn golden(name: &str) -> PathBuf {
    // Cargo says where the crate is now, which need not be where the tests were built.
    let at_build = || env!("CARGO_MANIFEST_DIR").into();
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(at_build, PathBuf::from);
    folder.join("tests/golden/peft").join(name)
}

fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = fs::read(path).expect("make_golden.py writes this file");
    let file = SafeTensors::deserialize(&bytes).expect("the file is valid");
    let floats = |data: &[u8]| data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    file.iter().map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), floats(view.data())))).collect()
}

fn loaded() -> BTreeMap<String, LoraAdapterPair<Plain>> {
    load_peft(golden("adapter"), "transformer.", &device()).expect("PEFT's own adapter loads")
}

fn save(pairs: &BTreeMap<String, LoraAdapterPair<Plain>>, folder: &Path) {
    let options = PeftOptions {
        prefix: "transformer.".into(),
        base_model: "gpt2".into(),
        task_type: Some("CAUSAL_LM".into()),
        ..Default::default()
    };
    save_peft(folder, pairs.iter().map(|(site, pair)| (site.as_str(), pair)), &options)
        .expect("the folder is writable");
}

#[test]
fn every_site_computes_what_peft_does() {
    skip_without_device!();
    let expected = tensors(&golden("expected.safetensors"));
    let tensor = |site: &str, name: &str| {
        let (shape, values) = expected[&format!("{site}.{name}")].clone();
        TensorData::new(values, shape)
    };
    let device = device();
    let pairs = loaded();
    assert_eq!(pairs.len(), 8);
    for (site, pair) in pairs {
        let weight = Tensor::<Plain, 2>::from_data(tensor(&site, "weight"), &device);
        let bias = Tensor::from_data(tensor(&site, "bias"), &device);
        let settings = LinearSettings::default();
        let mut layer = SwitchableLinear::new(weight, Some(bias), settings, &QuantizedCache::disabled());
        layer.insert_adapter(BitWidth::FULL, pair).unwrap();
        let x = Tensor::<Plain, 2>::from_data(tensor(&site, "x"), &device);
        let y = layer.forward(x, &SitePrecision::uniform(BitWidth::FULL));
        assert_close(&values(&y), &expected[&format!("{site}.y")].1, 1e-6, &site);
    }
}

#[test]
fn sites_keep_the_ranks_and_alphas_of_peft() {
    skip_without_device!();
    for (site, pair) in loaded() {
        let expected = match site.as_str() {
            "h.1.mlp.c_fc" => (2, 6.0),
            "h.0.attn.c_attn" => (3, 1.5),
            _ => (3, 6.0),
        };
        assert_eq!((pair.rank(), pair.alpha()), expected, "{site}");
    }
}

/// Leaves the folder that `make_golden.py --check` loads into PEFT.
#[test]
fn what_peft_wrote_is_written_again_under_the_same_names() {
    skip_without_device!();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peft-check");
    save(&loaded(), &folder);
    let ours = tensors(&folder.join("adapter_model.safetensors"));
    assert_eq!(ours, tensors(&golden("adapter/adapter_model.safetensors")));
}
