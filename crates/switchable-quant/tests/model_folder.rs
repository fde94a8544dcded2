//! Folders that are opened by one call, whatever is in them.

#![cfg(feature = "flex")]

use std::path::Path;

use gpt2_model::Gpt2;
use switchable_quant::backend::Flex;
use switchable_quant::burn::backend::flex::FlexDevice;
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::families::{WithFamily, with_family};
use switchable_quant::kernels::BitWidth;
use switchable_quant::lora::SitePrecision;
use switchable_quant::reader::model_folder::{FolderOptions, ModelFolder};
use switchable_quant::reader::{EvaluateOptions, Evaluator, ReadingTask};
use switchable_quant::transformer::model::SwitchableModel;
use switchable_quant::transformer::options::ModelOptions;
use switchable_quant::transformer::packed::form::{PackOptions, PackedForm};

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
