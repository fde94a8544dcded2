//! Plans and results of earlier runs.

use experiments::error::Error;
use experiments::running::memory::Memory;
use serde_json::json;
use span_reader::Accuracy;
use span_reader::certificate::certificate_file::Certificate;
use span_reader::certificate::file_names::{CERTIFICATE, MADE_FROM};
use span_reader::certificate::model_card::section;
use span_reader::certificate::seen_data::SeenData;
use span_reader::choice::front::MeasuredFront;
use switchable_lora::PrecisionPlan;
use switchable_model::named_plans::NamedPlans as _;

use crate::scratch::with_files;
use crate::targets::adapters::tiny_model;

thread_local! {
    static MODEL: gpt2_model::Gpt2<burn::backend::Flex> = tiny_model();
}

/// A plan; what is read is written and read back the same, and fits a model or is refused.
pub fn plan_json(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(plan) = PrecisionPlan::from_json(text) else { return };
    let again = PrecisionPlan::from_json(&plan.to_json()).expect("what is written is read");
    assert_eq!(again, plan);
    MODEL.with(|model| _ = model.resolve(&plan));
}

/// The file of a part of long work, as several results, as a certificate and as the record of what made an artefact.
pub fn stage_part(input: &[u8]) {
    with_files(&[("part.json", input), (CERTIFICATE, input), (MADE_FROM, input)], |dir| {
        let memory = Memory::folder(dir, json!({ "model": "a" }));
        let options = json!({ "seed": 1 });
        _ = memory.recall::<Vec<f64>>("part", &options, || Err(Error::Stopped));
        _ = memory.recall::<Accuracy>("part", &options, || Err(Error::Stopped));
        _ = MeasuredFront::load(dir.join("part.json"));
        if let Ok(certificate) = Certificate::read(dir) {
            certificate.check_same(&certificate).expect("it is the same");
            _ = section(&certificate);
        }
        _ = SeenData::read(dir);
    });
}
