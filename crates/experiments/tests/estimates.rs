//! Estimated damages against measured ones, on a small model.

use experiments::error::Error;
use experiments::running::memory::{Memory, Parts};
use experiments::running::progress::ShowProgress;
use experiments::running::share::Share;
use experiments::search::allocation::damage::{DamageMeasure, DamageOptions, DamageTable, measure_damage};
use experiments::search::estimates::estimate_damage;
use experiments::search::estimates::settle::SettleOptions;
use gpt2_model::{Gpt2, Gpt2ForQuestionAnswering};
use quant_kernels::spec::bit_width::BitWidth;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::reading::ReadingTask;
use span_reader::running::workers::Workers;
use switchable_lora::linear_settings::BasePolicy;
use switchable_lora::lora_config::{LoraConfig, LoraInit};
use switchable_lora::site_precision::{SitePrecision, SiteRounding};
use switchable_model::model::SwitchableModel;

use crate::search::trained;
use crate::support::{Plain, Training, device, skip_without_device};

fn at(bits: u8) -> SitePrecision {
    SitePrecision::uniform(BitWidth::new(bits).expect("a width")).without_adapter()
}

fn options(measure: DamageMeasure, seed: u64) -> DamageOptions {
    let choices = vec![SitePrecision::FULL, at(8), at(6), at(4), at(2)];
    DamageOptions { measure, seed, show: ShowProgress::No, ..DamageOptions::new(choices) }
}

fn evaluator<'a>(
    model: &'a Gpt2ForQuestionAnswering<Plain>,
    task: &'a ReadingTask,
    workers: usize,
) -> Evaluator<'a, Plain, Gpt2<Plain>> {
    let options = EvaluateOptions { workers: Workers::new(workers), ..EvaluateOptions::default() };
    Evaluator::new(model, task, options, &device()).expect("valid input")
}

/// Damages at a width, site after site.
fn at_width(table: &DamageTable, bits: u8) -> Vec<f64> {
    let of_width =
        table.sites.iter().flat_map(|row| &row.choices).filter(|choice| choice.precision.weights.bits() == bits);
    of_width.map(|choice| choice.by(table.measure)).collect()
}

#[test]
fn divergence_of_small_changes_is_what_is_measured() {
    skip_without_device!();
    let (task, model) = trained();
    let evaluator = evaluator(&model, &task, 2);
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    let measured = measure_damage(&evaluator, &full, &options(DamageMeasure::Divergence, 1)).unwrap();
    let tables: Vec<DamageTable> = (0..8)
        .map(|seed| {
            let options = options(DamageMeasure::Divergence, seed);
            estimate_damage::<Training, Gpt2<Training>>(&evaluator, &full, &options).unwrap()
        })
        .collect();
    // The mean over seeds comes to what is measured, where the second order is all there is.
    for bits in [8, 6] {
        let expected = at_width(&measured, bits);
        for (site, expected) in expected.into_iter().enumerate() {
            let found = tables.iter().map(|table| at_width(table, bits)[site]).sum::<f64>() / tables.len() as f64;
            let ratio = found / expected;
            assert!((0.6..1.7).contains(&ratio), "site {site} at {bits} bits: {found:.3e} for {expected:.3e}");
        }
    }
    let validation = measured.validate(&tables[0], &[]).unwrap();
    assert!(validation.all.coefficient > 0.95, "{:?}", validation.all);
    assert_eq!(validation.all.cells, 12 * 4);
    assert_eq!(validation.by_width.iter().map(|(bits, _)| bits.bits()).collect::<Vec<_>>(), [2, 4, 6, 8]);
    assert!(validation.work_ratio > 5.0, "{}", validation.work_ratio);
    for row in &tables[0].sites {
        assert!(row.choices.iter().all(|choice| choice.is_estimated() && choice.loss.is_none()));
        assert_eq!(row.choices[0].divergence.to_bits(), 0.0f64.to_bits(), "the reference changes nothing");
    }
}

#[test]
fn a_quantised_reference_is_where_gradients_are_taken() {
    skip_without_device!();
    let (task, mut model) = trained();
    let lora = LoraConfig::new(2, 2.0).unwrap().with_init(LoraInit::LoftQ { iterations: 1 });
    model.transformer = model.transformer.with_policy(BasePolicy::Frozen);
    model.transformer.init_adapters(BitWidth::B4, &lora, 1).unwrap();
    let evaluator = evaluator(&model, &task, 2);
    let four = SitePrecision::uniform(BitWidth::B4).with_adapter(BitWidth::B4).with_rounding(SiteRounding::Hqq);
    let reference = model.transformer.uniform_plan(four);
    let choices = vec![four, at(8)];
    let how = |seed| DamageOptions { seed, show: ShowProgress::No, ..DamageOptions::new(choices.clone()) };
    let measured = measure_damage(&evaluator, &reference, &how(0)).unwrap();
    let of_seed = |seed| estimate_damage::<Training, Gpt2<Training>>(&evaluator, &reference, &how(seed)).unwrap();
    let tables: Vec<DamageTable> = (0..8).map(of_seed).collect();
    for (site, expected) in at_width(&measured, 8).into_iter().enumerate() {
        let found = tables.iter().map(|table| at_width(table, 8)[site]).sum::<f64>() / tables.len() as f64;
        assert!((0.4..2.5).contains(&(found / expected)), "site {site}: {found:.3e} for {expected:.3e}");
    }
    assert!(at_width(&tables[0], 4).iter().all(|damage| damage.to_bits() == 0.0f64.to_bits()));
}

#[test]
fn loss_of_small_changes_is_that_of_the_first_order() {
    skip_without_device!();
    let (task, model) = trained();
    let evaluator = evaluator(&model, &task, 1);
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    let how = options(DamageMeasure::Loss, 1);
    let measured = measure_damage(&evaluator, &full, &how).unwrap();
    let estimated = estimate_damage::<Training, Gpt2<Training>>(&evaluator, &full, &how).unwrap();
    let [expected, found] = [&measured, &estimated].map(|table| at_width(table, 8));
    let largest = expected.iter().fold(0.0f64, |largest, loss| largest.max(loss.abs()));
    for (site, (expected, found)) in expected.iter().zip(&found).enumerate() {
        assert!((expected - found).abs() < 0.1 * largest, "site {site}: {found:.3e} for {expected:.3e}");
    }
    assert!(expected.iter().any(|loss| *loss < 0.0) || expected.iter().any(|loss| *loss > 0.0));
}

#[test]
fn estimates_are_the_same_for_any_number_of_workers_and_known_again() {
    skip_without_device!();
    let (task, model) = trained();
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    let dir = tempfile::tempdir().unwrap();
    let known =
        Memory::folder(dir.path(), serde_json::json!({ "model": "tiny" })).parts("sites", serde_json::json!(null));
    let how = options(DamageMeasure::Divergence, 3);
    let of = |workers: usize, how: &DamageOptions| {
        estimate_damage::<Training, Gpt2<Training>>(&evaluator(&model, &task, workers), &full, how).unwrap()
    };
    let one = of(1, &how);
    assert_eq!(one, of(3, &how));
    let kept = DamageOptions { known, ..how };
    let (first, again) = (of(2, &kept), of(2, &kept));
    assert_eq!(first.sites, one.sites);
    assert_eq!(first, again);
}

#[test]
fn adapters_count_in_what_a_precision_changes() {
    skip_without_device!();
    let (task, mut model) = trained();
    let lora = LoraConfig::new(2, 2.0).unwrap().with_init(LoraInit::LoftQ { iterations: 1 });
    model.transformer.init_adapters(BitWidth::B2, &lora, 1).unwrap();
    let evaluator = evaluator(&model, &task, 2);
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    let choices = vec![at(2), SitePrecision::uniform(BitWidth::B2).with_adapter(BitWidth::B2)];
    let how = DamageOptions { embeddings: vec![BitWidth::B4], show: ShowProgress::No, ..DamageOptions::new(choices) };
    let found = estimate_damage::<Training, Gpt2<Training>>(&evaluator, &full, &how).unwrap();
    let [embeddings, linear] = [true, false].map(|of_embeddings| {
        found.sites.iter().filter(|row| row.site.block.is_none() == of_embeddings).collect::<Vec<_>>()
    });
    assert_eq!((embeddings.len(), linear.len()), (2, 12));
    assert!(embeddings.iter().all(|row| row.choices.len() == 1 && row.choices[0].divergence > 0.0));
    let helped = linear.iter().filter(|row| row.choices[1].divergence < row.choices[0].divergence).count();
    assert!(helped >= 10, "adapters from the residual help at {helped} of 12 sites");
}

#[test]
fn activations_and_codes_are_refused() {
    skip_without_device!();
    let (task, model) = trained();
    let evaluator = evaluator(&model, &task, 1);
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    let how =
        DamageOptions { show: ShowProgress::No, ..DamageOptions::new(vec![at(8).with_activations(BitWidth::B8)]) };
    let error = estimate_damage::<Training, Gpt2<Training>>(&evaluator, &full, &how).unwrap_err().to_string();
    assert!(error.contains("activations at 8 bits") && error.contains("of weights"), "{error}");
}

#[test]
fn damages_that_processes_measure_apart_settle_the_same_plans() {
    skip_without_device!();
    let (task, model) = trained();
    let evaluator = evaluator(&model, &task, 2);
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    let estimated =
        estimate_damage::<Training, Gpt2<Training>>(&evaluator, &full, &options(DamageMeasure::Divergence, 1)).unwrap();
    let budgets = [2.5, 6.0].map(|bits| estimated.bytes_at(bits));
    let dir = tempfile::tempdir().unwrap();
    let settle = |share: &Share| {
        let memory = Memory::folder(dir.path(), serde_json::json!({ "model": "tiny" })).shared(share.clone());
        let known = memory.parts("cells", serde_json::json!(null));
        estimated.settle(&evaluator, &full, &SettleOptions { budgets: budgets.into(), show: ShowProgress::No, known })
    };
    let mut rounds = 0;
    loop {
        let listing = Share::listing(dir.path());
        let settled = settle(&listing);
        let missing: Vec<_> = listing.items().into_iter().filter(|item| !item.done).collect();
        if missing.is_empty() {
            let whole = SettleOptions { budgets: budgets.into(), show: ShowProgress::No, ..SettleOptions::default() };
            assert_eq!(settled.unwrap(), estimated.settle(&evaluator, &full, &whole).unwrap());
            break;
        }
        assert!(matches!(settled, Err(Error::Elsewhere)));
        for item in missing.iter().rev() {
            let share = Share::item(dir.path(), item.key.clone());
            assert!(matches!(settle(&share), Err(Error::Elsewhere)) && share.is_over(), "{}", item.key);
        }
        rounds += 1;
    }
    assert!(rounds > 1, "the next plan of a budget hangs on what is measured of the one before");
}

#[test]
fn a_settled_plan_is_measured_and_no_worse_than_that_of_the_whole_table() {
    skip_without_device!();
    let (task, model) = trained();
    let evaluator = evaluator(&model, &task, 2);
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    let how = options(DamageMeasure::Divergence, 1);
    let measured = measure_damage(&evaluator, &full, &how).unwrap();
    let estimated = estimate_damage::<Training, Gpt2<Training>>(&evaluator, &full, &how).unwrap();
    for bits in [2.5, 4.0, 6.0, 8.0] {
        let budget = measured.bytes_at(bits);
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::folder(dir.path(), serde_json::json!({ "model": "tiny" }));
        let settle = |known, budgets: &[usize]| {
            let how = SettleOptions { budgets: budgets.to_vec(), show: ShowProgress::No, known };
            estimated.settle(&evaluator, &full, &how).unwrap().pop().unwrap()
        };
        let parts = || memory.parts("cells", serde_json::json!(null));
        let settled = settle(parts(), &[budget]);
        assert_eq!(settled, settle(parts(), &[budget]), "what is known changes nothing");
        assert_eq!(settled, settle(Parts::default(), &[measured.bytes_at(3.0), budget]), "nor do other budgets");
        let (found, best) = (settled.best_under(budget).unwrap(), measured.best_under(budget).unwrap());
        // The plan's damage is the measured one: no plan of the measured table has less.
        assert!(found.damage >= best.damage);
        assert!(found.damage <= 1.2 * best.damage + 1e-9, "{bits} bits: {} against {}", found.damage, best.damage);
        assert!(settled.estimated() > 0 && settled.estimated() < estimated.estimated());
        for (row, all) in settled.sites.iter().zip(&measured.sites) {
            for (choice, exact) in row.choices.iter().zip(&all.choices).filter(|(choice, _)| !choice.is_estimated()) {
                assert_eq!(choice, exact);
            }
        }
    }
}
