//! Folders that are opened by one call, whatever is in them.

#![cfg(feature = "flex")]

use std::path::Path;

use gpt2_model::{Gpt2, Gpt2Config, Gpt2ForQuestionAnswering, LinearSettings};
use serde_json::json;

use switchable_quant::backend::Flex;
use switchable_quant::burn::backend::flex::FlexDevice;
use switchable_quant::burn::tensor::TensorData;
use switchable_quant::data::SpecialTokens;
use switchable_quant::default_model::{self, DefaultModel, QuestionSet};
use switchable_quant::families::{WithFamily, with_family};
use switchable_quant::kernels::BitWidth;
use switchable_quant::lora::lora_config::WeightScales;
use switchable_quant::lora::peft::saved_module::SavedModule;
use switchable_quant::lora::peft::{PeftOptions, width_folder};
use switchable_quant::lora::{LoraConfig, SitePrecision, TrainedFor, save_peft};
use switchable_quant::reader::model_folder::{FolderOptions, ModelFolder};
use switchable_quant::reader::{Cost, EvaluateOptions, Evaluator, ReadingTask};
use switchable_quant::transformer::model::SwitchableModel;
use switchable_quant::transformer::options::ModelOptions;
use switchable_quant::transformer::packed::form::{PackOptions, PackedForm, WidthScales};

type Folder = ModelFolder<Flex, Gpt2<Flex>>;

fn built_in() -> Folder {
    default_model::load(&ModelOptions::default(), &FlexDevice).expect("it loads")
}

fn open(dir: &Path) -> Folder {
    Folder::open(dir, &FolderOptions::default(), &FlexDevice).expect("it opens")
}

fn answers(folder: &Folder, precision: SitePrecision) -> String {
    let questions = default_model::questions(QuestionSet::HeldOut).expect("they are generated").limited(24);
    let task = ReadingTask::new(questions, &folder.tokenizer, folder.model.config(), None).expect("they fit");
    let evaluator =
        Evaluator::new(&folder.model, &task, EvaluateOptions::default(), &FlexDevice).expect("it has batches");
    let plan = folder.model.transformer.uniform_plan(precision);
    format!("{:?}", evaluator.predict(&plan).expect("it answers").1)
}

#[test]
fn a_folder_of_floats_is_the_model_that_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let saved = built_in();
    saved.save(dir.path(), "built-in").unwrap();
    let mut opened = open(dir.path());
    assert!(opened.plan.is_none());
    opened.load_adapters(dir.path().join("adapters")).unwrap();
    for bits in [BitWidth::FULL, BitWidth::B2] {
        assert_eq!(opened.precision(bits), saved.precision(bits));
        assert_eq!(answers(&opened, opened.precision(bits)), answers(&saved, saved.precision(bits)));
    }
    assert_eq!(opened.widths().len(), 16, "{:?}", opened.widths());
}

#[test]
fn a_folder_of_codes_brings_head_tokenizer_adapters_and_plan() {
    let saved = built_in();
    let three = saved.precision(BitWidth::B3);
    let plan = saved.model.transformer.uniform_plan(three);
    let forms = [
        (PackedForm::Plan(&plan), vec![BitWidth::B3], BitWidth::B3),
        (PackedForm::Nested, (2..=8).map(|bits| BitWidth::new(bits).unwrap()).collect(), BitWidth::B8),
    ];
    for (form, widths, bits) in forms {
        let dir = tempfile::tempdir().unwrap();
        saved.save_packed(dir.path(), form, &PackOptions::default()).unwrap();
        let opened = open(dir.path());
        assert_eq!(opened.widths(), widths);
        assert_eq!(opened.precision(bits), saved.precision(bits));
        assert!(opened.plan.is_some());
        assert_eq!(answers(&opened, opened.precision(bits)), answers(&saved, saved.precision(bits)));
    }
}

#[test]
fn a_folder_runs_at_what_it_was_made_for_unless_another_plan_is_asked_for() {
    let saved = built_in();
    let body = &saved.model.transformer;
    let uniform = |bits| body.uniform_plan(SitePrecision::uniform(bits));
    assert_eq!(saved.default_plan(), uniform(BitWidth::FULL), "floats, with the adapters of 32 bits");
    for pack in [WidthScales::PowersOfTwo, WidthScales::Quantizer]
        .map(|width_scales| PackOptions { width_scales, ..PackOptions::default() })
    {
        let dir = tempfile::tempdir().unwrap();
        saved.save_packed(dir.path(), PackedForm::Nested, &pack).unwrap();
        let mut opened = open(dir.path());
        assert_eq!(opened.default_plan(), uniform(BitWidth::B8), "nested codes, with the adapters of 8 bits");
        opened.model.check_plan(&opened.default_plan()).unwrap();
        opened.drop_adapters();
        assert_eq!(opened.default_plan(), uniform(BitWidth::B8).without_adapters());
    }
    let dir = tempfile::tempdir().unwrap();
    let three = uniform(BitWidth::B3).without_adapters();
    saved.save_packed(dir.path(), PackedForm::Plan(&three), &PackOptions::default()).unwrap();
    let opened = open(dir.path());
    assert_eq!(opened.default_plan(), three, "codes of a plan, as it was packed");
    assert_eq!(opened.with_adapters(&three), uniform(BitWidth::B3));
}

/// Bytes of the tensors of a safetensors file.
fn tensor_bytes(path: &Path) -> usize {
    let bytes = std::fs::read(path).expect("valid input");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("valid input"));
    bytes.len() - 8 - usize::try_from(header).expect("valid input")
}

#[test]
fn the_memory_of_a_packed_folder_is_that_of_its_file_whatever_quantiser_it_is_opened_with() {
    let linear = LinearSettings { weight: "per-group:32,symmetric,min-max".parse().unwrap(), ..Default::default() };
    let saved: Folder =
        default_model::load_without_adapters(&ModelOptions { linear, ..ModelOptions::default() }, &FlexDevice).unwrap();
    let plan = saved.model.transformer.uniform_plan(SitePrecision::uniform(BitWidth::B3).without_adapter());
    let packs = [
        PackOptions::default(),
        PackOptions { embeddings: Some(BitWidth::B4), ..PackOptions::default() },
        PackOptions { width_scales: WidthScales::Quantizer, ..PackOptions::default() },
    ];
    for (form, pack) in packs.into_iter().flat_map(|pack| [(PackedForm::Plan(&plan), pack), (PackedForm::Nested, pack)])
    {
        let dir = tempfile::tempdir().unwrap();
        saved.save_packed(dir.path(), form, &pack).unwrap();
        // With the quantiser of the defaults, which has one scale a tensor.
        let opened = open(dir.path());
        let plan = opened.plan.clone().unwrap();
        let stored = Cost::of(&opened.model.transformer, &plan).stored.bytes;
        let head = (2 * 64 + 2) * size_of::<f32>();
        assert_eq!(stored + head, tensor_bytes(&dir.path().join("packed.safetensors")), "{form:?} {pack:?}");
    }
}

#[test]
fn codes_that_an_adapters_learned_step_does_not_fit_are_refused_before_anything_is_written() {
    let linear = LinearSettings { weight: "per-channel,symmetric".parse().unwrap(), ..Default::default() };
    let mut folder: Folder =
        default_model::load_without_adapters(&ModelOptions { linear, ..ModelOptions::default() }, &FlexDevice).unwrap();
    let lora = LoraConfig::new(2, 4.0).unwrap().with_scales(WeightScales::Learned);
    folder.model.transformer.init_adapters(BitWidth::B4, &lora, 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let with = folder.model.transformer.uniform_plan(SitePrecision::uniform(BitWidth::B4));
    let without = with.clone().without_adapters();
    let refused = folder.save_packed(dir.path(), PackedForm::Plan(&without), &PackOptions::default());
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("h.0.attn.c_attn") && message.contains("4 bits"), "{message}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    folder.save_packed(dir.path(), PackedForm::Plan(&with), &PackOptions::default()).unwrap();
    let options =
        FolderOptions { model: ModelOptions { linear, ..ModelOptions::default() }, ..FolderOptions::default() };
    let opened = Folder::open(dir.path(), &options, &FlexDevice).unwrap();
    let four = SitePrecision::uniform(BitWidth::B4);
    assert_eq!(answers(&opened, four), answers(&folder, four));
}

/// A folder whose separator, padding and end are added to the built-in vocabulary, its embedding grown.
fn with_added_tokens(dir: &Path) {
    let DefaultModel { model, tokenizer, .. } = built_in();
    let size = tokenizer.vocab_size();
    let config = Gpt2Config { vocab_size: size + 3, ..model.config().clone() };
    let model = Gpt2ForQuestionAnswering::<Flex>::random(&config, &ModelOptions::default(), 5, &FlexDevice)
        .expect("valid input");
    model.export(dir).expect("valid input");
    tokenizer.save(dir.join("tokenizer.json")).expect("valid input");
    let added = json!({"<q>": size, "<none>": size + 1, "</s>": size + 2});
    let named = json!({"sep_token": "<q>", "pad_token": "<none>", "eos_token": "</s>"});
    std::fs::write(dir.join("added_tokens.json"), added.to_string()).expect("valid input");
    std::fs::write(dir.join("special_tokens_map.json"), named.to_string()).expect("valid input");
}

#[test]
fn a_model_of_added_tokens_is_opened_read_packed_and_saved_again() {
    let dir = tempfile::tempdir().unwrap();
    with_added_tokens(dir.path());
    let mut folder = open(dir.path());
    let size = u32::try_from(built_in().tokenizer.vocab_size()).unwrap();
    let expected = SpecialTokens { separator: vec![size], pad: size + 1, end: size + 2 };
    assert_eq!(SpecialTokens::of(&folder.tokenizer).unwrap(), expected);
    folder.model.transformer.init_adapters(BitWidth::B4, &LoraConfig::new(2, 4.0).unwrap(), 1).unwrap();
    let four = folder.precision(BitWidth::B4);
    assert!(four.adapter.is_some());
    let plan = folder.model.transformer.uniform_plan(four);

    let [floats, packed] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    folder.save(floats.path(), "base").unwrap();
    folder.save_packed(packed.path(), PackedForm::Plan(&plan), &PackOptions::default()).unwrap();
    let mut again = open(floats.path());
    again.load_adapters(floats.path().join("adapters")).unwrap();
    for other in [again, open(packed.path())] {
        assert_eq!(SpecialTokens::of(&other.tokenizer).unwrap(), expected);
        assert_eq!(answers(&other, four), answers(&folder, four));
    }
}

#[test]
fn a_token_that_the_model_has_no_embedding_for_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let size = built_in().tokenizer.vocab_size();
    built_in().save(dir.path(), "built-in").unwrap();
    std::fs::remove_file(dir.path().join("tokenizer_config.json")).unwrap();
    let refused = || Folder::open(dir.path(), &FolderOptions::default(), &FlexDevice).unwrap_err().to_string();
    // One that a text can become, and one that only inputs are put together with.
    std::fs::write(dir.path().join("added_tokens.json"), json!({"<new>": size}).to_string()).unwrap();
    assert!(refused().contains("`<new>`") && refused().contains("vocab_size"), "{}", refused());
    std::fs::write(dir.path().join("special_tokens_map.json"), json!({"pad_token": "<new>"}).to_string()).unwrap();
    assert!(refused().contains("`<new>`") && refused().contains(&size.to_string()), "{}", refused());
    // A special token that nothing uses harms nothing.
    std::fs::write(dir.path().join("special_tokens_map.json"), json!({"mask_token": "<new>"}).to_string()).unwrap();
    Folder::open(dir.path(), &FolderOptions::default(), &FlexDevice).unwrap();
}

/// The head is what PEFT's folders for question answering bring.
#[test]
fn the_head_of_an_adapter_is_saved_packed_and_used_with_it() {
    let mut saved = built_in();
    assert_eq!(saved.notes, Vec::<String>::new());
    let three = saved.precision(BitWidth::B3);
    let plain = answers(&saved, three);
    let bank = tempfile::tempdir().unwrap();
    let width = saved.model.transformer.shape().width;
    let weight = (0..2 * width).map(|index| (index as f32).sin()).collect::<Vec<_>>();
    let head = SavedModule {
        name: "qa_outputs".into(),
        weight: TensorData::new(weight, [2, width]),
        bias: TensorData::from([0.5f32, -0.5]),
    };
    let body = &saved.model.transformer;
    let sites: Vec<_> = body.sites().iter().map(|site| (body.sites().name(site), site)).collect();
    let pairs =
        sites.iter().filter_map(|(name, site)| Some((name.as_str(), body.site(*site).bank().get(BitWidth::B3)?)));
    let trained_for = Some(TrainedFor {
        bits: BitWidth::B3,
        shared_by: Vec::new(),
        settings: body.settings().quantisation(),
        calibration: None,
        base: None,
    });
    let options =
        PeftOptions { prefix: "transformer.".into(), saved_modules: vec![head], trained_for, ..Default::default() };
    save_peft(width_folder(bank.path(), BitWidth::B3), pairs, &options).unwrap();
    saved.load_adapters(bank.path()).unwrap();
    assert_eq!(saved.notes, ["span heads of their own: the adapters of 3 bits"]);
    let own = answers(&saved, three);
    assert_ne!(own, plain);
    assert_eq!(
        answers(&saved, saved.precision(BitWidth::B4)),
        answers(&built_in(), built_in().precision(BitWidth::B4))
    );

    let dir = tempfile::tempdir().unwrap();
    saved.save(dir.path(), "built-in").unwrap();
    assert_eq!(answers(&open(dir.path()), three), own);
    let plan = saved.model.transformer.uniform_plan(three);
    let dir = tempfile::tempdir().unwrap();
    saved.save_packed(dir.path(), PackedForm::Plan(&plan), &PackOptions::default()).unwrap();
    let packed = open(dir.path());
    assert_eq!(packed.model.head_widths(), [BitWidth::B3]);
    assert_eq!(answers(&packed, three), own);
}

struct Blocks<'a>(&'a Path);

impl WithFamily<Flex> for Blocks<'_> {
    type Output = usize;

    fn run<M: SwitchableModel<Flex>>(self) -> usize {
        let folder = ModelFolder::<Flex, M>::open(self.0, &FolderOptions::default(), &FlexDevice);
        folder.expect("it opens").model.transformer.shape().blocks
    }
}

#[test]
fn the_family_of_a_folder_is_found_by_its_configuration() {
    let dir = tempfile::tempdir().unwrap();
    built_in().save(dir.path(), "built-in").unwrap();
    assert_eq!(with_family(dir.path(), Blocks(dir.path())).unwrap(), 12);
}

#[test]
fn a_damaged_folder_is_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    built_in().save_packed(dir.path(), PackedForm::Nested, &PackOptions::default()).unwrap();
    let refused = || Folder::open(dir.path(), &FolderOptions::default(), &FlexDevice).unwrap_err().to_string();
    std::fs::write(dir.path().join("adapters/bits-4/adapter_model.safetensors"), b"cut").unwrap();
    assert!(refused().contains("bits-4"), "{}", refused());
    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    assert!(refused().contains("tokenizer.json"), "{}", refused());
    std::fs::write(dir.path().join("packed.safetensors"), b"cut").unwrap();
    assert!(refused().contains("packed.safetensors"), "{}", refused());
}
