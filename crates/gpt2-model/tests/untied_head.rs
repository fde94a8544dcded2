//! An output matrix that is not the token embedding.

use burn::module::{AutodiffModule as _, Module as _};
use burn::optim::{GradientsParams, Optimizer as _, SgdConfig};
use burn::record::{FullPrecisionSettings, NamedMpkBytesRecorder, Recorder};
use burn::tensor::Tensor;

use gpt2_model::{
    BitWidth, Generate, GenerateOptions, Gpt2, Gpt2Config, Gpt2ForQuestionAnswering, LinearSettings, MissingHead,
    ModelConfig, ModelOptions, ModelWeights, PackModel, PackOptions, PackedForm, QuantBackend, SitePrecision,
    SwitchableModel, next_token_loss,
};
use quant_kernels::packed::scales::ScaleFormat;
use switchable_lora::linear_settings::BasePolicy;

use crate::support::{
    Fixture, Folder, Plain, StoredTensor, Train, device, full, golden, load, skip_without_device, values,
};

/// The golden folder with an output matrix of its own, the rows of the embedding in reverse; what
/// `config.json` says of tying is as given.
fn untied_folder(tie: Option<bool>) -> Folder {
    let folder = Folder::copy_of("tiny");
    folder.edit_tensors("model.safetensors", |tensors| {
        let StoredTensor { dtype, shape, bytes } = tensors["transformer.wte.weight"].clone();
        let row = bytes.len() / shape[0];
        let bytes = bytes.chunks(row).rev().flatten().copied().collect();
        tensors.insert("lm_head.weight".into(), StoredTensor { dtype, shape, bytes });
    });
    folder.edit_json("config.json", |config| match tie {
        Some(tie) => config["tie_word_embeddings"] = tie.into(),
        None => drop(config.as_object_mut().expect("an object").remove("tie_word_embeddings")),
    });
    folder
}

fn open<B: QuantBackend>(folder: &Folder) -> Gpt2<B> {
    Gpt2::load(folder.path(), &ModelOptions::default(), &B::Device::default()).expect("it loads")
}

/// Scores of the fixture's tokens, `[batch, tokens, vocabulary]`.
fn scores<B: QuantBackend>(model: &Gpt2<B>) -> Tensor<B, 3> {
    model.next_token_scores(model.forward(Fixture::open("tiny").batch("input_ids"), None, &full(model)), &full(model))
}

fn relative_error(got: &[f32], expected: &[f32]) -> f32 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut got.iter().zip(expected).map(|(got, expected)| got - expected)) / norm(&mut expected.iter().copied())
}

/// The scores of the tied model, its tokens in reverse: what the folders above must give.
fn expected() -> Vec<f32> {
    values(scores(&load::<Plain>("tiny")).flip([2]))
}

#[test]
fn an_output_matrix_of_its_own_is_read_and_used() {
    skip_without_device!();
    for tie in [None, Some(true), Some(false)] {
        let model = open::<Plain>(&untied_folder(tie));
        assert_eq!(values(scores(&model)), expected(), "{tie:?}");
        assert!(!model.config().tie_word_embeddings, "{tie:?}");
        let tied = load::<Plain>("tiny");
        let d = tied.config().n_embd * tied.config().vocab_size;
        assert_eq!(model.config().parameters(), tied.config().parameters() + d);
        let options = GenerateOptions::default();
        let [got, other] = [&model, &tied].map(|model| model.generate(&[5, 6, 7], &options, &full(model)).unwrap());
        assert_ne!(got, other, "{tie:?}");
    }
}

#[test]
fn an_output_matrix_that_equals_the_embedding_is_tied() {
    skip_without_device!();
    let folder = Folder::copy_of("tiny");
    folder.edit_tensors("model.safetensors", |tensors| {
        let embedding = tensors["transformer.wte.weight"].clone();
        tensors.insert("lm_head.weight".into(), embedding);
    });
    let (model, tied) = (open::<Plain>(&folder), load::<Plain>("tiny"));
    assert!(model.config().tie_word_embeddings);
    assert_eq!(model.num_params(), tied.num_params());
}

#[test]
fn a_folder_that_promises_an_output_matrix_must_hold_one() {
    skip_without_device!();
    let folder = Folder::copy_of("tiny");
    folder.edit_json("config.json", |config| config["tie_word_embeddings"] = false.into());
    let loaded = Gpt2::<Plain>::load(folder.path(), &ModelOptions::default(), &device());
    let message = loaded.map(|_| ()).expect_err("it is not there").to_string();
    assert!(message.contains("lm_head.weight"), "{message}");
    // A span head takes its place.
    let folder = Folder::copy_of("tiny_qa");
    folder.edit_json("config.json", |config| config["tie_word_embeddings"] = false.into());
    let (options, refuse) = (ModelOptions::default(), MissingHead::Refuse);
    Gpt2ForQuestionAnswering::<Plain>::load(folder.path(), &options, refuse, &device()).expect("it has no output");
}

#[test]
fn an_output_matrix_of_its_own_is_exported_packed_and_recorded() {
    skip_without_device!();
    let (model, expected) = (open::<Plain>(&untied_folder(None)), expected());
    let folder = Folder::empty();
    model.export(folder.path()).expect("it exports");
    assert_eq!(values(scores(&open::<Plain>(&folder))), expected);

    let plan = full(&model);
    let form = PackedForm::Plan(&plan);
    for bits in [None, Some(BitWidth::B8)] {
        let pack = PackOptions { embeddings: bits, scale_format: ScaleFormat::F32, ..PackOptions::default() };
        let folder = Folder::empty();
        model.save_packed(folder.path(), form, &pack).expect("it packs");
        let (packed, _) =
            Gpt2::<Plain>::load_packed(folder.path(), &ModelOptions::default(), &device()).expect("loads");
        let got = values(scores(&packed));
        assert!(relative_error(&got, &expected) < 2e-2, "{bits:?}");
        assert_eq!(got == expected, bits.is_none(), "{bits:?}");
        assert_eq!(values(scores(&model.clone().pack(form, &pack).expect("it packs"))), got, "{bits:?}");
        let folder = Folder::empty();
        packed.export(folder.path()).expect("it exports");
        assert!(relative_error(&values(scores(&open::<Plain>(&folder))), &got) < 1e-5, "{bits:?}");
    }

    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::new();
    let bytes = Recorder::<Plain>::record(&recorder, model.clone().into_record(), ()).expect("a record");
    let config = model.config().clone();
    let other = Gpt2::<Plain>::random(&config, &ModelOptions::default(), 3, &device()).expect("a model");
    let loaded = other.load_record(recorder.load(bytes, &device()).expect("it is whole"));
    assert_eq!(values(scores(&loaded)), expected);
}

#[test]
#[should_panic(expected = "record of a model with an output matrix of its own")]
fn a_record_with_another_kind_of_head_is_refused() {
    let record = open::<Plain>(&untied_folder(None)).into_record();
    let _ = load::<Plain>("tiny").load_record(record);
}

#[test]
fn an_output_matrix_of_its_own_is_trained() {
    skip_without_device!();
    let linear = LinearSettings { base: BasePolicy::Trainable, ..Default::default() };
    let options = ModelOptions { linear, ..Default::default() };
    let folder = untied_folder(None);
    let model = Gpt2::<Train>::load(folder.path(), &options, &device()).expect("it loads");
    let ids = Fixture::open("tiny").batch::<Train>("input_ids");
    let loss = |model: &Gpt2<Train>| next_token_loss(scores(model), ids.clone(), None);
    let before = loss(&model);
    let gradients = before.backward();
    for (name, parameter) in model.named_parameters() {
        assert!(parameter.gradient(&gradients).is_some(), "{name} has no gradient");
    }
    let matrix = values(model.valid().output_matrix());
    let gradients = GradientsParams::from_grads(gradients, &model);
    let trained = SgdConfig::new().init().step(0.05, model, gradients);
    assert_ne!(values(trained.valid().output_matrix()), matrix);
    assert!(values(loss(&trained)) < values(before));
}

#[test]
fn random_models_have_the_head_that_their_configuration_says() {
    skip_without_device!();
    let tied = Gpt2Config::new(97, 32, 20, 2, 4);
    let untied = Gpt2Config { tie_word_embeddings: false, ..tied.clone() };
    for config in [tied, untied] {
        let model = Gpt2::<Plain>::random(&config, &ModelOptions::default(), 1, &device()).expect("a model");
        assert_eq!(model.num_params(), config.parameters());
        let same = values(model.output_matrix()) == values(model.token_embedding());
        assert_eq!(same, config.tie_word_embeddings);
        let plan = model.uniform_plan(SitePrecision::FULL);
        model.check_plan(&plan).expect("it runs");
    }
}

/// A record as version 0.1.0 wrote it, which knew no output matrix.
#[test]
fn a_record_of_an_earlier_version_is_that_of_a_tied_model() {
    skip_without_device!();
    let config = Gpt2Config::new(11, 8, 4, 1, 2);
    let random = |config: &Gpt2Config, seed| {
        Gpt2::<Plain>::random(config, &ModelOptions::default(), seed, &device()).expect("a model")
    };
    let load = |model: Gpt2<Plain>| {
        let bytes = std::fs::read(golden("records/gpt2_0_1_0.mpk")).expect("a golden file");
        let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::new();
        model.load_record(recorder.load(bytes, &device()).expect("it is readable"))
    };
    let (loaded, expected) = (load(random(&config, 6)), random(&config, 5));
    for ((name, got), (_, expected)) in loaded.named_parameters().iter().zip(expected.named_parameters()) {
        assert_eq!(got.values(), expected.values(), "{name}");
    }
    let untied = random(&Gpt2Config { tie_word_embeddings: false, ..config }, 6);
    let refused =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| load(untied))).expect_err("it has no output matrix");
    let message = refused.downcast_ref::<&str>().expect("a message");
    assert!(message.contains("record of a model without an output matrix of its own"), "{message}");
}
