//! Plans chosen at run time on a small model: controller, cascade, resident memory.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use content_identity::{ContentHash, Identity};
use experiments::error::Error;
use experiments::running::memory::{Memory, Parts};
use experiments::running::progress::ShowProgress;
use experiments::search::cascade::CascadeSearch;
use gpt2_model::{Gpt2, Gpt2Config, Gpt2ForQuestionAnswering};
use quant_kernels::spec::bit_width::BitWidth;
use span_reader::choice::cascade::ConfidenceCascade;
use span_reader::choice::cascade_curve::CascadeCurve;
use span_reader::choice::cascade_table::{CascadeStage, CascadeTable};
use span_reader::choice::controller::{PlanRequest, PrecisionController};
use span_reader::choice::fingerprint::ModelFingerprint;
use span_reader::choice::front::MeasuredFront;
use span_reader::choice::latency::LatencyOptions;
use span_reader::choice::measured_cascade::CalibratedCascade;
use span_reader::choice::prompt::Prompt;
use span_reader::choice::resident::ResidentBytes;
use span_reader::choice::temperature::Temperature;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::reading::ReadingTask;
use span_reader::running::json_file::{read_json, write_json};
use span_reader::running::stop::StopFlag;
use squad_data::{DecodeConfig, NullRule, TextTokenizer};
use switchable_lora::{
    linear_settings::BasePolicy,
    lora_config::{LoraConfig, WeightScales},
    site_precision::SitePrecision,
};
use switchable_model::config::ModelConfig;
use switchable_model::model::SwitchableModel;
use switchable_model::named_plans::NamedPlans as _;
use switchable_model::packed::PackModel;
use switchable_model::packed::form::{PackOptions, PackedForm};
use switchable_model::site_plan::SitePlan;

use crate::support::{Plain, device, model, skip_without_device, task};

const WIDTHS: [BitWidth; 4] = [BitWidth::B2, BitWidth::B3, BitWidth::B4, BitWidth::B8];

struct Setting {
    tokenizer: TextTokenizer,
    config: Gpt2Config,
    task: ReadingTask,
    /// Runs from nested codes, with adapters at 2 bits.
    model: Gpt2ForQuestionAnswering<Plain>,
}

impl Setting {
    fn new() -> Self {
        let (tokenizer, config, task) = task(4);
        let mut floats = model::<Plain>(&config, BasePolicy::Frozen);
        floats
            .transformer
            .init_adapters(BitWidth::B2, &LoraConfig::new(2, 4.0).expect("valid input"), 1)
            .expect("valid input");
        let model = floats.clone().pack(PackedForm::Nested, &PackOptions::default()).expect("valid input");
        Self { tokenizer, config, task, model }
    }

    fn plans(&self) -> Vec<SitePlan> {
        WIDTHS.map(|bits| self.plan(bits)).into()
    }

    fn plan(&self, bits: BitWidth) -> SitePlan {
        self.model.transformer.uniform_plan(SitePrecision::uniform(bits).without_adapter())
    }

    fn evaluator(&self) -> Evaluator<'_, Plain, Gpt2<Plain>> {
        Evaluator::new(&self.model, &self.task, options(), &device()).expect("valid input")
    }

    fn front(&self) -> MeasuredFront {
        MeasuredFront::measure(&self.evaluator(), &self.plans()).expect("valid input")
    }

    /// The front as JSON with made-up accuracies of 40, 60, 80 and 80 percent and 1 to 4 milliseconds.
    fn made_up(&self) -> Value {
        let mut front = serde_json::to_value(self.front()).expect("valid input");
        front["latency"] = json!({ "device": "here", "questions": 4 });
        for (index, (percent, milliseconds)) in [(40.0, 1.0), (60.0, 2.0), (80.0, 3.0), (80.0, 4.0)].iter().enumerate()
        {
            let point = &mut front["points"][index];
            point["exact_match"] = json!(percent);
            point["exact_match_interval"] = json!({ "low": percent - 10.0, "high": percent + 10.0 });
            point["latency_ms"] = json!(milliseconds);
        }
        front
    }

    fn controller(&self) -> PrecisionController {
        PrecisionController::new(&self.model, serde_json::from_value(self.made_up()).expect("valid input"), "here")
            .expect("valid input")
    }
}

fn options() -> EvaluateOptions {
    EvaluateOptions { batch_size: 5, ..EvaluateOptions::default() }
}

fn average_bits(controller: &PrecisionController, request: PlanRequest) -> f64 {
    controller.pick(request).expect("valid input").point.average_bits
}

/// A change of a saved front, and what the error must name.
type Tampering<'a> = (&'a dyn Fn(&mut Value), &'a str);

#[test]
fn a_controller_picks_the_best_plan_that_fits() {
    skip_without_device!();
    let setting = Setting::new();
    let controller = setting.controller();
    let points = controller.front().points();
    let requests = [
        (PlanRequest::Bytes(points[0].site_bytes), 2.0),
        (PlanRequest::Bytes(points[2].site_bytes - 1), 3.0),
        // 4 and 8 bits are equally accurate: the smaller.
        (PlanRequest::Bytes(usize::MAX), 4.0),
        (PlanRequest::BitOps(points[1].bit_ops_per_token), 3.0),
        (PlanRequest::Latency(Duration::from_micros(2999)), 3.0),
        (PlanRequest::Latency(Duration::from_secs(1)), 4.0),
        (PlanRequest::Accuracy(40.0), 2.0),
        (PlanRequest::Accuracy(40.1), 3.0),
        (PlanRequest::Accuracy(80.0), 4.0),
        (PlanRequest::AccuracyForSure(40.1), 3.0),
        (PlanRequest::AccuracyForSure(70.0), 4.0),
    ];
    for (request, bits) in requests {
        let got = average_bits(&controller, request);
        assert!((got - bits).abs() < 1e-9, "{request:?} gives {got} bits, expected {bits}");
        let pick = controller.pick(request).unwrap();
        assert_eq!(pick.plan, &setting.model.transformer.resolve(&pick.point.plan).unwrap());
    }
}

#[test]
fn bytes_of_the_controller_hold_the_adapters_of_each_plan() {
    skip_without_device!();
    let setting = Setting::new();
    let body = &setting.model.transformer;
    let adapted = body.uniform_plan(SitePrecision::uniform(BitWidth::B2));
    let plans = [adapted, setting.plan(BitWidth::B2), setting.plan(BitWidth::B3)];
    let front = MeasuredFront::measure(&setting.evaluator(), &plans).unwrap();
    let bytes = |front: &MeasuredFront| front.points().iter().map(|point| point.site_bytes).collect::<Vec<_>>();
    // Rank 2 beside every site, in f32.
    let numbers: usize = body.sites().iter().map(|site| 2 * (body.site(site).d_in() + body.site(site).d_out())).sum();
    let counted = bytes(&front);
    assert!(numbers > 0 && counted[0] == counted[1] + 4 * numbers, "{counted:?} {numbers}");
    // With its adapters 2 bits are more than 3 bits without, which fit where those do not.
    assert!(counted[0] > counted[2], "{counted:?}");
    let controller = PrecisionController::new(&setting.model, front.clone(), "here").unwrap();
    let picked = controller.pick(PlanRequest::Bytes(counted[0] - 1)).unwrap();
    assert!(picked.plan.adapter_widths().is_empty());

    // A file of the version whose bytes are of the weights alone comes to the same count.
    let mut older = serde_json::to_value(&front).unwrap();
    older["version"] = json!(2);
    let controlled = |older: &Value| {
        let older: MeasuredFront = serde_json::from_value(older.clone()).unwrap();
        PrecisionController::new(&setting.model, older, "here").map(|controller| controller.front().clone())
    };
    assert!(controlled(&older).unwrap_err().to_string().contains("the bytes of its plan"));
    older["points"][0]["site_bytes"] = json!(counted[1]);
    assert_eq!(controlled(&older).unwrap(), front);
}

#[test]
fn requests_out_of_reach_are_refused_with_the_nearest_that_was_measured() {
    skip_without_device!();
    let setting = Setting::new();
    let controller = setting.controller();
    let points = controller.front().points();
    let least = format!("at least {},", points[0].site_bytes);
    let requests = [
        (PlanRequest::Bytes(points[0].site_bytes - 1), least.as_str()),
        (PlanRequest::BitOps(1.0), "`bit_ops` is 1, expected at least"),
        (PlanRequest::BitOps(f64::NAN), "not negative"),
        (PlanRequest::Latency(Duration::ZERO), "`latency_ms` is 0, expected at least 1,"),
        (PlanRequest::Accuracy(81.0), "at most 80.00 percent"),
        (PlanRequest::AccuracyForSure(71.0), "at most 70.00 percent"),
        (PlanRequest::Accuracy(101.0), "0 to 100"),
        (PlanRequest::Accuracy(f64::NAN), "0 to 100"),
    ];
    for (request, expected) in requests {
        let message = controller.pick(request).unwrap_err().to_string();
        assert!(message.contains(expected), "{request:?}: {message}");
    }
    let elsewhere = PrecisionController::new(&setting.model, controller.front().clone(), "there").unwrap();
    let message = elsewhere.pick(PlanRequest::Latency(Duration::from_secs(1))).unwrap_err().to_string();
    assert!(message.contains("`here`") && message.contains("`there`"), "{message}");
    elsewhere.pick(PlanRequest::Bytes(usize::MAX)).unwrap();
    let untimed = PrecisionController::new(&setting.model, setting.front(), "here").unwrap();
    let message = untimed.pick(PlanRequest::Latency(Duration::from_secs(1))).unwrap_err().to_string();
    assert!(message.contains("`latency` is missing"), "{message}");
}

#[test]
fn a_front_of_another_model_is_refused_with_both_names() {
    skip_without_device!();
    let setting = Setting::new();
    let front = setting.front();
    let floats = model::<Plain>(&setting.config, BasePolicy::Frozen);
    let mut adapted = floats.clone();
    adapted.transformer.init_adapters(BitWidth::B4, &LoraConfig::new(2, 4.0).unwrap(), 1).unwrap();
    for other in [&floats, &adapted] {
        let message = PrecisionController::new(other, front.clone(), "here").unwrap_err().to_string();
        let (measured, present) = (ModelFingerprint::of(&setting.model), ModelFingerprint::of(other));
        assert_ne!(measured, present);
        assert!(message.contains(&measured.to_string()) && message.contains(&present.to_string()), "{message}");
    }
    assert_ne!(ModelFingerprint::of(&floats), ModelFingerprint::of(&adapted));
    // Whether the base is trained does not change what the model computes.
    let trainable = model::<Plain>(&setting.config, BasePolicy::Trainable);
    assert_eq!(ModelFingerprint::of(&floats), ModelFingerprint::of(&trainable));
}

#[test]
fn switching_plans_changes_no_weight_and_resolves_nothing_anew() {
    skip_without_device!();
    let setting = Setting::new();
    let controller = setting.controller();
    let before = (ModelFingerprint::of(&setting.model), setting.model.transformer.site_bytes());
    let request = PlanRequest::Accuracy(60.0);
    let first: *const SitePlan = controller.pick(request).unwrap().plan;
    let evaluator = setting.evaluator();
    for pick in controller.picks() {
        evaluator.evaluate(pick.plan).unwrap();
    }
    assert!(std::ptr::eq(first, controller.pick(request).unwrap().plan));
    assert_eq!((ModelFingerprint::of(&setting.model), setting.model.transformer.site_bytes()), before);
    for site in setting.config.sites().iter() {
        let layer = setting.model.transformer.site(site);
        assert!(
            WIDTHS.iter().all(|&bits| !layer.keeps_quantized(bits, WeightScales::Found)),
            "{site:?} keeps a copy of its own"
        );
    }
}

#[test]
fn dominated_points_stay_listed_and_are_never_picked() {
    skip_without_device!();
    let setting = Setting::new();
    let front: MeasuredFront = serde_json::from_value(setting.made_up()).unwrap();
    let thinned = front.clone().without_dominated();
    assert_eq!(thinned.points(), &front.points()[..3]);
    assert_eq!(thinned.dominated(), &front.points()[3..]);
    assert_eq!(thinned.clone().without_dominated(), thinned);
    let controller = PrecisionController::new(&setting.model, thinned, "here").unwrap();
    assert_eq!(controller.picks().len(), 3);
}

#[test]
fn a_front_is_measured_saved_and_read_back() {
    skip_without_device!();
    let setting = Setting::new();
    let evaluator = setting.evaluator();
    let front =
        setting.front().with_latencies(&evaluator, &LatencyOptions { questions: 2, ..LatencyOptions::new("here") });
    let front = front.unwrap();
    assert_eq!(front.n(), setting.task.dataset.len());
    for (point, plan) in front.points().iter().zip(setting.plans()) {
        let accuracy = evaluator.evaluate(&plan).unwrap();
        assert_eq!(point.f1.to_bits(), accuracy.f1.to_bits());
        assert_eq!(point.exact_match_interval, accuracy.exact_match_interval);
        assert!(point.latency_ms.is_some_and(|time| time > 0.0));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("front.json");
    front.save(&path).unwrap();
    assert_eq!(MeasuredFront::load(&path).unwrap(), front);
}

#[test]
fn tampered_fronts_are_refused_with_the_field() {
    skip_without_device!();
    let setting = Setting::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("front.json");
    let tamper = |change: &dyn Fn(&mut Value)| {
        let mut front = setting.made_up();
        change(&mut front);
        write_json(&path, &front).unwrap();
        MeasuredFront::load(&path).and_then(|front| PrecisionController::new(&setting.model, front, "here"))
    };
    tamper(&|_| {}).unwrap();
    let cases: [Tampering<'_>; 13] = [
        (&|front| front["version"] = json!(1), "`version` is 1, expected 3"),
        (&|front| front["colour"] = json!("red"), "colour"),
        (&|front| front["points"][1]["colour"] = json!("red"), "colour"),
        (&|front| front["model"] = json!("abc"), "64 hexadecimal digits"),
        (&|front| front["n"] = json!(0), "`n` is 0"),
        (&|front| front["points"] = json!([]), "`points` is empty"),
        (&|front| front["points"][0]["exact_match"] = json!(140.0), "`exact_match` is 140"),
        (&|front| front["points"][0]["exact_match"] = json!(99.0), "an interval that holds 99"),
        (&|front| front["points"][0]["latency_ms"] = json!(-1.0), "`latency_ms` is -1"),
        (&|front| front["points"][0]["latency_ms"] = Value::Null, "`latency_ms` is missing"),
        (&|front| front["points"][2]["site_bytes"] = json!(7), "`site_bytes` is 7"),
        (&|front| front["points"][2]["bit_ops_per_token"] = json!(7.0), "`bit_ops_per_token` is 7"),
        (&|front| front["points"][2]["plan"] = front["points"][1]["plan"].clone(), "the bytes of its plan"),
    ];
    for (change, expected) in cases {
        let message = tamper(change).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}, expected {expected}");
    }
    std::fs::write(&path, "{\"version\": 1").unwrap();
    let message = MeasuredFront::load(&path).unwrap_err().to_string();
    assert!(message.contains("front.json"), "{message}");
    assert!(read_json::<MeasuredFront>(&path).is_err());
}

/// A search for a cascade whose parts are known from a folder.
fn cascade_search(dir: &Path, weights: &str, plans: &[SitePlan], stop: &StopFlag) -> CascadeSearch {
    let identity =
        Identity::default().with_content("weights", "m.safetensors", ContentHash::of_bytes(weights.as_bytes()));
    let plans: Vec<_> = plans.iter().map(SitePlan::to_precision_plan).collect();
    CascadeSearch {
        evaluate: EvaluateOptions { stop: stop.clone(), ..options() },
        share: 0.9,
        points: 5,
        seed: 3,
        show: ShowProgress::No,
        known: Parts::new(Memory::folder(dir, identity), json!({ "plans": plans })),
    }
}

fn parts(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_cascade_that_was_stopped_goes_on_with_the_plans_that_are_read() {
    skip_without_device!();
    let setting = Setting::new();
    let [calibration, evaluation] = setting.task.halves().unwrap();
    let (plans, going, stopped) = (setting.plans(), StopFlag::default(), StopFlag::default());
    stopped.request();
    let dir = tempfile::tempdir().unwrap();
    let run = |weights: &str, plans: &[SitePlan], stop: &StopFlag| {
        let search = cascade_search(dir.path(), weights, plans, stop);
        let cascade = search.calibrate(&setting.model, &calibration, plans)?;
        search.measure(&cascade, &setting.model, &evaluation)
    };
    let whole = run("a", &plans, &going).unwrap();
    let all = ["calibration", "evaluation"].iter().flat_map(|name| (1..=4).map(move |i| format!("{name}-{i}.json")));
    let all: Vec<String> = all.collect();
    assert_eq!(parts(dir.path()), all);
    // The same as without a folder, and where nothing is left to be read nothing is.
    let how = (&options(), None);
    let apart = CalibratedCascade::new(&setting.model, &calibration, &plans, 0.9, how, &device()).unwrap();
    assert_eq!(apart.measure(&setting.model, &evaluation, (5, 3), &options()).unwrap(), whole);
    assert_eq!(run("a", &plans, &stopped).unwrap(), whole);

    // As after a stop in the calibration, and after one in the evaluation.
    for known in [2, 5] {
        all[known..].iter().for_each(|part| std::fs::remove_file(dir.path().join(part)).unwrap());
        assert!(matches!(run("a", &plans, &stopped), Err(Error::Stopped)));
        assert_eq!(parts(dir.path()), all[..known]);
        assert_eq!(run("a", &plans, &going).unwrap(), whole);
    }
    let message = run("b", &plans, &going).unwrap_err().to_string();
    assert!(message.contains("calibration-1.json") && message.contains("weights changed: m.safetensors"), "{message}");
    let message = run("a", &plans[1..], &going).unwrap_err().to_string();
    assert!(message.contains("calibration-1.json") && message.contains("option `plans`"), "{message}");
}

#[test]
fn times_change_neither_stages_nor_thresholds() {
    skip_without_device!();
    let setting = Setting::new();
    let how = (&options(), None);
    let untimed = CalibratedCascade::new(&setting.model, &setting.task, &setting.plans(), 0.9, how, &device()).unwrap();
    let latency = LatencyOptions { questions: 2, ..LatencyOptions::new("here") };
    let timed = untimed.clone().with_latencies(&setting.evaluator(), &latency).unwrap();
    assert_eq!((&timed.stages, &timed.chosen), (&untimed.stages, &untimed.chosen));
    assert!(timed.front.points().iter().all(|point| point.latency_ms.is_some()));
    let all = |front: &MeasuredFront| front.points().len() + front.dominated().len();
    assert_eq!((all(&timed.front), all(&untimed.front)), (4, 4));
}

/// Calibrated stages, their table, and a threshold for each stage but the last that some questions pass.
fn calibrated(setting: &Setting) -> (Vec<CascadeStage>, CascadeTable, Vec<f64>) {
    let (stages, table) =
        CascadeTable::calibrate(&setting.model, &setting.task, &setting.plans(), &options()).expect("valid input");
    let middle = |confidences: &[f64]| {
        let mut sorted = confidences.to_vec();
        sorted.sort_by(f64::total_cmp);
        f64::midpoint(sorted[sorted.len() / 2 - 1], sorted[sorted.len() / 2])
    };
    let thresholds = table.plans()[..stages.len() - 1].iter().map(|plan| middle(&plan.confidences)).collect();
    (stages, table, thresholds)
}

#[test]
fn a_cascade_in_batches_decides_as_question_by_question_and_as_the_table_says() {
    skip_without_device!();
    let setting = Setting::new();
    let (stages, table, thresholds) = calibrated(&setting);
    let cascade = ConfidenceCascade::new(&setting.model, stages, thresholds.clone()).unwrap();
    let run = cascade.answer_all(&setting.task, &options()).unwrap();
    let examples = setting.task.features.examples();
    assert_eq!(run.answers.len(), examples.len());
    let mut bit_ops = 0.0;
    for (answer, example) in run.answers.iter().zip(examples) {
        let (alone, work) = cascade.answer(&setting.tokenizer, &example.question, &example.context).unwrap();
        assert_eq!((alone.stage, &alone.decoded.text), (answer.stage, &answer.decoded.text), "{}", example.id);
        assert_eq!(answer.decoded.id, example.id);
        assert!((alone.confidence - answer.confidence).abs() < 1e-5);
        bit_ops += work.iter().map(|work| work.bit_ops).sum::<f64>();
    }
    let outcome = table.outcome(&thresholds).unwrap();
    let reached: Vec<usize> = run.work.iter().map(|work| work.questions).collect();
    assert_eq!(reached, outcome.reached);
    assert!(reached.iter().all(|&questions| questions > 0), "every stage must read: {reached:?}");
    assert_eq!(run.accuracy(&setting.task).unwrap().scores, outcome.accuracy.scores);
    let relative = |a: f64, b: f64| (a / b - 1.0).abs();
    assert!(relative(run.bit_ops(), bit_ops) < 1e-12);
    assert!(relative(run.bit_ops(), outcome.bit_ops_per_question * table.n() as f64) < 1e-12);
}

#[test]
fn a_prompt_answers_until_its_input_ends_and_goes_on_after_an_error() {
    skip_without_device!();
    let setting = Setting::new();
    let (stages, _, thresholds) = calibrated(&setting);
    let cascade = ConfidenceCascade::new(&setting.model, stages, thresholds).unwrap();
    let controller = setting.controller();
    let prompt = Prompt { cascade: &cascade, controller: &controller, tokenizer: &setting.tokenizer };
    let example = &setting.task.features.examples()[0];
    let (context, question) = (&example.context, &example.question);
    // An empty question is refused; an empty context is the one before.
    let input = format!("{context}\n\n\n{question}\n");
    let mut output = Vec::new();
    prompt.run(input.as_bytes(), &mut output).unwrap();
    let output = String::from_utf8(output).unwrap();
    let (answer, _) = cascade.answer(&setting.tokenizer, question, context).unwrap();
    let pick = controller.picks().find(|pick| *pick.plan == cascade.stages()[answer.stage].plan).unwrap();
    let refused = cascade.answer(&setting.tokenizer, "", context).unwrap_err();
    let start = format!(
        "context> question> {refused}\ncontext> question> {}\n  confidence {:.2}, {:.1} bits, ",
        answer.decoded.text, answer.confidence, pick.point.average_bits
    );
    assert!(output.starts_with(&start), "{output}");
    assert!(output.ends_with(&format!(" ms, {} bytes\ncontext> ", pick.point.site_bytes)), "{output}");
}

#[test]
fn bit_operations_are_tokens_times_weights_times_bits_of_the_stages_that_ran() {
    skip_without_device!();
    let setting = Setting::new();
    let stage = |bits| CascadeStage { plan: setting.plan(bits), temperature: Temperature::ONE };
    let parameters = setting.config.site_parameters() as f64;
    let tokens: usize = setting.task.features.windows().iter().map(|window| window.ids.len()).sum();
    // No confidence is 1, none is below 0.
    for (threshold, bits) in [(1.0, 2.0 + 8.0), (0.0, 2.0)] {
        let stages = vec![stage(BitWidth::B2), stage(BitWidth::B8)];
        let cascade = ConfidenceCascade::new(&setting.model, stages, vec![threshold]).unwrap();
        let run = cascade.answer_all(&setting.task, &options()).unwrap();
        let expected = tokens as f64 * parameters * bits * 32.0;
        assert!((run.bit_ops() / expected - 1.0).abs() < 1e-12, "{} {expected}", run.bit_ops());
        assert!(run.work[0].tokens == tokens && run.work[0].positions >= tokens);
    }
}

#[test]
fn confidences_over_several_windows_are_probabilities() {
    skip_without_device!();
    let setting = Setting::new();
    let task = ReadingTask::new(setting.task.dataset.clone(), &setting.tokenizer, &setting.config, Some(48)).unwrap();
    assert!(task.features.len() > 2 * task.dataset.len(), "{} windows", task.features.len());
    let (_, table) = CascadeTable::calibrate(&setting.model, &task, &setting.plans(), &options()).unwrap();
    for plan in table.plans() {
        assert!(plan.confidences.iter().all(|confidence| (0.0..=1.0).contains(confidence) && *confidence > 0.0));
        assert!((0.0..=1.0).contains(&plan.calibration_error));
    }
}

#[test]
fn a_curve_holds_the_cascade_and_every_plan_alone() {
    skip_without_device!();
    let setting = Setting::new();
    let (stages, calibration, _) = calibrated(&setting);
    let evaluation = CascadeTable::measure(&setting.model, &setting.task, &stages, &options()).unwrap();
    // The same questions give the same table.
    assert_eq!(evaluation, calibration);
    let curve = CascadeCurve::new(&calibration, &evaluation, &[0, 3], 10, 1).unwrap();
    assert_eq!((curve.n, curve.plans.len()), (setting.task.dataset.len(), 4));
    for point in &curve.cascade {
        assert!((point.outcome.accuracy.exact_match - point.calibration_exact_match).abs() < 1e-9);
        assert_eq!(point.outcome.reached.len(), 2);
    }
    let other = evaluation.select(&[0, 1]);
    assert!(CascadeCurve::new(&calibration, &other, &[0, 1], 10, 1).is_err());
    assert!(CascadeCurve::new(&calibration, &evaluation, &[3, 0], 10, 1).is_err());
}

#[test]
fn cascades_that_cannot_work_are_refused() {
    skip_without_device!();
    let setting = Setting::new();
    let stage = |bits| CascadeStage { plan: setting.plan(bits), temperature: Temperature::ONE };
    let new = |stages: Vec<CascadeStage>, thresholds: Vec<f64>| {
        ConfidenceCascade::new(&setting.model, stages, thresholds).map(|_| ()).unwrap_err().to_string()
    };
    assert!(new(vec![stage(BitWidth::B2), stage(BitWidth::B8)], vec![1.5]).contains("`threshold` is 1.5"));
    assert!(new(vec![stage(BitWidth::B8), stage(BitWidth::B2)], vec![0.5]).contains("rising BitOps"));
    // Nested codes serve 2 to 8 bits.
    assert!(new(vec![stage(BitWidth::FULL)], vec![]).contains("32"));
    let decode = DecodeConfig { null: NullRule::Threshold(0.0), ..DecodeConfig::default() };
    let with_null = EvaluateOptions { decode, ..options() };
    let message = CascadeTable::calibrate(&setting.model, &setting.task, &setting.plans(), &with_null).unwrap_err();
    assert!(message.to_string().contains("decode.null"), "{message}");
    let cascade = ConfidenceCascade::new(&setting.model, vec![stage(BitWidth::B4)], vec![]).unwrap();
    assert!(cascade.answer(&setting.tokenizer, " ", "a text").unwrap_err().to_string().contains("question"));
}

#[test]
fn one_nested_memory_is_smaller_than_a_model_for_each_width() {
    skip_without_device!();
    let setting = Setting::new();
    let widths = [BitWidth::B2, BitWidth::B4, BitWidth::B8, BitWidth::FULL];
    let bytes = ResidentBytes::measure(&setting.model, &widths).unwrap();
    assert_eq!(bytes.sites, setting.model.transformer.site_bytes());
    assert_eq!(bytes.sites, bytes.per_width[&BitWidth::B8]);
    assert_eq!(bytes.sites_f32, 4 * setting.config.site_parameters());
    assert_eq!(bytes.per_width[&BitWidth::FULL], bytes.sites_f32);
    assert!(bytes.per_width[&BitWidth::B2] < bytes.per_width[&BitWidth::B4]);
    assert!(bytes.per_width[&BitWidth::B4] < bytes.sites && bytes.sites < bytes.sites_f32);
    // The span head has a weight of two columns and two biases.
    let head = 2 * setting.config.n_embd + 2;
    assert_eq!(bytes.rest, 4 * (setting.config.parameters() + head - setting.config.site_parameters()));
    let d = setting.config.n_embd;
    let inner = setting.config.n_inner;
    assert_eq!(bytes.adapters, 4 * 2 * setting.config.n_layer * ((d + 3 * d) + 2 * d + 2 * (d + inner)));
    assert!(bytes.whole() < bytes.separate());
    let json = serde_json::to_string(&bytes).unwrap();
    assert_eq!(serde_json::from_str::<ResidentBytes>(&json).unwrap(), bytes);
    assert!(ResidentBytes::measure(&setting.model, &[]).unwrap_err().to_string().contains("widths"));
}

#[test]
fn halves_of_a_task_share_no_paragraph_and_lose_no_question() {
    skip_without_device!();
    let (tokenizer, config, task) = task(5);
    let halves = task.halves().unwrap();
    let ids = |task: &ReadingTask| task.dataset.questions().map(|question| question.id.clone()).collect::<Vec<_>>();
    let mut all: Vec<String> = halves.iter().flat_map(ids).collect();
    all.sort();
    let mut expected = ids(&task);
    expected.sort();
    assert_eq!(all, expected);
    for half in &halves {
        let anew = ReadingTask::new(half.dataset.clone(), &tokenizer, &config, None).unwrap();
        assert_eq!(half.features.windows(), anew.features.windows());
    }
    let [first, second] = halves.map(|half| half.dataset.examples());
    assert!(first.iter().all(|one| second.iter().all(|other| one.context != other.context)));
    let one = ReadingTask::new(task.dataset.limited(1), &tokenizer, &config, None).unwrap();
    assert!(one.halves().unwrap_err().to_string().contains("half of the data set holds no question"));
}
