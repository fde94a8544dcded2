//! Exact allocation on a small model: the table, what is found in it, and swaps.

use experiments::running::memory::Memory;
use experiments::running::progress::ShowProgress;
use experiments::search::allocation::budgets::{BudgetOptions, BudgetRange};
use experiments::search::allocation::damage::{DamageMeasure, DamageOptions, DamageTable, measure_damage};
use experiments::search::allocation::equal_bytes::GreedyPath;
use experiments::search::allocation::pareto::Allocation;
use experiments::search::allocation::swaps::{RefineFrom, RefineOptions};
use experiments::search::greedy::{GreedyOptions, GreedyStart, StopAt, greedy_search};
use experiments::search::harm_order::HarmOrder;
use experiments::search::sensitivity::{Part, SensitivityOptions, sensitivity};
use experiments::search::text::{budgets_text, equal_bytes_text};
use gpt2_model::{Gpt2, Gpt2ForQuestionAnswering};
use quant_kernels::spec::bit_width::BitWidth;
use span_reader::cost::{embedding_bytes, plan_bytes};
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use switchable_lora::{linear_settings::BasePolicy, lora_config::LoraConfig, site_precision::SitePrecision};
use switchable_model::config::ModelConfig;
use switchable_model::model::SwitchableModel;
use switchable_model::named_plans::NamedPlans as _;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::Sites;

use crate::support::{Plain, device, model, skip_without_device, task};

fn at(bits: BitWidth) -> SitePrecision {
    SitePrecision::uniform(bits).without_adapter()
}

fn choices() -> Vec<SitePrecision> {
    vec![SitePrecision::FULL, at(BitWidth::B4), at(BitWidth::B2)]
}

fn measured(evaluator: &Evaluator<'_, Plain, Gpt2<Plain>>, full: &SitePlan, measure: DamageMeasure) -> DamageTable {
    let options = DamageOptions { measure, seed: 1, show: ShowProgress::No, ..DamageOptions::new(choices()) };
    measure_damage(evaluator, full, &options).expect("it measures")
}

/// Calls a test with an evaluator of a small model and its plan at full precision.
fn with_evaluator(test: impl FnOnce(&Evaluator<'_, Plain, Gpt2<Plain>>, &SitePlan, &Gpt2ForQuestionAnswering<Plain>)) {
    let (_, config, task) = task(3);
    let model = model::<Plain>(&config, BasePolicy::Frozen);
    let options = EvaluateOptions { batch_size: 8, ..EvaluateOptions::default() };
    let evaluator = Evaluator::new(&model, &task, options, &device()).expect("valid options");
    test(&evaluator, &model.transformer.uniform_plan(SitePrecision::FULL), &model);
}

#[test]
fn a_table_holds_what_each_site_alone_measures() {
    skip_without_device!();
    with_evaluator(|evaluator, full, model| {
        let table = measured(evaluator, full, DamageMeasure::Loss);
        let reference = evaluator.evaluate(full).unwrap();
        assert_eq!(table.n, reference.n);
        assert_eq!(table.sites.len(), model.config().sites().len());
        for (row, site) in table.sites.iter().zip(model.config().sites().iter()) {
            assert_eq!(row.site, site);
            for (choice, precision) in row.choices.iter().zip(choices()) {
                assert!(choice.precision.is_explicit(), "{site:?}");
                assert_eq!(model.transformer.site(site).implicit(&choice.precision), precision);
                let changed = evaluator.evaluate(&full.clone().with(site, precision)).unwrap();
                let loss = changed.loss.unwrap() - reference.loss.unwrap();
                assert_eq!(choice.loss.map(f64::to_bits), Some(loss.to_bits()), "{site:?}");
                assert_eq!(choice.divergence > 0.0, precision != SitePrecision::FULL, "{site:?}");
                assert_eq!(choice.comparison, Some(reference.compare(&changed, 1)), "{site:?}");
                assert!(!choice.is_estimated());
            }
        }
        let json = serde_json::to_string(&table).unwrap();
        let read: DamageTable = serde_json::from_str(&json).unwrap();
        assert_eq!(read.sites, table.sites);
        assert_eq!(read.pareto_front(), table.pareto_front());
        // A file of an earlier form, which does not say how the model calls its blocks.
        let mut older: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(older.as_object_mut().unwrap().remove("block_word"), Some("h".into()));
        let older: DamageTable = serde_json::from_value(older).unwrap();
        let older = older.with_names_of(&Sites::new("layers", 3, []));
        assert_eq!(older.name(table.sites[0].site), "layers.0.attn.c_attn");
    });
}

#[test]
fn allocations_are_plans_of_the_model_with_the_bytes_they_say() {
    skip_without_device!();
    with_evaluator(|evaluator, full, model| {
        for measure in [DamageMeasure::Divergence, DamageMeasure::Loss] {
            let table = measured(evaluator, full, measure);
            let front = table.pareto_front();
            assert!(front.len() > 10, "{}", front.len());
            let falls = |pair: &[Allocation]| pair[0].bytes < pair[1].bytes && pair[0].damage > pair[1].damage;
            assert!(front.windows(2).all(falls));
            for allocation in &front {
                let plan = model.transformer.resolve(&allocation.plan).unwrap();
                assert_eq!(plan_bytes(&model.transformer, &plan), allocation.bytes);
                assert!((plan.average_weight_bits() - allocation.average_bits).abs() < 1e-9);
            }
            let smallest = &front[0];
            assert_eq!(
                model.transformer.resolve(&smallest.plan).unwrap(),
                model.transformer.uniform_plan(at(BitWidth::B2)),
            );
            assert_eq!(&table.best_under(smallest.bytes).unwrap(), smallest);
            assert_eq!(&table.best_under(front[5].bytes - 1).unwrap(), &front[4]);
            assert_eq!(table.best_under(usize::MAX).unwrap(), front[front.len() - 1]);
            let message = table.best_under(smallest.bytes - 1).unwrap_err().to_string();
            assert!(message.contains("budget_bytes"), "{message}");
            assert!(message.contains(&format!("at least {},", smallest.bytes)), "{message}");
        }
    });
}

#[test]
fn verification_evaluates_the_plans_and_compares_them_in_pairs() {
    skip_without_device!();
    with_evaluator(|evaluator, full, model| {
        let table = measured(evaluator, full, DamageMeasure::Divergence);
        let front = table.pareto_front();
        let chosen = [front[0].clone(), front[front.len() / 2].clone(), front[front.len() - 1].clone()];
        let verified = table.verify(evaluator, full, &chosen).unwrap();
        for (row, allocation) in verified.iter().zip(&chosen) {
            assert_eq!(&row.allocation, allocation);
            let plan = model.transformer.resolve(&allocation.plan).unwrap();
            let whole = evaluator.evaluate(&plan).unwrap();
            assert_eq!(row.accuracy.scores, whole.scores);
            assert_eq!(row.comparison, table.reference.compare(&whole, 1));
        }
        // The widest plan is the reference itself.
        assert_eq!(verified[2].accuracy.divergence, Some(0.0));
        assert!(verified[0].accuracy.divergence > verified[1].accuracy.divergence);
    });
}

#[test]
fn swaps_stay_in_the_budget_and_never_worsen() {
    skip_without_device!();
    with_evaluator(|evaluator, full, model| {
        let table = measured(evaluator, full, DamageMeasure::Divergence);
        let front = table.pareto_front();
        // The smallest plan with room for more: raises first, then exchanges when the room is used up.
        let start = &front[0];
        let budget_bytes = front[front.len() / 4].bytes;
        for order in [HarmOrder::Loss, HarmOrder::Divergence] {
            let options =
                RefineOptions { order, evaluations: 40, show: ShowProgress::No, ..RefineOptions::new(budget_bytes) };
            let (result, plan) =
                table.refine_by_swaps(evaluator, RefineFrom { reference: full, start }, &options).unwrap();
            assert!((1..=40).contains(&result.swaps.len()));
            assert!(result.swaps.iter().any(|swap| swap.accepted), "a swap must help for the test to mean anything");
            assert!(result.swaps.iter().any(|swap| swap.lowered.is_some()));
            assert!(result.swaps.iter().all(|swap| swap.bytes <= budget_bytes));
            let figure = |accuracy: &span_reader::evaluation::accuracy::Accuracy| match order {
                HarmOrder::Divergence => accuracy.divergence.unwrap(),
                _ => accuracy.loss.unwrap(),
            };
            let mut best = figure(&result.start);
            for swap in &result.swaps {
                assert_eq!(swap.accepted, figure(&swap.accuracy) < best, "{swap:?}");
                if swap.accepted {
                    best = figure(&swap.accuracy);
                }
            }
            assert_eq!(figure(&result.accuracy).to_bits(), best.to_bits());
            assert_eq!(plan_bytes(&model.transformer, &plan), result.bytes);
            assert_eq!(evaluator.evaluate(&plan).unwrap().scores, result.accuracy.scores);
            assert!(result.work.blocks_computed < result.work.blocks_plain);
        }
        let small = RefineOptions::new(start.bytes - 1);
        let message =
            table.refine_by_swaps(evaluator, RefineFrom { reference: full, start }, &small).unwrap_err().to_string();
        assert!(message.contains("budget_bytes") && message.contains(&start.bytes.to_string()), "{message}");
        let plan = start.plan.clone().with_site("h.1.mlp.c_fc", at(BitWidth::B8));
        let foreign = Allocation { plan, ..start.clone() };
        let options = RefineOptions::new(usize::MAX);
        let message = table
            .refine_by_swaps(evaluator, RefineFrom { reference: full, start: &foreign }, &options)
            .unwrap_err()
            .to_string();
        assert!(message.contains("h.1.mlp.c_fc at 8 bits"), "{message}");
    });
}

#[test]
fn bytes_of_an_allocation_hold_the_adapters_that_it_uses() {
    skip_without_device!();
    let (_, config, task) = task(3);
    let mut model = model::<Plain>(&config, BasePolicy::Frozen);
    model.transformer.init_adapters(BitWidth::B2, &LoraConfig::new(2, 4.0).unwrap(), 1).unwrap();
    let options = EvaluateOptions { batch_size: 8, ..EvaluateOptions::default() };
    let evaluator = Evaluator::new(&model, &task, options, &device()).unwrap();
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    let choices = vec![at(BitWidth::B4), SitePrecision::uniform(BitWidth::B2)];
    let range = BudgetRange::of(&model.transformer, &choices, &[]);
    let how = DamageOptions { seed: 1, show: ShowProgress::No, ..DamageOptions::new(choices) };
    let table = measure_damage(&evaluator, &full, &how).unwrap();
    // [16, 48], [16, 16], [16, 64] and [64, 16] in each of 3 blocks: codes, a scale, and 2 · (d_in + d_out) floats
    // beside 2 bits.
    let expected = [(388, 192 + 4 + 512), (132, 64 + 4 + 256), (516, 256 + 4 + 640), (516, 256 + 4 + 640)];
    for (row, (bare, adapted)) in table.sites.iter().zip(expected.iter().cycle()) {
        let bytes: Vec<usize> = row.choices.iter().map(|choice| choice.bytes).collect();
        assert_eq!(bytes, [*bare, *adapted], "{:?}", row.site);
    }
    assert_eq!((range.least, range.most), (3 * 1552, 3 * 2832));
    // Fewer bits with an adapter are more bytes here: what fits the fewest is at 4 bits.
    let smallest = table.best_under(range.least).unwrap();
    let plan = model.transformer.resolve(&smallest.plan).unwrap();
    assert_eq!((smallest.bytes, plan.adapter_widths()), (range.least, vec![]));
    assert!(table.best_under(range.least - 1).is_err());
    for allocation in table.pareto_front() {
        let plan = model.transformer.resolve(&allocation.plan).unwrap();
        assert_eq!(plan_bytes(&model.transformer, &plan), allocation.bytes);
    }
}

#[test]
fn a_greedy_path_is_compared_at_its_own_bytes() {
    skip_without_device!();
    with_evaluator(|evaluator, full, _| {
        let low = at(BitWidth::B2);
        let how = SensitivityOptions { seed: 1, show: ShowProgress::No, ..SensitivityOptions::new(Part::Site, low) };
        let (sites, kept) = sensitivity(evaluator, full, &how).unwrap();
        let options =
            GreedyOptions { stop_at: StopAt::AverageBits(20.0), show: ShowProgress::No, ..GreedyOptions::new(low) };
        let (result, _) =
            greedy_search(evaluator, GreedyStart { reference: full, sensitivity: &sites, kept }, &options).unwrap();
        let table = measured(evaluator, full, DamageMeasure::Divergence);
        let rows = table.compare_at_equal_bytes(evaluator, full, &result.path).unwrap();
        assert_eq!(rows.len(), result.flipped.len());
        for (row, flip) in rows.iter().zip(&result.path) {
            assert_eq!((row.bytes, &row.flipped), (flip.bytes, &flip.site));
            assert_eq!(row.allocation, table.best_under(flip.bytes).unwrap());
            assert_eq!(row.comparison, row.greedy.compare(&row.exact, 1));
        }
        // Read from a file, a path has no scores of single questions.
        let json = serde_json::to_string(&result.path).unwrap();
        let read: Vec<experiments::search::greedy::Flip> = serde_json::from_str(&json).unwrap();
        let message = table.compare_at_equal_bytes(evaluator, full, &read).unwrap_err().to_string();
        assert!(message.contains("path") && message.contains(&result.path[0].site), "{message}");
    });
}

#[test]
fn embeddings_are_allocated_beside_the_sites_and_count_in_the_budget() {
    skip_without_device!();
    with_evaluator(|evaluator, full, model| {
        let embeddings: Vec<BitWidth> = [4, 8].map(|bits| BitWidth::new(bits).unwrap()).into();
        let how =
            DamageOptions { embeddings: embeddings.clone(), show: ShowProgress::No, ..DamageOptions::new(choices()) };
        let table = measure_damage(evaluator, full, &how).unwrap();
        let body = &model.transformer;
        let names: Vec<String> = table.sites.iter().take(2).map(|row| table.name(row.site)).collect();
        assert_eq!(names, ["wte", "wpe"]);
        let range = BudgetRange::of(body, &choices(), &embeddings);
        assert_eq!(range, {
            let ends = table.pareto_front();
            let parameters = table.sites.iter().map(|row| row.parameters).sum();
            let most = table.sites.iter().map(|row| row.choices.iter().map(|choice| choice.bytes).max().unwrap()).sum();
            BudgetRange { least: ends[0].bytes, most, parameters }
        });
        for allocation in table.pareto_front() {
            let plan = body.resolve(&allocation.plan).unwrap();
            assert_eq!(allocation.bytes, plan_bytes(body, &plan) + embedding_bytes(body, &plan));
            assert!(plan.embeddings().all(|(_, precision)| embeddings.contains(&precision.weights)));
            // The settings of the plan are those of the linear sites.
            assert_eq!(allocation.plan.default_precision().quantizer, Some(body.settings().weight));
        }
        let towards = GreedyPath { low: at(BitWidth::B2), show: ShowProgress::No, known: Memory::Nothing };
        let compared = table.against_greedy(evaluator, full, &towards).unwrap();
        // The search counts embeddings as the table does.
        let first = compared.greedy.path.first().expect("a flip");
        let flipped = body.sites().find(&first.site).expect("a site");
        let bits = if flipped.block.is_some() { BitWidth::B2 } else { BitWidth::B4 };
        let plan = full.clone().with(flipped, at(bits));
        assert_eq!(first.bytes, plan_bytes(body, &plan) + embedding_bytes(body, &plan));
    });
}

#[test]
fn a_table_of_no_choice_is_refused() {
    skip_without_device!();
    with_evaluator(|evaluator, full, _| {
        let message = measure_damage(evaluator, full, &DamageOptions::new(Vec::new())).unwrap_err().to_string();
        assert!(message.contains("choices") && message.contains("at least one precision"), "{message}");
    });
}

#[test]
fn budgets_are_verified_and_refined_and_set_against_a_greedy_search() {
    skip_without_device!();
    with_evaluator(|evaluator, full, model| {
        let table = measured(evaluator, full, DamageMeasure::Divergence);
        assert_eq!(table.bytes_at(32.0), 4 * model.config().site_parameters());
        let budgets = vec![table.bytes_at(5.0), table.bytes_at(16.0)];
        let how =
            BudgetOptions { budgets: budgets.clone(), swaps: 2, show: ShowProgress::No, ..BudgetOptions::default() };
        let rows = table.refined_at(evaluator, full, &how).unwrap();
        assert_eq!(rows.iter().map(|row| row.budget).collect::<Vec<_>>(), budgets);
        for row in &rows {
            assert_eq!(row.verified.allocation, table.best_under(row.budget).unwrap());
            assert!(plan_bytes(&model.transformer, &row.plan) <= row.budget && row.refinement.swaps.len() <= 2);
            assert_eq!(row.refinement.accuracy.scores, evaluator.evaluate(&row.plan).unwrap().scores);
        }
        let text = budgets_text(&rows);
        assert!(text.starts_with(&format!("exact, {} bytes", budgets[0])) && text.lines().count() == 4, "{text}");

        let towards = GreedyPath { low: at(BitWidth::B2), show: ShowProgress::No, known: Memory::Nothing };
        let compared = table.against_greedy(evaluator, full, &towards).unwrap();
        let accepted = compared.greedy.path.iter().filter(|flip| flip.accepted).count();
        assert_eq!(compared.equal_bytes.len(), accepted);
        assert_eq!(equal_bytes_text(&compared.equal_bytes, table.n).lines().count(), accepted + 1);
    });
}
