//! Sensitivity and greedy search: re-used prefixes change no decision.

use serde_json::json;

use experiments::running::memory::Memory;
use experiments::running::progress::ShowProgress;
use experiments::search::greedy::{GreedyOptions, GreedyStart, Ranking, StopAt, TrialLength, greedy_search};
use experiments::search::harm_order::HarmOrder;
use experiments::search::sensitivity::{Part, SensitivityOptions, sensitivity};
use gpt2_model::Gpt2;
use quant_kernels::spec::bit_width::BitWidth;
use span_reader::cost::plan_bytes;
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::running::workers::Workers;
use switchable_lora::{
    linear_settings::{BasePolicy, Execution, LinearSettings},
    site_precision::SitePrecision,
};
use switchable_model::config::ModelConfig;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::Site;

use crate::support::{Plain, device, model, skip_without_device, task, train_config, training};

fn low() -> SitePrecision {
    SitePrecision::uniform(BitWidth::B2).without_adapter()
}

/// Everything an accuracy says, to the bit.
pub(crate) fn figures(accuracy: &Accuracy) -> (u64, u64, Option<u64>, Vec<u64>) {
    let scores = accuracy.scores.iter().map(|score| score.f1.to_bits()).collect();
    (accuracy.exact_match.to_bits(), accuracy.f1.to_bits(), accuracy.loss.map(f64::to_bits), scores)
}

pub(crate) fn trained() -> (span_reader::evaluation::reading::ReadingTask, gpt2_model::Gpt2ForQuestionAnswering<Plain>)
{
    use burn::module::AutodiffModule as _;
    let (_, config, task) = task(4);
    let start = model::<crate::support::Training>(&config, BasePolicy::Trainable);
    let (model, _) =
        experiments::banks::bank::train_base(start, &task, training(&train_config(150), &crate::support::quiet(2)))
            .expect("it trains");
    (task, model.valid())
}

#[test]
fn kept_states_give_the_accuracy_of_the_whole_forward_pass() {
    skip_without_device!();
    let (_, config, task) = task(5);
    let model = model::<Plain>(&config, BasePolicy::Frozen);
    let device = device();
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    // Room for every block, for every second or third one, and for none but the first.
    for kept_state_bytes in [1 << 30, 120_000, 1] {
        let options = EvaluateOptions { batch_size: 4, kept_state_bytes, ..EvaluateOptions::default() };
        let evaluator = Evaluator::new(&model, &task, options, &device).unwrap();
        let (_, kept) = evaluator.evaluate_keeping(None, &full).unwrap();
        let sites = config.sites();
        for site in sites.iter().chain(sites.embeddings()) {
            let plan = full.clone().with(site, low());
            let whole = figures(&evaluator.evaluate(&plan).unwrap());
            assert_eq!(figures(&evaluator.evaluate_from(&kept, &plan).unwrap()), whole, "{site:?}");
            let (accuracy, kept_there) = evaluator.evaluate_keeping(Some(&kept), &plan).unwrap();
            assert_eq!(figures(&accuracy), whole, "{site:?}");
            // And back from there.
            let back = evaluator.evaluate_from(&kept_there, &full).unwrap();
            assert_eq!(figures(&back), figures(&evaluator.evaluate(&full).unwrap()), "{site:?}");
        }
        let same = evaluator.evaluate_from(&kept, &full).unwrap();
        assert_eq!(figures(&same), figures(&evaluator.evaluate(&full).unwrap()));
    }
}

#[test]
fn several_workers_give_the_same_accuracy() {
    skip_without_device!();
    let (_, config, task) = task(5);
    let model = model::<Plain>(&config, BasePolicy::Frozen);
    let device = device();
    let plan = model.transformer.uniform_plan(low());
    let run = |workers| {
        let options = EvaluateOptions { batch_size: 4, workers: Workers::new(workers), ..EvaluateOptions::default() };
        figures(&Evaluator::new(&model, &task, options, &device).unwrap().evaluate(&plan).unwrap())
    };
    let alone = run(1);
    for workers in [2, 3, 4] {
        assert_eq!(run(workers), alone, "{workers} workers");
    }
}

/// The search written out: every evaluation from the first block, over every question.
fn plain_search(
    evaluator: &Evaluator<'_, Plain, Gpt2<Plain>>,
    reference: &SitePlan,
    ranking: Ranking,
    may_go_on: impl Fn(&SitePlan, &Accuracy) -> bool,
    is_accepted: impl Fn(&Accuracy) -> bool,
) -> (Vec<String>, SitePlan, usize) {
    let flip = |plan: &SitePlan, site| evaluator.evaluate(&plan.clone().with(site, low())).expect("evaluates");
    let rank = |plan: &SitePlan, sites: Vec<Site>| -> Vec<Site> {
        let mut alone: Vec<(Site, Accuracy)> = sites.into_iter().map(|site| (site, flip(plan, site))).collect();
        alone.sort_by(|(a_site, a), (b_site, b)| {
            let key = |x: &Accuracy| (-x.exact_match, -x.f1, x.loss.expect("gold spans"));
            key(a).partial_cmp(&key(b)).expect("numbers").then(a_site.cmp(b_site))
        });
        alone.into_iter().map(|(site, _)| site).collect()
    };
    let mut plan = reference.clone();
    let mut left = rank(&plan, evaluator.model().config().sites().iter().collect());
    let (mut flipped, mut tried) = (Vec::new(), 0);
    let mut accuracy = evaluator.evaluate(&plan).expect("evaluates");
    while !left.is_empty() && may_go_on(&plan, &accuracy) {
        if ranking == Ranking::AfterEachFlip {
            left = rank(&plan, left);
        }
        let site = left.remove(0);
        tried += 1;
        accuracy = flip(&plan, site);
        if !is_accepted(&accuracy) {
            break;
        }
        plan = plan.with(site, low());
        flipped.push(plan.sites().name(site));
    }
    (flipped, plan, tried)
}

/// The flips of a search and its plan.
fn found(
    task: &span_reader::evaluation::reading::ReadingTask,
    model: &gpt2_model::Gpt2ForQuestionAnswering<Plain>,
    embeddings: Option<BitWidth>,
) -> (Vec<(String, bool)>, SitePlan, Vec<String>) {
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    let device = device();
    let evaluator = Evaluator::new(model, task, EvaluateOptions::default(), &device).expect("valid input");
    let how = SensitivityOptions { embeddings, show: ShowProgress::No, ..SensitivityOptions::new(Part::Site, low()) };
    let (sites, kept) = sensitivity(&evaluator, &full, &how).expect("valid input");
    let ranked = sites.by_harm(HarmOrder::default()).into_iter().map(|effect| effect.name.clone()).collect();
    let options = GreedyOptions { embeddings, show: ShowProgress::No, ..GreedyOptions::new(low()) };
    let start = GreedyStart { reference: &full, sensitivity: &sites, kept };
    let (result, plan) = greedy_search(&evaluator, start, &options).expect("valid input");
    (result.path.iter().map(|flip| (flip.site.clone(), flip.accepted)).collect(), plan, ranked)
}

#[test]
fn a_search_decides_the_same_from_codes_as_from_rounded_floats() {
    skip_without_device!();
    let (task, model) = trained();
    let execution = |execution| {
        let settings = LinearSettings { execution, ..model.transformer.settings() };
        model.clone().with_linear_settings(settings)
    };
    for embeddings in [None, Some(BitWidth::B8)] {
        let simulated = found(&task, &execution(Execution::FakeQuantized), embeddings);
        let from_codes = found(&task, &execution(Execution::Packed), embeddings);
        assert_eq!(from_codes, simulated);
        let (path, plan, ranked) = from_codes;
        assert_eq!(ranked.iter().any(|name| name == "wte"), embeddings.is_some());
        let flipped = path.iter().any(|(site, accepted)| site == "wpe" && *accepted);
        assert_eq!(
            plan.embeddings().any(|(_, precision)| precision.weights == BitWidth::B8),
            flipped || path.iter().any(|(site, accepted)| site == "wte" && *accepted)
        );
    }
}

#[test]
fn a_search_goes_on_from_any_flip_with_the_same_result() {
    skip_without_device!();
    let (task, model) = trained();
    let how = SensitivityOptions { seed: 1, show: ShowProgress::No, ..SensitivityOptions::new(Part::Site, low()) };
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    let device = device();
    let evaluator = Evaluator::new(&model, &task, EvaluateOptions::default(), &device).unwrap();
    let (sites, kept) = sensitivity(&evaluator, &full, &how).unwrap();
    for ranking in [Ranking::Once, Ranking::AfterEachFlip] {
        let plain = GreedyOptions {
            stop_at: StopAt::AverageBits(10.0),
            ranking,
            show: ShowProgress::No,
            ..GreedyOptions::new(low())
        };
        let start = || GreedyStart { reference: &full, sensitivity: &sites, kept: kept.clone() };
        let dir = tempfile::tempdir().unwrap();
        let known = Memory::folder(dir.path(), json!({ "model": "tiny" })).parts("flips", json!({ "seed": 1 }));
        let options = GreedyOptions { known, ..plain.clone() };
        let file = |flip: usize| dir.path().join("flips").join(format!("flip-{flip:03}.json"));
        let whole = greedy_search(&evaluator, start(), &options).unwrap();
        assert_eq!(whole, greedy_search(&evaluator, start(), &plain).unwrap());
        let flips = whole.0.path.len();
        assert!(flips > 3, "{flips}");
        assert!((1..=flips).all(|flip| file(flip).is_file()) && !file(flips + 1).exists());
        for known_at_first in 0..=flips {
            (known_at_first + 1..=flips).for_each(|flip| std::fs::remove_file(file(flip)).unwrap());
            assert_eq!(
                greedy_search(&evaluator, start(), &options).unwrap(),
                whole,
                "{ranking:?}, {known_at_first} flips known"
            );
        }

        let text = std::fs::read_to_string(file(1)).unwrap();
        std::fs::write(file(1), text.replace(&whole.0.path[0].site, "h.9.mlp.c_fc")).unwrap();
        let error = greedy_search(&evaluator, start(), &options);
        assert!(error.unwrap_err().to_string().contains("h.9.mlp.c_fc"));
    }
}

#[test]
fn greedy_search_decides_as_the_plain_loop_does() {
    skip_without_device!();
    let (task, model) = trained();
    let device = device();
    let how = SensitivityOptions { seed: 1, show: ShowProgress::No, ..SensitivityOptions::new(Part::Site, low()) };
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    // Batches of three windows, two at once: a trial can be decided after each pair.
    let options = EvaluateOptions { batch_size: 3, workers: Workers::new(2), ..EvaluateOptions::default() };
    let evaluator = Evaluator::new(&model, &task, options, &device).unwrap();
    let (sites, kept) = sensitivity(&evaluator, &full, &how).unwrap();
    assert!(sites.reference.exact_match > 0.0, "the model must know something for the search to mean anything");
    let mut seen_rejected = false;
    for tolerance in [0.1, 0.3, 0.6] {
        for ranking in [Ranking::Once, Ranking::AfterEachFlip] {
            let threshold = (1.0 - tolerance) * sites.reference.exact_match;
            let (flipped, expected, tried) =
                plain_search(&evaluator, &full, ranking, |_, _| true, |accuracy| accuracy.exact_match > threshold);
            let mut computed = Vec::new();
            for trials in [TrialLength::Whole, TrialLength::UntilDecided] {
                let options = GreedyOptions {
                    stop_at: StopAt::Tolerance(tolerance),
                    ranking,
                    trials,
                    show: ShowProgress::No,
                    ..GreedyOptions::new(low())
                };
                let (result, plan) = greedy_search(
                    &evaluator,
                    GreedyStart { reference: &full, sensitivity: &sites, kept: kept.clone() },
                    &options,
                )
                .unwrap();
                assert_eq!(result.flipped, flipped, "{options:?}");
                assert_eq!(plan, expected, "{options:?}");
                assert_eq!(result.path.len(), tried, "{options:?}");
                assert_eq!(figures(&result.accuracy), figures(&evaluator.evaluate(&plan).unwrap()), "{options:?}");
                assert!(result.accuracy.exact_match > threshold);
                for flip in &result.path {
                    assert_eq!(flip.accepted, flip.exact_match.low > threshold, "{flip:?}");
                    assert!(flip.accepted || flip.exact_match.high <= threshold, "{flip:?}");
                    assert!(flip.accuracy.is_some() || (trials == TrialLength::UntilDecided && !flip.accepted));
                }
                seen_rejected |= result.path.iter().any(|flip| flip.accuracy.is_none());
                computed.push(result.work.blocks_computed);
                assert!(result.work.blocks_computed < result.work.blocks_plain);
            }
            assert!(computed[1] <= computed[0]);
            if ranking == Ranking::AfterEachFlip {
                assert!(computed[1] < computed[0], "no trial was decided early at tolerance {tolerance}: {computed:?}");
            }
        }
    }
    assert!(seen_rejected, "no rejected flip was decided early");
}

#[test]
fn greedy_search_by_size_flips_until_the_plan_is_as_small_as_asked() {
    skip_without_device!();
    let (_, config, task) = task(3);
    let model = model::<Plain>(&config, BasePolicy::Frozen);
    let device = device();
    let evaluator = Evaluator::new(&model, &task, EvaluateOptions::default(), &device).unwrap();
    let full = model.transformer.uniform_plan(SitePrecision::uniform(BitWidth::B8).without_adapter());
    let how = SensitivityOptions { seed: 1, show: ShowProgress::No, ..SensitivityOptions::new(Part::Site, low()) };
    let (sites, kept) = sensitivity(&evaluator, &full, &how).unwrap();
    let bytes = |plan: &SitePlan| plan_bytes(&model.transformer, plan);
    let half = bytes(&full) / 2;
    for ranking in [Ranking::Once, Ranking::AfterEachFlip] {
        for stop_at in [StopAt::SiteBytes(half), StopAt::AverageBits(5.0), StopAt::AverageBits(8.0)] {
            let is_large = |plan: &SitePlan| match stop_at {
                StopAt::SiteBytes(most) => bytes(plan) > most,
                StopAt::AverageBits(most) => plan.average_weight_bits() > most,
                StopAt::Tolerance(_) => unreachable!(),
            };
            let options = GreedyOptions { stop_at, ranking, show: ShowProgress::No, ..GreedyOptions::new(low()) };
            let (result, plan) = greedy_search(
                &evaluator,
                GreedyStart { reference: &full, sensitivity: &sites, kept: kept.clone() },
                &options,
            )
            .unwrap();
            let (flipped, expected, _) = plain_search(&evaluator, &full, ranking, |plan, _| is_large(plan), |_| true);
            assert_eq!(result.flipped, flipped, "{options:?}");
            assert_eq!(plan, expected, "{options:?}");
            assert!(!is_large(&plan) && result.threshold.is_none());
            assert_eq!(result.path.last().map_or(bytes(&full), |flip| flip.bytes), bytes(&plan));
        }
    }
}

#[test]
fn work_counts_the_blocks_from_the_first_change_on() {
    skip_without_device!();
    let (_, config, task) = task(2);
    let model = model::<Plain>(&config, BasePolicy::Frozen);
    let device = device();
    let options = EvaluateOptions { batch_size: 4, ..EvaluateOptions::default() };
    let evaluator = Evaluator::new(&model, &task, options, &device).unwrap();
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    let how = SensitivityOptions { seed: 1, show: ShowProgress::No, ..SensitivityOptions::new(Part::Site, low()) };
    let (sites, _) = sensitivity(&evaluator, &full, &how).unwrap();
    // Three blocks: the reference all, then four sites in each of block 0, 1 and 2.
    let windows = task.features.len() as u64;
    assert_eq!(sites.work.blocks_computed, windows * (3 + 4 * (3 + 2 + 1)));
    assert_eq!(sites.work.blocks_plain, windows * 3 * (1 + 12));
    assert!((sites.work.saved() - (1.0 - 27.0 / 39.0)).abs() < 1e-12);
}

#[test]
fn layers_and_sites_are_all_changed_once() {
    skip_without_device!();
    let (_, config, task) = task(2);
    let model = model::<Plain>(&config, BasePolicy::Frozen);
    let device = device();
    let evaluator = Evaluator::new(&model, &task, EvaluateOptions::default(), &device).unwrap();
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    for (part, names) in [(Part::Block, config.n_layer), (Part::Site, config.sites().len())] {
        let how = SensitivityOptions { seed: 1, show: ShowProgress::No, ..SensitivityOptions::new(part, low()) };
        let (effects, _) = sensitivity(&evaluator, &full, &how).unwrap();
        let mut found: Vec<&str> = effects.effects.iter().map(|effect| effect.name.as_str()).collect();
        found.dedup();
        assert_eq!(found.len(), names);
        let order = effects.by_harm(HarmOrder::ExactMatch);
        assert!(order.windows(2).all(|pair| pair[0].accuracy.exact_match >= pair[1].accuracy.exact_match));
    }
}

#[test]
fn divergence_is_from_the_first_plan_kept_and_orders_by_harm() {
    skip_without_device!();
    let (_, config, task) = task(3);
    let model = model::<Plain>(&config, BasePolicy::Frozen);
    let device = device();
    let options = EvaluateOptions { batch_size: 4, ..EvaluateOptions::default() };
    let evaluator = Evaluator::new(&model, &task, options, &device).unwrap();
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    let low_plan = model.transformer.uniform_plan(low());
    assert_eq!(evaluator.evaluate(&low_plan).unwrap().divergence, None);

    let (reference, kept) = evaluator.evaluate_keeping(None, &full).unwrap();
    assert_eq!(reference.divergence, None);
    assert_eq!(evaluator.evaluate_from(&kept, &full).unwrap().divergence, Some(0.0));
    let (changed, kept_low) = evaluator.evaluate_keeping(Some(&kept), &low_plan).unwrap();
    let divergence = changed.divergence.unwrap();
    assert!(divergence > 0.0 && divergence.is_finite(), "{divergence}");
    // The reference stays that of the first plan, whatever the states are of.
    assert_eq!(evaluator.evaluate_from(&kept_low, &full).unwrap().divergence, Some(0.0));
    assert_eq!(evaluator.evaluate_from(&kept_low, &low_plan).unwrap().divergence, Some(divergence));

    let how = SensitivityOptions { seed: 1, show: ShowProgress::No, ..SensitivityOptions::new(Part::Site, low()) };
    let (sites, _) = sensitivity(&evaluator, &full, &how).unwrap();
    let divergences =
        |order| -> Vec<f64> { sites.by_harm(order).iter().map(|effect| effect.accuracy.divergence.unwrap()).collect() };
    assert!(divergences(HarmOrder::Divergence).is_sorted());
    assert!(!divergences(HarmOrder::ExactMatch).is_sorted(), "the orders must differ for the test to mean anything");
    let losses: Vec<f64> = sites.by_harm(HarmOrder::Loss).iter().map(|e| e.accuracy.loss.unwrap()).collect();
    assert!(losses.is_sorted());
}

#[test]
fn an_accuracy_saved_without_divergence_is_read() {
    let json = r#"{"exact_match": 50.0, "exact_match_interval": {"low": 9.0, "high": 91.0}, "f1": 50.0,
        "f1_interval": {"low": 0.0, "high": 100.0}, "loss": null, "n": 2}"#;
    let accuracy: Accuracy = serde_json::from_str(json).unwrap();
    assert_eq!(accuracy.divergence, None);
    assert!(!serde_json::to_string(&accuracy).unwrap().contains("divergence"));
}
