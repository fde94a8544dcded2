//! Writes the seeds that are files of the crates themselves; the others are written by hand.
//!
//! ```text
//! cargo run --no-default-features --example make_seeds
//! ```

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use burn::backend::Flex;
use burn::tensor::Tensor;
use experiments::running::memory::Memory;
use gpt2_model::Gpt2;
use llama_model::{Llama, LlamaConfig};
use quant_kernels::{BitWidth, Granularity, LearnedStep};
use serde_json::{Value, json};
use squad_data::{BpeConfig, TextTokenizer};
use switchable_lora::{PrecisionPlan, SitePrecision};
use switchable_model::adapters::AdapterFolders;
use switchable_model::model::SwitchableModel;
use switchable_model::model_weights::ModelWeights;
use switchable_model::options::ModelOptions;
use switchable_model::packed::form::{PackOptions, PackedForm};
use switchable_model::span_head::ForQuestionAnswering;
use switchable_quant_fuzz::{SEPARATOR, TINY_WIDTH, tiny_model};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Every field of generation that is read, and some that are not.
const GENERATION: &str = r#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.1,
"max_new_tokens": 7, "max_length": 9, "eos_token_id": [5, 6], "num_beams": 1, "suppress_tokens": []}"#;

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let device = Default::default();
    let bare = ForQuestionAnswering::with_random_head(without_adapters(tiny_model())?, 0, &device);

    export(&bare, &dir.path().join("gpt2"))?;
    let [config, weights] = files(&dir.path().join("gpt2"), ["config.json", "model.safetensors"])?;
    seed("config_json", "gpt2", &[&config])?;
    seed("config_json", "generation", &[GENERATION.as_bytes()])?;
    let [header, data] = split(&weights);
    seed("gpt2_folder", "span", &[&config, header, &data])?;
    bare.transformer.export(dir.path().join("lm"))?;
    let [config, weights] = files(&dir.path().join("lm"), ["config.json", "model.safetensors"])?;
    let [header, data] = split(&weights);
    seed("gpt2_folder", "language-model", &[&config, header, &data])?;
    seed("weight_index", "two-shards", &shards(header)?.each_ref().map(Vec::as_slice))?;

    let config = LlamaConfig { num_key_value_heads: 1, max_position_embeddings: 8, ..LlamaConfig::new(3, 4, 1, 2) };
    let config = LlamaConfig { intermediate_size: 4, ..config };
    let llama = Llama::<Flex>::random(&config, &ModelOptions::default(), 1, &device)?;
    export(&ForQuestionAnswering::with_random_head(llama, 0, &device), &dir.path().join("llama"))?;
    let [config, weights] = files(&dir.path().join("llama"), ["config.json", "model.safetensors"])?;
    seed("config_json", "llama", &[&config])?;
    let [header, data] = split(&weights);
    seed("llama_folder", "span", &[&config, header, &data])?;

    let plan = bare.transformer.uniform_plan(SitePrecision::uniform(BitWidth::B3).without_adapter());
    let options = PackOptions { embeddings: Some(BitWidth::B4), ..PackOptions::default() };
    for (name, form) in [("fixed", PackedForm::Plan(&plan)), ("nested", PackedForm::Nested)] {
        bare.save_packed(dir.path().join(name), form, &options)?;
        let [config, weights] = files(&dir.path().join(name), ["config.json", "packed.safetensors"])?;
        let [header, data] = split(&weights);
        seed("packed_file", name, &[header, &data])?;
        seed("packed_folder", name, &[&config, header, &data])?;
    }
    let plan: PrecisionPlan = plan.to_precision_plan();
    seed("plan_json", "uniform", &[plan.to_json().as_bytes()])?;
    let mixed = PrecisionPlan::uniform(SitePrecision::uniform(BitWidth::B8).without_adapter())
        .with_site("h.0.mlp.c_fc", SitePrecision::uniform(TINY_WIDTH))
        .with_sub_module("attn.c_attn", SitePrecision::uniform(TINY_WIDTH).without_adapter())
        .with_kv_cache(BitWidth::B8);
    seed("plan_json", "mixed", &[mixed.to_json().as_bytes()])?;

    let mut model = tiny_model();
    let folder = dir.path().join("adapters");
    let bits = format!("bits-{TINY_WIDTH}");
    model.save_adapters(&folder, "gpt2")?;
    let [config, weights] = files(&folder.join(&bits), ["adapter_config.json", "adapter_model.safetensors"])?;
    let [header, data] = split(&weights);
    seed("adapter_folder", "plain", &[&config, header, b"", b"", data])?;
    give_steps(&mut model)?;
    model.save_adapters(&folder, "gpt2")?;
    let [steps, trained_for] = files(&folder.join(&bits), ["learned_steps.safetensors", "switchable_quant.json"])?;
    let [steps_header, steps] = split(&steps);
    seed("adapter_folder", "steps", &[&config, header, steps_header, &trained_for, steps])?;
    seed("learned_steps", "per-tensor", &[steps_header, &steps])?;

    let memory = Memory::folder(dir.path().join("parts"), json!({ "model": "a" }));
    let options = json!({ "seed": 1 });
    memory.recall("list", &options, || Ok(vec![0.1, 1e300]))?;
    memory.recall("accuracy", &options, || Ok(accuracy()))?;
    for name in ["list", "accuracy"] {
        let [part] = files(&dir.path().join("parts"), [&format!("{name}.json")])?;
        seed("stage_part", &format!("{name}.json"), &[&part])?;
    }

    let texts = ["Ada keeps a crab.", "Ada keeps a crow."];
    let tokenizer = TextTokenizer::train_bpe(texts, &BpeConfig { vocab_size: 264, ..BpeConfig::default() })?;
    seed("tokenizer_json", "byte-level", &[tokenizer.to_json().as_bytes()])
}

fn accuracy() -> Value {
    let interval = json!({ "low": 1.0, "high": 99.0 });
    json!({
        "exact_match": 50.0, "exact_match_interval": interval, "f1": 50.0, "f1_interval": interval, "loss": 0.1,
        "divergence": null, "n": 2,
    })
}

fn without_adapters(model: Gpt2<Flex>) -> Result<Gpt2<Flex>> {
    Ok(Gpt2::random(model.config(), &ModelOptions::default(), 1, &Default::default())?)
}

fn export<M: SwitchableModel<Flex>>(model: &ForQuestionAnswering<Flex, M>, dir: &Path) -> Result<()> {
    Ok(model.export(dir)?)
}

fn give_steps(model: &mut Gpt2<Flex>) -> Result<()> {
    let sites: Vec<_> = model.sites().iter().collect();
    for site in sites {
        let layer = model.site_mut(site);
        let pair = layer.bank().get(TINY_WIDTH).ok_or("an adapter")?.clone();
        let step = Tensor::from_floats([[0.25]], &Default::default());
        layer.insert_adapter(
            TINY_WIDTH,
            pair.with_step(LearnedStep::from_steps(step, TINY_WIDTH, Granularity::PerTensor)?),
        )?;
    }
    Ok(())
}

fn files<const N: usize>(dir: &Path, names: [&str; N]) -> Result<[Vec<u8>; N]> {
    let mut files = [const { Vec::new() }; N];
    for (file, name) in files.iter_mut().zip(names) {
        *file = fs::read(dir.join(name))?;
    }
    Ok(files)
}

/// Header and data of a safetensors file. The data are few enough to be repeated without a change.
fn split(file: &[u8]) -> [&[u8]; 2] {
    let (length, rest) = file.split_first_chunk::<8>().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    [header, data]
}

/// An index, and the header cut into two of half of the tensors each.
fn shards(header: &[u8]) -> Result<[Vec<u8>; 4]> {
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header)?;
    let mut shards = [serde_json::Map::new(), serde_json::Map::new()];
    let mut ends = [0; 2];
    let mut index = serde_json::Map::new();
    for (number, (name, tensor)) in header.iter().filter(|(name, _)| *name != "__metadata__").enumerate() {
        let (which, mut tensor) = (number % 2, tensor.clone());
        let offsets = tensor["data_offsets"].as_array().ok_or("offsets")?;
        let length = offsets[1].as_u64().ok_or("an end")? - offsets[0].as_u64().ok_or("a start")?;
        tensor["data_offsets"] = json!([ends[which], ends[which] + length]);
        ends[which] += length;
        shards[which].insert(name.clone(), tensor);
        index.insert(name.clone(), format!("{}.safetensors", which + 1).into());
    }
    let [first, second] = shards.map(|shard| Value::Object(shard).to_string().into_bytes());
    let index = json!({ "weight_map": index }).to_string().into_bytes();
    Ok([index, first, second, 0.5_f32.to_le_bytes().to_vec()])
}

fn seed(target: &str, name: &str, sections: &[&[u8]]) -> Result<()> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target).join(name);
    fs::create_dir_all(path.parent().expect("a folder"))?;
    Ok(fs::write(path, sections.join(&SEPARATOR))?)
}
