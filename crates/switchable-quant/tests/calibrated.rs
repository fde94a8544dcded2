//! Roundings that go by the inputs: what is simulated, what runs from codes and what is packed are one.

#![cfg(feature = "flex")]

use std::fs;

use gpt2_model::Gpt2;

use switchable_quant::backend::Flex;
use switchable_quant::burn::backend::flex::FlexDevice;
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::identity::ContentHash;
use switchable_quant::kernels::{BitWidth, QuantSpec, ScalingMethod};
use switchable_quant::lora::{Execution, LinearSettings, PrecisionPlan, SitePrecision, SiteRounding};
use switchable_quant::reader::artefact::manifest::Source;
use switchable_quant::reader::artefact::pack::Pack;
use switchable_quant::reader::model_folder::{FolderOptions, ModelFolder};
use switchable_quant::reader::{EvaluateOptions, Evaluator, ReadingTask};
use switchable_quant::transformer::calibration::{Calibrate as _, ModelMoments};
use switchable_quant::transformer::model::SwitchableModel as _;
use switchable_quant::transformer::options::ModelOptions;
use switchable_quant::transformer::packed::form::PackedForm;
use switchable_quant::transformer::scaling::{ChooseScaling as _, ScalingChoice};
use switchable_quant::transformer::site_plan::SitePlan;

type Folder = ModelFolder<Flex, Gpt2<Flex>>;

fn built_in(execution: Execution) -> Folder {
    let linear = LinearSettings { execution, ..LinearSettings::default() };
    default_model::load(&ModelOptions { linear, ..ModelOptions::default() }, &FlexDevice).expect("it loads")
}

fn task(folder: &Folder, set: QuestionSet, limit: usize) -> ReadingTask {
    let questions = default_model::questions(set).expect("they are generated").limited(limit);
    ReadingTask::new(questions, &folder.tokenizer, folder.model.config(), None).expect("they fit")
}

fn windows(folder: &Folder) -> Vec<Vec<u32>> {
    let task = task(folder, QuestionSet::Train, 24);
    task.features.windows().iter().map(|window| window.ids.clone()).collect()
}

fn moments(folder: &Folder) -> ModelMoments {
    folder.model.transformer.collect_moments(&windows(folder), &mut |_| Ok(())).expect("finite inputs")
}

fn calibrated(execution: Execution) -> Folder {
    let mut folder = built_in(execution);
    let known = moments(&folder);
    folder.model.transformer = known.given_to(folder.model.transformer).expect("of the model");
    folder
}

/// Predictions and the scores of every question.
fn read(folder: &Folder, plan: &SitePlan) -> (String, Vec<(u64, u64)>) {
    let task = task(folder, QuestionSet::HeldOut, 30);
    let evaluator = Evaluator::new(&folder.model, &task, EvaluateOptions::default(), &FlexDevice).expect("valid input");
    let (accuracy, predictions) = evaluator.predict(plan).expect("it answers");
    let scores = accuracy.scores.iter().map(|score| (score.exact.to_bits(), score.f1.to_bits())).collect();
    (format!("{predictions:?}"), scores)
}

/// Every granularity, mapping and range that makes sense of weights, each by another method and width in turn.
fn precisions() -> Vec<SitePrecision> {
    let mut all = Vec::new();
    let widths = [BitWidth::B2, BitWidth::B3, BitWidth::B4, BitWidth::B8];
    for granularity in ["per-tensor", "per-channel", "per-group:32", "per-group:64"] {
        for mapping in ["symmetric", "asymmetric"] {
            for range in ["min-max", "mse", "importance", "percentile:99.5"] {
                for rounding in [SiteRounding::Gptq, SiteRounding::Hqq, SiteRounding::Nearest] {
                    let quantizer: QuantSpec = format!("{granularity},{mapping},{range}").parse().expect("a quantiser");
                    let bits = widths[all.len() % widths.len()];
                    all.push(SitePrecision::FULL.with_weights(bits).with_quantizer(quantizer).with_rounding(rounding));
                }
            }
        }
    }
    let of_table = SitePrecision::FULL.with_weights(BitWidth::B4);
    let of_table = of_table.with_quantizer("per-channel,nf4".parse().expect("a quantiser"));
    all.push(of_table.with_rounding(SiteRounding::Gptq));
    all
}

/// Plans in which every one of the precisions stands at some site.
fn plans(folder: &Folder) -> Vec<SitePlan> {
    let body = &folder.model.transformer;
    let sites: Vec<_> = body.sites().iter().collect();
    let plan = |some: &[SitePrecision]| {
        let start = body.uniform_plan(SitePrecision::uniform(BitWidth::B8));
        sites.iter().zip(some).fold(start, |plan, (site, precision)| plan.with(*site, *precision))
    };
    precisions().chunks(sites.len()).map(plan).collect()
}

fn source() -> Source {
    Source {
        name: "built-in".into(),
        hash: ContentHash::of_bytes(b"the built-in model"),
        adapters: None,
        scaling: None,
    }
}

#[test]
fn calibrated_plans_are_the_same_simulated_from_codes_and_packed() {
    let (found, simulated) = (calibrated(Execution::Packed), calibrated(Execution::FakeQuantized));
    let dir = tempfile::tempdir().expect("a folder");
    let plans = plans(&found);
    assert_eq!(plans.len(), 3);
    for (index, plan) in plans.iter().enumerate() {
        let expected = read(&found, plan);
        assert_eq!(read(&simulated, plan), expected, "plan {index}");
        let target = dir.path().join(format!("artefact-{index}"));
        Pack::new(source(), PackedForm::Plan(plan)).write(&found, &target).expect("it packs");
        // Codes know no inputs any more, and need none.
        let opened: Folder = Folder::open(&target, &FolderOptions::default(), &FlexDevice).expect("it opens");
        let own = opened.plan.clone().expect("the plan that it was packed by");
        assert_eq!(read(&opened, &own), expected, "plan {index}");
        for (site, precision) in plan.iter().filter(|(_, precision)| precision.rounding.is_some()) {
            let said = opened.model.transformer.site(site).settings().rounding;
            assert_eq!(Some(SiteRounding::from(said)), precision.rounding, "{site:?}");
        }
    }
}

#[test]
fn sums_of_inputs_do_not_depend_on_how_they_come() {
    let folder = built_in(Execution::Packed);
    let body = &folder.model.transformer;
    let all = windows(&folder);
    let (first, rest) = all.split_at(5);
    let collect = |windows: &[Vec<u32>]| body.collect_moments(windows, &mut |_| Ok(())).expect("finite inputs");
    let (whole, first, rest) = (collect(&all), collect(first), collect(rest));
    let reversed = collect(&all.iter().rev().cloned().collect::<Vec<_>>());
    for site in ["h.0.attn.c_attn", "h.5.mlp.c_proj", "h.11.attn.c_proj"] {
        let [whole, first, rest, reversed] =
            [&whole, &first, &rest, &reversed].map(|moments| moments.get(site).expect("a site"));
        assert_eq!(whole.rows(), first.rows() + rest.rows());
        let (n, of_first) = (whole.rows() as f32, first.rows() as f32);
        for index in 0..whole.second().len() {
            let parts = (first.second()[index] * of_first + rest.second()[index] * (n - of_first)) / n;
            for other in [parts, reversed.second()[index]] {
                let size = whole.second()[index].abs().max(1e-3);
                assert!((whole.second()[index] - other).abs() <= 1e-4 * size, "{site}, {index}");
            }
        }
        for (index, largest) in whole.largest().iter().enumerate() {
            assert_eq!(largest.to_bits(), first.largest()[index].max(rest.largest()[index]).to_bits());
            assert!(whole.mean()[index].abs() <= *largest);
        }
    }
    let nothing = body.collect_moments(&[Vec::new()], &mut |_| Ok(()));
    assert!(nothing.expect_err("no token").to_string().contains("token"));
}

#[test]
fn a_file_of_moments_gives_them_back_or_says_what_is_wrong() {
    let folder = built_in(Execution::Packed);
    let known = moments(&folder);
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("moments.safetensors");
    known.save(&path, "these").expect("it is written");
    let load = || ModelMoments::load(&path, "these");
    let again = load().expect("it reads").expect("of these");
    assert!(known.iter().eq(again.iter()));
    assert!(ModelMoments::load(&path, "others").expect("it reads").is_none());
    let whole = fs::read(&path).expect("it is read");
    for wrong in [whole[..whole.len() / 2].to_vec(), whole[..7].to_vec(), Vec::new(), b"{}".to_vec()] {
        fs::write(&path, wrong).expect("it is written");
        assert!(load().expect_err("it is cut").to_string().contains("moments.safetensors"));
    }
    // The last numbers of the file are those of the last site: no number at all.
    let mut wrong = whole;
    let end = wrong.len();
    wrong[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, wrong).expect("it is written");
    let error = load().expect_err("it is no number").to_string();
    assert!(error.contains("moments.safetensors") && error.contains("h."), "{error}");
}

#[test]
fn roundings_that_go_by_inputs_are_refused_without_them() {
    let folder = built_in(Execution::Packed);
    let body = &folder.model.transformer;
    let gptq = SitePrecision::FULL.with_weights(BitWidth::B3).with_rounding(SiteRounding::Gptq);
    let importance = "per-channel,symmetric,importance".parse().expect("a quantiser");
    let by_range = SitePrecision::FULL.with_weights(BitWidth::B3).with_quantizer(importance);
    let site = body.sites().iter().nth(4).expect("a site");
    for precision in [gptq, by_range] {
        let plan = body.uniform_plan(SitePrecision::FULL).with(site, precision);
        let error = body.check_plan(&plan).expect_err("nothing is known of its inputs").to_string();
        assert!(error.contains("h.1.attn.c_attn") && error.contains("calibrat"), "{error}");
        let dir = tempfile::tempdir().expect("a folder");
        let target = dir.path().join("artefact");
        let error = Pack::new(source(), PackedForm::Plan(&plan)).write(&folder, &target).expect_err("as above");
        assert!(error.to_string().contains("h.1.attn.c_attn") && !target.exists(), "{error}");
    }
    // Codes are of groups that pack.
    let known = calibrated(Execution::FakeQuantized);
    let odd = "per-group:48,symmetric,min-max".parse().expect("a quantiser");
    let plan = body.uniform_plan(SitePrecision::FULL).with(site, gptq.with_quantizer(odd));
    let error = known.model.transformer.check_plan(&plan).expect_err("48 rows").to_string();
    assert!(error.contains("h.1.attn.c_attn") && error.contains("per-group:48"), "{error}");
    // Moments of another model: of other sites, or of other numbers of inputs.
    let error = ModelMoments::default().given_to(built_in(Execution::Packed).model.transformer).expect_err("none");
    assert!(error.to_string().contains("h.0.attn.c_attn"), "{error}");
}

#[test]
fn a_plan_of_a_scaled_model_is_of_no_other() {
    let mut scaled = calibrated(Execution::Packed);
    let choice = ScalingChoice { method: ScalingMethod::Awq, bits: BitWidth::B2 };
    let (body, pairs) = scaled.model.transformer.scaled_by(choice, &mut |_| Ok(())).expect("it folds");
    scaled.model.transformer = body;
    assert_eq!(pairs.len(), 48);
    let bits = SitePrecision::FULL.with_weights(BitWidth::B3);
    let plan = scaled.model.transformer.uniform_plan(bits);
    let named = scaled.model.named_plan(&plan);
    assert_eq!(named.scaling(), Some("awq at 2 bits"));
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("plan.json");
    named.save(&path).expect("it is written");
    let again = PrecisionPlan::load(&path).expect("it is read");
    assert_eq!(again, named);
    assert_eq!(scaled.model.resolve(&again).expect("of this model"), plan);
    for other in [built_in(Execution::Packed), calibrated(Execution::FakeQuantized)] {
        let error = other.model.resolve(&again).expect_err("nothing was folded in").to_string();
        assert!(error.contains("awq at 2 bits") && error.contains("--scaling"), "{error}");
    }
    // Codes were scaled before they were found: the plan of the artefact is theirs.
    let target = dir.path().join("artefact");
    Pack::new(source(), PackedForm::Plan(&plan)).write(&scaled, &target).expect("it packs");
    let opened: Folder = Folder::open(&target, &FolderOptions::default(), &FlexDevice).expect("it opens");
    assert!(opened.model.resolve(&again).is_ok());
    assert_eq!(read(&opened, opened.plan.as_ref().expect("its own")), read(&scaled, &plan));
}
