//! Weights that a folder holds as int8 codes with a scale for each row.

use std::collections::BTreeMap;

use safetensors::Dtype;

use gpt2_model::{Gpt2, ModelOptions, ModelWeights as _, SwitchableModel as _};

use crate::support::{Folder, Plain, StoredTensor, device, skip_without_device};

const WEIGHTS: &str = "model.safetensors";

fn floats(tensor: &StoredTensor) -> Vec<f32> {
    let (chunks, _) = tensor.bytes.as_chunks::<4>();
    chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The golden model with every matrix as codes, and what the codes stand for.
fn stored() -> (Folder, BTreeMap<String, Vec<f32>>) {
    let folder = Folder::copy_of("tiny");
    let mut meant = BTreeMap::new();
    folder.edit_tensors(WEIGHTS, |tensors| {
        let matrices: Vec<String> =
            tensors.iter().filter(|(_, tensor)| tensor.shape.len() == 2).map(|(name, _)| name.clone()).collect();
        for name in matrices {
            let matrix = tensors.remove(&name).expect("it is there");
            let (values, columns) = (floats(&matrix), matrix.shape[1]);
            let (mut codes, mut scales, mut back) = (Vec::new(), Vec::new(), Vec::new());
            for row in values.chunks(columns) {
                let scale = row.iter().fold(0.0f32, |most, value| most.max(value.abs())) / 127.0;
                let row: Vec<i8> = row.iter().map(|value| (value / scale).round() as i8).collect();
                back.extend(row.iter().map(|&code| f32::from(code) * scale));
                codes.extend(row.iter().map(|code| code.to_le_bytes()[0]));
                scales.extend(scale.to_le_bytes());
            }
            meant.insert(name.clone(), back);
            let rows = matrix.shape[0];
            tensors
                .insert(format!("{name}.scale"), StoredTensor { dtype: Dtype::F32, shape: vec![rows], bytes: scales });
            tensors.insert(name, StoredTensor { dtype: Dtype::I8, shape: matrix.shape, bytes: codes });
        }
    });
    (folder, meant)
}

fn load(folder: &Folder) -> gpt2_model::Result<Gpt2<Plain>> {
    Gpt2::load(folder.path(), &ModelOptions::default(), &device())
}

#[test]
fn codes_are_read_as_the_floats_that_they_stand_for() {
    skip_without_device!();
    let (folder, meant) = stored();
    let model = load(&folder).unwrap();
    let parameters = model.named_parameters();
    let mut compared = 0;
    for (name, parameter) in parameters {
        if let Some((_, values)) = meant.iter().find(|(stored, _)| stored.ends_with(name.as_str())) {
            assert_eq!(&parameter.values(), values, "{name}");
            compared += 1;
        }
    }
    assert_eq!(compared, meant.len(), "{:?}", meant.keys());
}

#[test]
fn codes_without_scales_that_fit_are_refused_by_name() {
    skip_without_device!();
    let name = "transformer.h.1.mlp.c_fc.weight";
    let scale = format!("{name}.scale");
    let refused = |edit: &dyn Fn(&mut BTreeMap<String, StoredTensor>), words: &[&str]| {
        let (folder, _) = stored();
        folder.edit_tensors(WEIGHTS, |tensors| edit(tensors));
        let message = load(&folder).map(|_| ()).expect_err("it is damaged").to_string();
        for word in [WEIGHTS].iter().chain(words) {
            assert!(message.contains(word), "`{word}` is not in: {message}");
        }
    };
    refused(&|tensors| drop(tensors.remove(&scale)), &[&scale, "missing"]);
    refused(
        &|tensors| _ = tensors.get_mut(&scale).unwrap().bytes.splice(..4, f32::NAN.to_le_bytes()),
        &[&scale, "NaN"],
    );
    refused(
        &|tensors| {
            let one = StoredTensor { dtype: Dtype::F32, shape: vec![1], bytes: 1.0f32.to_le_bytes().to_vec() };
            tensors.insert(scale.clone(), one);
        },
        &[&scale, "shape"],
    );
    refused(
        &|tensors| {
            let rows = tensors[&scale].shape[0];
            let codes = StoredTensor { dtype: Dtype::I8, shape: vec![rows], bytes: vec![1; rows] };
            tensors.insert(scale.clone(), codes);
        },
        &[&scale, "I8"],
    );
    // A scale of something that is no code belongs to nothing.
    refused(
        &|tensors| {
            let one = StoredTensor { dtype: Dtype::F32, shape: vec![1], bytes: vec![0; 4] };
            tensors.insert("transformer.ln_f.weight.scale".into(), one);
        },
        &["ln_f.weight.scale"],
    );
}
