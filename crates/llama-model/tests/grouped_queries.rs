//! Keys and values that several query heads share.

use serde_json::json;

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_model::model::SwitchableModel as _;
use switchable_model::model_weights::ModelWeights as _;
use switchable_model::options::ModelOptions;

use crate::support::{Fixture, Folder, assert_close, full, load, on_every_backend, values};

on_every_backend!(shared_heads_are_the_same_as_repeated_ones,);

/// The golden model with a key and value head for every query head, those of one group alike.
fn repeated() -> Folder {
    let folder = Folder::copy_of("tiny");
    folder.edit_json("config.json", |config| config["num_key_value_heads"] = json!(4));
    folder.edit_tensors("model.safetensors", |tensors| {
        for (name, tensor) in tensors.iter_mut() {
            if name.contains("k_proj") || name.contains("v_proj") {
                assert_eq!(tensor.shape, [12, 24], "{name}: two heads of six rows");
                tensor.shape = vec![24, 24];
                let head = tensor.bytes.len() / 2;
                tensor.bytes = tensor.bytes.chunks(head).flat_map(|head| [head, head].concat()).collect();
            }
        }
    });
    folder
}

fn shared_heads_are_the_same_as_repeated_ones<B: QuantBackend>() {
    let (folder, fixture) = (repeated(), Fixture::open("tiny"));
    let device = B::Device::default();
    let all = llama_model::Llama::<B>::load(folder.path(), &ModelOptions::default(), &device).expect("it loads");
    let shared = load::<B>("tiny");
    assert_eq!((all.shape().kv_heads, shared.shape().kv_heads), (4, 2));
    for mask in [None, Some("left_padded_attention_mask")] {
        let padding = mask.map(|mask| fixture.padding::<B>(mask));
        let ids = fixture.batch::<B>("left_padded_input_ids");
        let [got, want] =
            [&shared, &all].map(|model| values(model.forward(ids.clone(), padding.as_ref(), &full(model))));
        assert_close(&format!("{mask:?}"), &got, &want, 1e-5);
    }
}
