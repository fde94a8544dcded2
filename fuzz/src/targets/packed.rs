//! Files and folders of packed weights.

use burn::backend::Flex;
use gpt2_model::Gpt2;
use quant_kernels::{BitWidth, PackedFile, Product};
use switchable_model::options::ModelOptions;
use switchable_model::span_head::{ForQuestionAnswering, MissingHead};

use crate::frame::{safetensors, sections};
use crate::scratch::with_files;
use crate::targets::models::run;

/// Header, data: each packed tensor decoded and multiplied with, and each plain one read.
pub fn packed_file(input: &[u8]) {
    let [header, data] = sections(input);
    let file = safetensors(header, data);
    with_files(&[("packed.safetensors", &file)], |dir| {
        let Ok(file) = PackedFile::open(dir.join("packed.safetensors")) else { return };
        for name in file.plain_names() {
            let tensor = file.plain(name).expect("it is listed");
            assert_eq!(tensor.to_f32().len(), tensor.shape().iter().product::<usize>());
        }
        for name in file.packed_names() {
            let tensor = file.packed(name).expect("it is listed");
            let [rows, columns] = tensor.shape();
            assert_eq!(tensor.dequantize().len(), rows * columns);
            _ = tensor.matmul(&vec![1.0; rows], 1, &Product::default());
            if let Ok(nested) = file.nested(name) {
                _ = nested.dequantize(BitWidth::B4);
                _ = nested.matmul(&vec![1.0; rows], 1, BitWidth::B3, &Product::default());
            }
        }
    });
}

/// `config.json`, header, data: a GPT-2 of codes under its own plan.
pub fn packed_folder(input: &[u8]) {
    let [config, header, data] = sections(input);
    let packed = safetensors(header, data);
    with_files(&[("config.json", config), ("packed.safetensors", &packed)], |dir| {
        let device = Default::default();
        let options = ModelOptions::default();
        if let Ok((model, plan)) =
            ForQuestionAnswering::<Flex, Gpt2<Flex>>::load_packed(dir, &options, MissingHead::Refuse, &device)
        {
            // Its adapters are in a folder of their own, which is not there.
            run(&model, &plan.without_adapters());
        }
    });
}
