//! Artefacts: what is packed is what is opened, or an error that names the file.

#![cfg(feature = "flex")]

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use gpt2_model::Gpt2;
use serde_json::{Value, json};
use switchable_quant::identity::ContentHash;

use switchable_quant::backend::Flex;
use switchable_quant::burn::backend::flex::FlexDevice;
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::kernels::BitWidth;
use switchable_quant::lora::{Execution, LinearSettings, PrecisionPlan, SitePrecision};
use switchable_quant::reader::artefact::manifest::Source;
use switchable_quant::reader::artefact::pack::Pack;
use switchable_quant::reader::artefact::saved_cascade::SavedCascade;
use switchable_quant::reader::artefact::target::ArtefactTarget;
use switchable_quant::reader::choice::controller::{PlanRequest, PrecisionController};
use switchable_quant::reader::choice::front::MeasuredFront;
use switchable_quant::reader::choice::latency::LatencyOptions;
use switchable_quant::reader::choice::measured_cascade::CalibratedCascade;
use switchable_quant::reader::model_folder::{FolderOptions, ModelFolder, OwnAdapters};
use switchable_quant::reader::serving::generation::TextRequest;
use switchable_quant::reader::serving::plan_choice::PlanChoice;
use switchable_quant::reader::serving::service::{Request, Service};
use switchable_quant::reader::{EvaluateOptions, Evaluator, ReadingTask};
use switchable_quant::transformer::generate::{DrawOptions, Generate as _, GenerateOptions, Sampling};
use switchable_quant::transformer::model::SwitchableModel as _;
use switchable_quant::transformer::options::ModelOptions;
use switchable_quant::transformer::packed::form::{PackOptions, PackedForm};
use switchable_quant::transformer::span_head::MissingHead;

type Folder = ModelFolder<Flex, Gpt2<Flex>>;

fn built_in(execution: Execution) -> Folder {
    let linear = LinearSettings { execution, ..LinearSettings::default() };
    default_model::load(&ModelOptions { linear, ..ModelOptions::default() }, &FlexDevice).expect("it loads")
}

fn open(dir: &Path) -> Result<Folder, String> {
    Folder::open(dir, &FolderOptions::default(), &FlexDevice).map_err(|error| error.to_string())
}

fn source() -> Source {
    Source {
        name: "built-in".into(),
        hash: ContentHash::of_bytes(b"the built-in model"),
        adapters: None,
        scaling: None,
    }
}

fn task(folder: &Folder, limit: usize) -> ReadingTask {
    let questions = default_model::questions(QuestionSet::HeldOut).expect("they are generated").limited(limit);
    ReadingTask::new(questions, &folder.tokenizer, folder.model.config(), None).expect("they fit")
}

/// Predictions and accuracy of a plan, question by question.
fn read(folder: &Folder, plan: &switchable_quant::transformer::site_plan::SitePlan) -> (String, Vec<(u64, u64)>) {
    let task = task(folder, 40);
    let evaluator = Evaluator::new(&folder.model, &task, EvaluateOptions::default(), &FlexDevice).expect("valid input");
    let (accuracy, predictions) = evaluator.predict(plan).expect("it answers");
    let scores = accuracy.scores.iter().map(|score| (score.exact.to_bits(), score.f1.to_bits())).collect();
    (format!("{predictions:?}"), scores)
}

#[test]
fn a_plan_that_was_found_gives_the_same_answers_as_an_artefact() {
    let found = built_in(Execution::Packed);
    let body = &found.model.transformer;
    let plan = body.uniform_plan(found.precision(BitWidth::B3));
    let mixed = body.sites().iter().step_by(3).fold(plan, |plan, site| plan.with(site, found.precision(BitWidth::B8)));
    let plan = body.with_embedding_bits(mixed, BitWidth::B8);
    let dir = tempfile::tempdir().expect("valid input");
    let target = dir.path().join("artefact");
    let packed = Pack::new(source(), PackedForm::Plan(&plan)).write(&found, &target).expect("valid input");
    let opened = open(&target).expect("valid input");
    for artefact in [&packed, &opened] {
        let own = artefact.plan.clone().expect("the plan that it was packed by");
        assert_eq!(own.average_weight_bits().to_bits(), plan.average_weight_bits().to_bits());
        assert_eq!(read(artefact, &own), read(&found, &plan));
        assert_eq!(artefact.artefact.as_ref().expect("valid input").manifest.source, source());
        assert!(artefact.model.transformer.wte.param().is_none());
    }
    // The simulated twin decides the same.
    let simulated = built_in(Execution::FakeQuantized);
    assert_eq!(read(&simulated, &plan), read(&found, &plan));
    let config: Value =
        serde_json::from_slice(&fs::read(target.join("config.json")).expect("valid input")).expect("valid input");
    assert_eq!(config["quantization_config"]["quant_method"], "switchable-quant");
    let card = fs::read_to_string(target.join("README.md")).expect("valid input");
    assert!(card.contains("weights of 3, 8 bits"), "{card}");
}

#[test]
fn plans_whose_sites_are_quantised_differently_are_packed_whatever_site_is_first() {
    let found = built_in(Execution::Packed);
    let body = &found.model.transformer;
    let four = body.uniform_plan(found.precision(BitWidth::B4));
    let other = SitePrecision::uniform(BitWidth::B4).without_adapter();
    let other = other.with_quantizer("per-channel,symmetric,min-max".parse().expect("a quantiser"));
    let sites: Vec<_> = body.sites().iter().collect();
    let dir = tempfile::tempdir().expect("valid input");
    for site in [sites[0], sites[47]] {
        let plan = four.clone().with(site, other);
        let target = dir.path().join(body.sites().name(site));
        let packed = Pack::new(source(), PackedForm::Plan(&plan)).write(&found, &target).expect("it packs");
        let own = packed.plan.clone().expect("a plan");
        assert_eq!(read(&packed, &own), read(&found, &plan));
        // Of the adapters those that the plan names.
        let widths: Vec<_> = fs::read_dir(target.join("adapters")).expect("valid input").collect();
        assert_eq!(widths.len(), 1);
    }
}

#[test]
fn plans_front_and_cascade_come_back_with_the_codes_that_they_were_measured_on() {
    let folder = built_in(Execution::Packed);
    let nested = folder.model.clone().pack(PackedForm::Nested, &PackOptions::default()).expect("valid input");
    let plans: Vec<_> = [2u8, 3, 8]
        .map(|bits| nested.transformer.uniform_plan(folder.precision(BitWidth::new(bits).expect("valid input"))))
        .into();
    let task = task(&folder, 60);
    let cascade =
        CalibratedCascade::new(&nested, &task, &plans, 0.99, (&EvaluateOptions::default(), None), &FlexDevice)
            .expect("it calibrates");
    let dir = tempfile::tempdir().expect("valid input");
    let target = dir.path().join("artefact");
    let pack = Pack {
        plans: [("small".to_owned(), nested.named_plan(&plans[0]))].into(),
        front: Some(cascade.front.clone()),
        cascade: Some(SavedCascade::new(&nested, &cascade)),
        ..Pack::new(source(), PackedForm::Nested)
    };
    pack.write(&folder, &target).expect("valid input");
    let opened = open(&target).expect("valid input");
    let contents = opened.artefact.as_ref().expect("it is an artefact");
    assert_eq!(contents.plans["small"], plans[0]);
    let front = contents.front.clone().expect("a front");
    assert_eq!(front, cascade.front);
    let controller = PrecisionController::new(&opened.model, front, "cpu").expect("valid input");
    let budget = controller.midway_bytes();
    let pick = controller.pick(PlanRequest::Bytes(budget)).expect("valid input");
    assert!(pick.point.bytes() <= budget);
    let saved = contents.cascade.as_ref().expect("a cascade").open(&opened.model).expect("valid input");
    assert_eq!(saved.stages().len(), cascade.stages().len());
    for file in ["plans/small.json", "front.json", "cascade.json"] {
        names_every_field_of_a_wrong_type(&target, file);
    }
    serves_every_choice(opened);
}

/// Every value of a file, in turn, gets a wrong type; what refuses it names the field.
fn names_every_field_of_a_wrong_type(target: &Path, file: &str) {
    let text = fs::read_to_string(target.join(file)).expect("valid input");
    let whole: Value = serde_json::from_str(&text).expect("valid input");
    let load = |json: &Value| {
        fs::write(target.join(file), json.to_string()).expect("valid input");
        let path = target.join(file);
        match file {
            "front.json" => MeasuredFront::load(path).map(drop).map_err(|error| error.to_string()),
            "cascade.json" => SavedCascade::read(target).map(drop).map_err(|error| error.to_string()),
            _ => PrecisionPlan::load(path).map(drop).map_err(|error| error.to_string()),
        }
    };
    load(&whole).expect("it is whole");
    let places = places(&whole, "");
    assert!(places.len() > 6, "{places:?}");
    for place in places {
        // Every value but null is of another type than one of these.
        for wrong in [json!({ "x": 1 }), json!("wrong"), json!([["x"]])] {
            let mut json = whole.clone();
            *json.pointer_mut(&place).expect("it is there") = wrong.clone();
            let Err(message) = load(&json) else {
                panic!("{file}: {place} takes {wrong}");
            };
            let mut keys = place.split('/').filter(|key| key.parse::<usize>().is_err());
            let field = keys.next_back().expect("a name");
            assert!(message.contains(file) && message.contains(field), "{file}: {place} = {wrong}: {message}");
        }
    }
    fs::write(target.join(file), text).expect("valid input");
}

/// Pointers to numbers, texts and flags, of lists to those of the first entry, and of maps of sites to one.
fn places(json: &Value, at: &str) -> Vec<String> {
    match json {
        Value::Object(fields) => {
            let sites = if at.ends_with("sites") { 1 } else { usize::MAX };
            fields.iter().take(sites).flat_map(|(name, value)| places(value, &format!("{at}/{name}"))).collect()
        }
        Value::Array(list) => list.iter().take(1).flat_map(|value| places(value, &format!("{at}/0"))).collect(),
        Value::Null => Vec::new(),
        _ => vec![at.to_owned()],
    }
}

/// Requests of every kind of choice in one batch, answered from several threads as each alone.
fn serves_every_choice(folder: Folder) {
    let examples = default_model::questions(QuestionSet::HeldOut).expect("valid input").limited(12).examples();
    let bytes = PrecisionController::new(
        &folder.model,
        folder.artefact.as_ref().expect("valid input").front.clone().expect("valid input"),
        "",
    )
    .expect("valid input")
    .midway_bytes();
    let service = Service::new(folder).expect("valid input");
    assert_eq!(service.names().collect::<Vec<_>>(), ["small"]);
    let choices = [
        PlanChoice::Default,
        PlanChoice::Named("small".into()),
        PlanChoice::Measured(PlanRequest::Bytes(bytes)),
        PlanChoice::Measured(PlanRequest::Accuracy(0.0)),
        PlanChoice::Confidence,
    ];
    let requests: Vec<Request> = examples
        .iter()
        .zip(choices.iter().cycle())
        .map(|(example, choice)| Request {
            question: example.question.clone(),
            context: example.context.to_string(),
            choice: choice.clone(),
        })
        .collect();
    let together = service.answer_all(&requests).expect("valid input");
    let alone: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            requests.iter().map(|request| scope.spawn(|| service.answer(request).expect("valid input"))).collect();
        threads.into_iter().map(|thread| thread.join().expect("valid input")).collect()
    });
    for ((together, alone), request) in together.iter().zip(&alone).zip(&requests) {
        assert_eq!(together.decoded.text, alone.decoded.text, "{request:?}");
        assert_eq!(together.average_bits.to_bits(), alone.average_bits.to_bits());
        assert_eq!(together.confidence.is_some(), request.choice == PlanChoice::Confidence);
    }
    assert!((together[1].average_bits - 2.0).abs() < 1e-9 && (together[0].average_bits - 8.0).abs() < 1e-9);
    let message = |choice: PlanChoice, question: &str| {
        let bad = Request { question: question.into(), choice, ..requests[0].clone() };
        service.answer_all(&[requests[0].clone(), bad]).expect_err("an error").to_string()
    };
    assert!(message(PlanChoice::Named("large".into()), "Who?").contains("request 1: `plan` is \"large\""));
    assert!(message(PlanChoice::Default, " ").contains("request 1: `question` is empty"));
    let latency = PlanRequest::Latency(std::time::Duration::from_secs(1));
    assert!(message(PlanChoice::Measured(latency), "Who?").contains("latency"));
    let timed = service
        .timed(default_model::questions(QuestionSet::Search).expect("valid input"), &LatencyOptions::new("here"));
    timed.expect("valid input").plan(&PlanChoice::Measured(latency)).expect("the plans were timed here");
}

#[test]
fn a_service_of_a_language_model_continues_texts_by_the_plan_of_each_choice() {
    let folder = built_in(Execution::Packed);
    let plans = [2u8, 8].map(|bits| {
        let plan = folder.model.transformer.uniform_plan(folder.precision(BitWidth::new(bits).expect("valid input")));
        (format!("bits-{bits}"), folder.model.named_plan(&plan))
    });
    let dir = tempfile::tempdir().expect("valid input");
    let target = dir.path().join("artefact");
    let pack = Pack { plans: plans.into(), has_span_head: false, ..Pack::new(source(), PackedForm::Nested) };
    pack.write(&folder, &target).expect("it packs");
    let options = FolderOptions { missing_head: MissingHead::Random(0), ..FolderOptions::default() };
    let service = Service::new(Folder::open(&target, &options, &FlexDevice).expect("it opens")).expect("valid input");
    let draws = DrawOptions { temperature: 0.9, seed: 7, ..DrawOptions::default() };
    let request = |name: &str, sampling| TextRequest {
        prompt: "É. lives in the".into(),
        options: GenerateOptions { max_new_tokens: 12, sampling, ..GenerateOptions::default() },
        choice: PlanChoice::Named(name.into()),
    };
    let opened = service.folder();
    let mut texts = Vec::new();
    for (name, bits) in [("bits-2", 2.0), ("bits-8", 8.0)] {
        for sampling in [Sampling::Greedy, Sampling::Draws(draws)] {
            let request = request(name, sampling);
            let ids = opened.tokenizer.encode_ids(&request.prompt).expect("valid input");
            let plan = opened.plan_of(name).expect("valid input");
            let expected = opened.model.transformer.generate(&ids, &request.options, plan).expect("it writes");
            let [written, threaded] = std::thread::scope(|scope| {
                [(); 2]
                    .map(|()| scope.spawn(|| service.generate(&request).expect("it writes")))
                    .map(|it| it.join().expect("valid input"))
            });
            assert_eq!((&written.tokens, &written), (&expected, &threaded));
            assert!((written.average_bits - bits).abs() < 1e-9);
            let whole = opened.tokenizer.decode(&[ids, expected].concat()).expect("valid input");
            assert_eq!(format!("{}{}", request.prompt, written.text).trim_start(), whole.trim_start());
            let mut pieces = Vec::new();
            let streamed = service.generate_streaming(&request, |piece| {
                pieces.push(piece.to_owned());
                ControlFlow::Continue(())
            });
            assert_eq!(streamed.expect("it writes"), written);
            assert_eq!(pieces.concat(), written.text);
            assert!(pieces.len() > 3, "{pieces:?}");
            texts.push(written.text);
        }
    }
    assert!(texts[0] != texts[1] && texts[0] != texts[2], "{texts:?}");
    // A break ends the text with the piece that it was given.
    let mut first = String::new();
    let cut = service.generate_streaming(&request("bits-8", Sampling::Greedy), |piece| {
        first.push_str(piece);
        ControlFlow::Break(())
    });
    let cut = cut.expect("it writes");
    assert!(cut.text == first && texts[2].starts_with(&first) && cut.tokens.len() < 12, "{cut:?}");
    let refused = |change: fn(&mut TextRequest)| {
        let mut request = request("bits-8", Sampling::Greedy);
        change(&mut request);
        service.generate(&request).expect_err("an error").to_string()
    };
    let message = refused(|request| request.choice = PlanChoice::Confidence);
    assert!(message.starts_with("`choice` is the cascade, expected a plan by name"), "{message}");
    assert!(refused(|request| request.choice = PlanChoice::Named("no".into())).contains("bits-2, bits-8"));
    assert!(refused(|request| request.prompt.clear()).contains("token"));
    assert!(refused(|request| request.options.max_length = Some(0)).contains("max_length is 0"));
}

fn packed(dir: &Path) -> std::path::PathBuf {
    let folder = built_in(Execution::Packed);
    let plan = folder.model.transformer.uniform_plan(folder.precision(BitWidth::B4));
    let target = dir.join("artefact");
    let plans = [("own".to_owned(), folder.model.named_plan(&plan))].into();
    Pack { plans, ..Pack::new(source(), PackedForm::Plan(&plan)) }.write(&folder, &target).expect("valid input");
    target
}

/// Rewrites the manifest after a change that is to get past it.
fn seal(target: &Path) {
    use switchable_quant::reader::artefact::manifest::Manifest;
    Manifest::of_folder(target, source()).expect("valid input").save(target).expect("valid input");
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&fs::read(path).expect("valid input")).expect("valid input");
    change(&mut json);
    fs::write(path, json.to_string()).expect("valid input");
}

#[test]
fn an_artefact_that_lies_is_refused_with_the_file_and_the_field() {
    let dir = tempfile::tempdir().expect("valid input");
    let case = |change: &dyn Fn(&Path), expected: &[&str]| {
        let target = packed(dir.path());
        change(&target);
        let message = open(&target).expect_err(&format!("{expected:?}"));
        for part in expected {
            assert!(message.contains(part), "{message}, expected {part}");
        }
    };
    let manifest = |change: fn(&mut Value)| move |target: &Path| edit(&target.join("artefact.json"), change);
    case(&manifest(|json| json["version"] = json!(2)), &["artefact.json", "`version` is 2"]);
    case(&manifest(|json| json["format"] = json!("gguf")), &["artefact.json", "`format`"]);
    case(&manifest(|json| json["notes"] = json!(1)), &["artefact.json", "notes"]);
    case(&manifest(|json| json["files"]["hash"] = json["source"]["hash"].clone()), &["artefact.json", "`files.hash`"]);
    // A changed byte, a file cut short, one that is missing, one too many.
    let codes = |change: fn(&mut Vec<u8>)| {
        move |target: &Path| {
            let path = target.join("packed.safetensors");
            let mut bytes = fs::read(&path).expect("valid input");
            change(&mut bytes);
            fs::write(path, bytes).expect("valid input");
        }
    };
    case(&codes(|bytes| *bytes.last_mut().expect("valid input") ^= 1), &["packed.safetensors", "content"]);
    case(&codes(|bytes| bytes.truncate(bytes.len() / 2)), &["packed.safetensors"]);
    case(
        &|target| fs::remove_file(target.join("tokenizer.json")).expect("valid input"),
        &["tokenizer.json is missing"],
    );
    case(
        &|target| fs::write(target.join("model.safetensors"), "").expect("valid input"),
        &["model.safetensors is there"],
    );
    // What the manifest was written anew for.
    let sealed = |change: fn(&Path)| {
        move |target: &Path| {
            change(target);
            seal(target);
        }
    };
    case(
        &sealed(|target| fs::remove_dir_all(target.join("adapters")).expect("valid input")),
        &["packed.safetensors", "adapter"],
    );
    case(
        &sealed(|target| {
            edit(&target.join("plans/own.json"), |plan| {
                for (_, site) in plan["sites"].as_object_mut().expect("valid input") {
                    site["adapter"] = json!(7);
                }
            });
        }),
        &["plans/own.json", "adapter for 7 bits"],
    );
    case(
        &sealed(|target| {
            edit(&target.join("config.json"), |config| config["quantization_config"]["version"] = json!(9));
        }),
        &["config.json", "quantization_config.version", "9"],
    );
    case(
        &sealed(|target| {
            edit(&target.join("config.json"), |config| config["quantization_config"]["form"] = json!("nested"));
        }),
        &["config.json", "quantization_config.form"],
    );
    case(
        &sealed(|target| {
            edit(&target.join("config.json"), |config| {
                _ = config.as_object_mut().expect("valid input").remove("quantization_config");
            });
        }),
        &["config.json", "`quantization_config` is missing"],
    );
    case(
        &sealed(|target| edit(&target.join("config.json"), |config| config["n_head"] = json!(4))),
        &["config.json", "n_head"],
    );
}

#[test]
fn an_artefact_takes_the_place_of_another_and_of_nothing_else() {
    let dir = tempfile::tempdir().expect("valid input");
    let target = packed(dir.path());
    fs::write(target.join("certificate.json"), "{}").expect("valid input");
    packed(dir.path());
    assert!(!target.join("certificate.json").exists(), "the certificate was of other codes");
    let folder = built_in(Execution::Packed);
    let plan = folder.model.transformer.uniform_plan(folder.precision(BitWidth::B4));
    let pack = Pack::new(source(), PackedForm::Plan(&plan));
    let other = dir.path().join("other");
    fs::create_dir(&other).expect("valid input");
    pack.write(&folder, &other).expect("an empty folder takes it");
    fs::remove_file(other.join("artefact.json")).expect("valid input");
    let message = pack.write(&folder, &other).expect_err("it holds something else").to_string();
    assert!(message.contains("no artefact"), "{message}");

    // What a killed command left goes; while one packs, another is told so.
    fs::create_dir_all(dir.path().join(".partial-other/.partial-x")).expect("valid input");
    let held = ArtefactTarget::reserve(&dir.path().join("fresh")).expect("nobody has it");
    let message = pack.write(&folder, &dir.path().join("fresh")).expect_err("it is reserved").to_string();
    assert!(message.contains("fresh: another command writes"), "{message}");
    pack.write_to(&folder, &held).expect("its own name");
    drop(held);
    pack.write(&folder, &dir.path().join("fresh")).expect("nobody has it");
    fs::remove_dir_all(dir.path().join("fresh")).expect("valid input");
    fs::remove_dir_all(&other).expect("valid input");
    pack.write(&folder, &other).expect("the name is free");

    // A plan that cannot be packed, and a plan of another model, leave nothing.
    let wide = folder.model.transformer.uniform_plan(SitePrecision::uniform(BitWidth::new(7).expect("valid input")));
    let none = dir.path().join("none");
    assert!(Pack::new(source(), PackedForm::Plan(&wide)).write(&folder, &none).is_err());
    let unknown = folder.model.named_plan(&plan).with_site("h.99.attn.c_attn", SitePrecision::FULL);
    let plans = [("unknown".to_owned(), unknown)].into();
    let message =
        Pack { plans, ..Pack::new(source(), PackedForm::Plan(&plan)) }.write(&folder, &none).expect_err("an error");
    assert!(message.to_string().contains("h.99.attn.c_attn"), "{message}");
    assert!(!none.exists());
    let names: Vec<_> =
        fs::read_dir(dir.path()).expect("valid input").map(|entry| entry.expect("valid input").file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn an_artefact_without_its_adapters_runs_bare() {
    let dir = tempfile::tempdir().expect("valid input");
    let target = packed(dir.path());
    let options = FolderOptions { adapters: OwnAdapters::LeftOut, ..FolderOptions::default() };
    let bare = Folder::open(&target, &options, &FlexDevice).expect("it opens");
    assert!(bare.artefact.is_none());
    let plan = bare.plan.clone().expect("valid input").without_adapters();
    bare.model.check_plan(&plan).expect("codes run without adapters");
}
