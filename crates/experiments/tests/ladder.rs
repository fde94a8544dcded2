//! Search down a ladder of widths on a small model.

use serde_json::json;

use experiments::running::memory::Memory;
use experiments::running::progress::ShowProgress;
use experiments::search::allocation::damage::DamageOptions;
use experiments::search::estimates::estimate_damage;
use experiments::search::greedy::{GreedyOptions, GreedyStart, StopAt, TrialLength, greedy_search};
use experiments::search::ladder::ladder_search;
use experiments::search::ladder::options::{LadderOptions, LadderStart};
use experiments::search::ladder::result::LadderStep;
use experiments::search::ladder::rungs::Ladder;
use experiments::search::sensitivity::{Part, SensitivityOptions, sensitivity};
use gpt2_model::Gpt2;
use quant_kernels::spec::bit_width::BitWidth;
use span_reader::cost::plan_bytes;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;

use crate::search::{figures, trained};
use crate::support::{Plain, Training, device, skip_without_device};

fn at(bits: u8) -> SitePrecision {
    SitePrecision::uniform(BitWidth::new(bits).expect("a width")).without_adapter()
}

fn options(bits: &[u8], embeddings: Option<BitWidth>, stop_at: StopAt) -> LadderOptions {
    let ladder = Ladder::new(bits.iter().map(|&bits| at(bits)).collect(), embeddings).expect("a ladder");
    LadderOptions { stop_at, show: ShowProgress::No, ..LadderOptions::new(ladder) }
}

/// Calls a test with an evaluator of a trained model and its plan at full precision.
fn with_evaluator(test: impl FnOnce(&Evaluator<'_, Plain, Gpt2<Plain>>, &SitePlan)) {
    let (task, model) = trained();
    let options = EvaluateOptions { batch_size: 3, ..EvaluateOptions::default() };
    let device = device();
    let evaluator = Evaluator::new(&model, &task, options, &device).expect("valid input");
    test(&evaluator, &model.transformer.uniform_plan(SitePrecision::FULL));
}

/// Takes the step of least harm per byte, every one measured anew each time, down to some mean width.
fn plain_ladder(
    evaluator: &Evaluator<'_, Plain, Gpt2<Plain>>,
    full: &SitePlan,
    rungs: &[u8],
    average_bits: f64,
) -> Vec<(String, u8)> {
    let (_, kept) = evaluator.evaluate_keeping(None, full).expect("valid input");
    let (mut plan, mut harm, mut path) = (full.clone(), 0.0, Vec::new());
    while plan.average_weight_bits() > average_bits {
        let mut best: Option<(f64, f64, SitePlan, (String, u8))> = None;
        for site in full.sites().iter() {
            let bits = plan.get(site).weights.bits();
            let Some(&next) = rungs.iter().find(|&&rung| rung < bits) else { continue };
            let trial = plan.clone().with(site, at(next));
            let found =
                evaluator.evaluate_from(&kept, &trial).expect("valid input").divergence.expect("kept states have one");
            let saves = full.sites().parameters(site) as f64 * f64::from(bits - next) / 8.0;
            let score = (found - harm) / saves;
            if best.as_ref().is_none_or(|(lowest, ..)| score < *lowest) {
                best = Some((score, found, trial, (full.sites().name(site), next)));
            }
        }
        let Some((_, found, trial, step)) = best else { break };
        (plan, harm) = (trial, found);
        path.push(step);
    }
    path
}

#[test]
fn a_ladder_of_two_rungs_is_the_studys_search_to_the_flip() {
    skip_without_device!();
    with_evaluator(|evaluator, full| {
        for (embeddings, stop_at) in [
            (None, StopAt::Tolerance(0.3)),
            (Some(BitWidth::B8), StopAt::Tolerance(0.3)),
            (None, StopAt::AverageBits(12.0)),
        ] {
            let how =
                SensitivityOptions { embeddings, show: ShowProgress::No, ..SensitivityOptions::new(Part::Site, at(2)) };
            let (sites, kept) = sensitivity(evaluator, full, &how).unwrap();
            let start = GreedyStart { reference: full, sensitivity: &sites, kept };
            let greedy = GreedyOptions { embeddings, stop_at, show: ShowProgress::No, ..GreedyOptions::new(at(2)) };
            let (expected, plan) = greedy_search(evaluator, start, &greedy).unwrap();
            let start = LadderStart { reference: full, scores: None };
            let (found, found_plan) = ladder_search(evaluator, start, &options(&[32, 2], embeddings, stop_at)).unwrap();
            assert_eq!(found_plan, plan);
            assert_eq!(found.path.len(), expected.path.len());
            for (step, flip) in found.path.iter().zip(&expected.path) {
                assert_eq!((&step.site, step.accepted, step.bytes), (&flip.site, flip.accepted, flip.bytes));
                assert_eq!((&step.accuracy, step.exact_match), (&flip.accuracy, flip.exact_match));
                let lowest = if step.site.starts_with('w') { 8 } else { 2 };
                assert_eq!((step.from.bits(), step.to.bits()), (32, lowest));
            }
            assert_eq!(found.threshold, expected.threshold);
            assert_eq!(found.accuracy, expected.accuracy);
            assert!(found.path.iter().any(|step| step.accepted));
        }
    });
}

#[test]
fn without_estimates_the_first_steps_are_those_of_the_plain_loop() {
    skip_without_device!();
    with_evaluator(|evaluator, full| {
        let rungs = [32, 8, 4, 2];
        let expected = plain_ladder(evaluator, full, &rungs, 6.0);
        let start = LadderStart { reference: full, scores: None };
        let (found, plan) = ladder_search(evaluator, start, &options(&rungs, None, StopAt::AverageBits(6.0))).unwrap();
        let steps: Vec<(String, u8)> = found.path.iter().map(|step| (step.site.clone(), step.to.bits())).collect();
        assert_eq!(steps[0], expected[0]);
        assert!(plan.average_weight_bits() <= 6.0);
        // Lazily ranked: fewer plans than the plain loop, which ranks every site before each step.
        assert!(found.evaluations < expected.len() * 12 / 2, "{} evaluations", found.evaluations);
        let kept = evaluator.evaluate_keeping(None, full).unwrap().1;
        let harm = |path: &[(String, u8)]| {
            let lower =
                |plan: SitePlan, (site, bits): &(String, u8)| plan.with(full.sites().find(site).unwrap(), at(*bits));
            evaluator.evaluate_from(&kept, &path.iter().fold(full.clone(), lower)).unwrap().divergence.unwrap()
        };
        assert!(harm(&steps) <= 1.25 * harm(&expected), "{} against {}", harm(&steps), harm(&expected));
    });
}

#[test]
fn steps_go_down_one_rung_and_say_what_they_measure() {
    skip_without_device!();
    with_evaluator(|evaluator, full| {
        let body = &evaluator.model().transformer;
        let choices = [8, 4, 2].map(at).to_vec();
        let how = DamageOptions {
            embeddings: vec![BitWidth::B8, BitWidth::B4],
            show: ShowProgress::No,
            ..DamageOptions::new(choices)
        };
        let estimates = estimate_damage::<Training, Gpt2<Training>>(evaluator, full, &how).unwrap();
        let start = LadderStart { reference: full, scores: Some(&estimates) };
        // Finer tolerances undo more steps, some of them one after another.
        let tolerances = [0.05, 0.2, 0.2];
        for (tolerance, trials) in
            tolerances.into_iter().zip([TrialLength::UntilDecided, TrialLength::Whole, TrialLength::UntilDecided])
        {
            let how = options(&[32, 8, 4, 2], Some(BitWidth::B4), StopAt::Tolerance(tolerance));
            let (found, plan) = ladder_search(evaluator, start, &LadderOptions { trials, ..how }).unwrap();
            let threshold = found.threshold.unwrap();
            let mut here = full.clone();
            for step in &found.path {
                let site = full.sites().find(&step.site).unwrap();
                let rungs: &[u8] = if site.block.is_some() { &[32, 8, 4, 2] } else { &[32, 8, 4] };
                let below = rungs.iter().position(|&bits| bits == step.from.bits()).map(|rung| rungs[rung + 1]);
                assert_eq!((here.get(site).weights, Some(step.to.bits())), (step.from, below), "{}", step.site);
                let trial = here.clone().with(site, at(step.to.bits()));
                assert_eq!(step.accepted, step.exact_match.low > threshold, "{}", step.site);
                if let Some(accuracy) = &step.accuracy {
                    assert_eq!(figures(accuracy), figures(&evaluator.evaluate(&trial).unwrap()), "{}", step.site);
                }
                if step.accepted {
                    here = trial;
                }
            }
            assert_eq!(body.implicit_plan(&here), body.implicit_plan(&plan));
            assert_eq!(figures(&found.accuracy), figures(&evaluator.evaluate(&plan).unwrap()));
            assert!(found.accuracy.exact_match > threshold);
            let undone: Vec<&LadderStep> = found.path.iter().filter(|step| !step.accepted).collect();
            let mut names: Vec<&str> = undone.iter().map(|step| step.site.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), undone.len(), "a site whose step was undone stays where it is");
            assert!(found.path.iter().any(|step| step.site == "wte" && step.accepted));
        }
    });
}

#[test]
fn a_search_by_bytes_ends_within_them_and_one_out_of_reach_is_refused() {
    skip_without_device!();
    with_evaluator(|evaluator, full| {
        let body = &evaluator.model().transformer;
        let start = LadderStart { reference: full, scores: None };
        let budget = plan_bytes(body, full) / 6;
        let (_, plan) =
            ladder_search(evaluator, start, &options(&[32, 8, 3], None, StopAt::SiteBytes(budget))).unwrap();
        assert!(plan_bytes(body, &plan) <= budget);
        for stop_at in [StopAt::SiteBytes(10), StopAt::AverageBits(2.5), StopAt::Tolerance(1.5)] {
            assert!(ladder_search(evaluator, start, &options(&[32, 8, 3], None, stop_at)).is_err(), "{stop_at:?}");
        }
    });
}

#[test]
fn a_search_goes_on_from_any_step_with_the_same_result() {
    skip_without_device!();
    with_evaluator(|evaluator, full| {
        let dir = tempfile::tempdir().unwrap();
        let known = || Memory::folder(dir.path(), json!({ "model": "tiny" })).parts("ladder", json!({ "seed": 1 }));
        let start = LadderStart { reference: full, scores: None };
        let plain = options(&[32, 8, 2], None, StopAt::Tolerance(0.3));
        let kept = LadderOptions { known: known(), ..plain.clone() };
        let whole = ladder_search(evaluator, start, &kept).unwrap();
        assert_eq!(whole, ladder_search(evaluator, start, &plain).unwrap());
        let file = |step: usize| dir.path().join("ladder").join(format!("step-{step:04}.json"));
        let rounds = (1..10_000).take_while(|&step| file(step).exists()).count();
        assert!(rounds > 6, "{rounds}");
        for known_at_first in [0, 1, rounds / 2, rounds - 1, rounds] {
            (known_at_first + 1..=rounds).for_each(|step| std::fs::remove_file(file(step)).unwrap());
            assert_eq!(ladder_search(evaluator, start, &kept).unwrap(), whole, "{known_at_first} steps known");
        }
        let text = std::fs::read_to_string(file(1)).unwrap();
        std::fs::write(file(1), text.replace(&whole.0.path[0].site, "h.9.mlp.c_fc")).unwrap();
        let error = ladder_search(evaluator, start, &kept).unwrap_err().to_string();
        assert!(error.contains("h.9.mlp.c_fc"), "{error}");
    });
}
