//! Adapter folders and learned steps.

use burn::backend::Flex;
use gpt2_model::{Gpt2, Gpt2Config};
use quant_kernels::BitWidth;
use switchable_lora::{LoraConfig, SitePrecision};
use switchable_model::adapters::AdapterFolders;
use switchable_model::model::SwitchableModel;
use switchable_model::model_weights::ModelWeights;
use switchable_model::options::ModelOptions;
use switchable_model::span_head::ForQuestionAnswering;

use crate::frame::{safetensors, sections};
use crate::scratch::with_files;
use crate::targets::models::run;

/// The width of the adapters of [`tiny_model`].
pub const TINY_WIDTH: BitWidth = BitWidth::B4;

thread_local! {
    static MODEL: Gpt2<Flex> = tiny_model();
}

/// A GPT-2 of one block and four dimensions with an adapter on every site.
///
/// # Panics
///
/// Never: its numbers fit together.
pub fn tiny_model() -> Gpt2<Flex> {
    let config = Gpt2Config::new(3, 4, 4, 1, 2);
    let mut model = Gpt2::random(&config, &ModelOptions::default(), 1, &Default::default()).expect("a model");
    let lora = LoraConfig::new(2, 4.0).expect("a rank and an alpha");
    model.init_adapters(TINY_WIDTH, &lora, 1).expect("adapters");
    model
}

/// `adapter_config.json`, header, header of the learned steps, what it was trained for, data of both.
pub fn adapter_folder(input: &[u8]) {
    let [config, header, steps_header, trained_for, data] = sections(input);
    let weights = safetensors(header, data);
    let steps = safetensors(steps_header, data);
    let mut files = vec![("adapter_config.json", config), ("adapter_model.safetensors", weights.as_slice())];
    if !steps_header.is_empty() {
        files.push(("learned_steps.safetensors", &steps));
    }
    if !trained_for.is_empty() {
        files.push(("switchable_quant.json", trained_for));
    }
    with_files(&files, |dir| {
        let mut model = MODEL.with(Clone::clone);
        if model.load_adapter(dir, TINY_WIDTH).is_ok() {
            answer(model);
        }
    });
}

/// Header, data: the learned steps of the adapters of [`tiny_model`].
pub fn learned_steps(input: &[u8]) {
    let [header, data] = sections(input);
    let mut model = MODEL.with(Clone::clone);
    if model.parse_learned_steps("learned_steps.safetensors", &safetensors(header, data), TINY_WIDTH).is_ok() {
        answer(model);
    }
}

fn answer(model: Gpt2<Flex>) {
    let plan = model.uniform_plan(SitePrecision::uniform(TINY_WIDTH));
    run(&ForQuestionAnswering::with_random_head(model, 0, &Default::default()), &plan);
}
