//! Model folders of both families.

use std::path::Path;

use burn::backend::Flex;
use burn::tensor::{Int, Tensor, TensorData};
use gpt2_model::{Gpt2, Gpt2Config};
use llama_model::{Llama, LlamaConfig};
use quant_kernels::BitWidth;
use serde_json::Value;
use span_reader::model_folder::open_tokenizer;
use switchable_lora::SitePrecision;
use switchable_model::config::ModelConfig;
use switchable_model::generate::GenerateOptions;
use switchable_model::model::SwitchableModel;
use switchable_model::options::ModelOptions;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::{ForQuestionAnswering, MissingHead};

use crate::frame::{safetensors, sections};
use crate::scratch::with_files;

/// `config.json`, header, data: a GPT-2, and what it says of two tokens.
pub fn gpt2_folder(input: &[u8]) {
    model_folder::<Gpt2<Flex>>(input);
}

/// `config.json`, header, data: a Llama, and what it says of two tokens.
pub fn llama_folder(input: &[u8]) {
    model_folder::<Llama<Flex>>(input);
}

/// A GGUF file of either family with its tokenizer: a text through the one, two tokens through the other.
pub fn gguf_file(input: &[u8]) {
    with_files(&[("model.gguf", input)], |dir| {
        let file = dir.join("model.gguf");
        if let Ok(tokenizer) = open_tokenizer(&file) {
            _ = tokenizer.encode("Ada keeps 12 crabs.");
        }
        _ = GenerateOptions::of_folder(&file);
        gguf_model::<Gpt2<Flex>>(&file);
        gguf_model::<Llama<Flex>>(&file);
    });
}

fn gguf_model<M: SwitchableModel<Flex>>(file: &Path) {
    let (options, head) = (ModelOptions::default(), MissingHead::Random(0));
    if let Ok(model) = ForQuestionAnswering::<Flex, M>::load(file, &options, head, &Default::default()) {
        let full = SitePrecision::uniform(BitWidth::FULL).without_adapter();
        run(&model, &model.transformer.uniform_plan(full));
    }
}

fn model_folder<M: SwitchableModel<Flex>>(input: &[u8]) {
    let [config, header, data] = sections(input);
    let weights = safetensors(header, data);
    with_files(&[("config.json", config), ("model.safetensors", &weights)], |dir| {
        let options = ModelOptions::default();
        let head = MissingHead::Random(0);
        if let Ok(model) = ForQuestionAnswering::<Flex, M>::load(dir, &options, head, &Default::default()) {
            let full = SitePrecision::uniform(BitWidth::FULL).without_adapter();
            run(&model, &model.transformer.uniform_plan(full));
            let four = SitePrecision::uniform(BitWidth::B4).without_adapter();
            run(&model, &model.transformer.uniform_plan(four));
        }
    });
}

/// Scores of the first and the last token of the vocabulary.
pub(crate) fn run<M: SwitchableModel<Flex>>(model: &ForQuestionAnswering<Flex, M>, plan: &SitePlan) {
    let shape = model.transformer.shape();
    let tokens = shape.positions.min(2);
    let ids = [0, shape.vocabulary as i32 - 1][..tokens].to_vec();
    let ids = Tensor::<Flex, 2, Int>::from_data(TensorData::new(ids, [1, tokens]), &Default::default());
    let hidden = model.transformer.forward(ids.clone(), None, plan);
    assert_eq!(model.transformer.next_token_scores(hidden, plan).dims(), [1, tokens, shape.vocabulary]);
    model.forward(ids, None, plan);
}

/// Index, header, header, data: the shards of a GPT-2 of one block and four dimensions.
pub fn weight_index(input: &[u8]) {
    let [index, first, second, data] = sections(input);
    let config = Gpt2Config::new(3, 4, 4, 1, 2).to_json(Gpt2Config::LANGUAGE_MODEL).to_string();
    let files = [
        ("config.json", config.as_bytes()),
        ("model.safetensors.index.json", index),
        ("1.safetensors", &safetensors(first, data)),
        ("2.safetensors", &safetensors(second, data)),
    ];
    with_files(&files, |dir| {
        let options = ModelOptions::default();
        let head = MissingHead::Random(0);
        _ = ForQuestionAnswering::<Flex, Gpt2<Flex>>::load(dir, &options, head, &Default::default());
    });
}

/// A `config.json` of either family, one that is read is written and read back the same; and what it says of
/// generation, as a `generation_config.json` does.
pub fn config_json(input: &[u8]) {
    with_files(&[("generation_config.json", input)], |dir| {
        if let Ok(options) = GenerateOptions::of_folder(dir) {
            options.check(1 << 32).expect("what is read is in its range");
        }
    });
    if let Ok(json) = serde_json::from_slice(input) {
        check_config::<Gpt2Config>(&json);
        check_config::<LlamaConfig>(&json);
    }
}

fn check_config<C: ModelConfig>(json: &Value) {
    let path = Path::new("config.json");
    let Ok(config) = C::from_json(json, path) else { return };
    config.shape();
    config.parameters();
    config.site_parameters();
    let again = C::from_json(&config.to_json(C::LANGUAGE_MODEL), path).expect("what is written is read");
    assert_eq!(again, config);
}
