//! Damage of all sites of the built-in model, estimated and measured.

use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::experiments::running::progress::ShowProgress;
use switchable_quant::experiments::search::allocation::damage::{DamageOptions, DamageTable, measure_damage};
use switchable_quant::experiments::search::estimates::estimate_damage;
use switchable_quant::kernels::{QuantAutodiffBackend, QuantBackend};
use switchable_quant::model::{Gpt2, ModelOptions, SitePrecision};
use switchable_quant::reader::evaluation::options::EvaluateOptions;
use switchable_quant::reader::{Evaluator, ReadingTask};
use switchable_quant::transformer::model::SwitchableModel as _;

use crate::answer::width;
use crate::case::{Case, Unit};

const WIDTHS: [u8; 7] = [16, 8, 6, 5, 4, 3, 2];
const QUESTIONS: usize = 24;

pub(crate) fn cases<B: QuantAutodiffBackend>(device: &B::Device) -> Vec<Case> {
    type Inner<B> = <B as switchable_quant::burn::tensor::backend::AutodiffBackend>::InnerBackend;
    let estimated = |evaluator: &Evaluator<'_, Inner<B>, Gpt2<Inner<B>>>, options: &DamageOptions| {
        let reference = evaluator.model().transformer.uniform_plan(SitePrecision::FULL);
        estimate_damage::<B, Gpt2<B>>(evaluator, &reference, options).expect("floats")
    };
    let measured = |evaluator: &Evaluator<'_, Inner<B>, Gpt2<Inner<B>>>, options: &DamageOptions| {
        let reference = evaluator.model().transformer.uniform_plan(SitePrecision::FULL);
        measure_damage(evaluator, &reference, options).expect("a model that answers")
    };
    vec![case::<Inner<B>, _>("estimated", estimated, device), case::<Inner<B>, _>("measured", measured, device)]
}

fn case<B: QuantBackend, F>(how: &str, damage: F, device: &B::Device) -> Case
where
    F: Fn(&Evaluator<'_, B, Gpt2<B>>, &DamageOptions) -> DamageTable + 'static,
{
    let (id, device) = (format!("damage/{how}/{}x{QUESTIONS}", WIDTHS.len()), device.clone());
    let task = |device: &B::Device| {
        let folder = default_model::load_without_adapters::<B>(&ModelOptions::default(), device).expect("it loads");
        let questions = default_model::questions(QuestionSet::Search).expect("they are there").limited(QUESTIONS);
        let task = ReadingTask::new(questions, &folder.tokenizer, folder.model.config(), None).expect("they fit");
        (folder.model, task)
    };
    let (_, of_windows) = task(&device);
    let tokens = of_windows.evaluation_batches(1).expect("windows").iter().map(|window| window.ids.len() as u64).sum();
    Case::new(id.clone(), (tokens, Unit::Tokens), move || {
        let (model, task) = task(&device);
        let choices = WIDTHS.map(|bits| SitePrecision::FULL.with_weights(width(bits))).to_vec();
        let options = DamageOptions { show: ShowProgress::No, ..DamageOptions::new(choices) };
        let run = move || {
            let evaluator = Evaluator::new(&model, &task, EvaluateOptions::default(), &device).expect("they fit");
            damage(&evaluator, &options)
        };
        // Damage falls from 2 to 16 bits, at every site.
        for row in run().sites {
            let [most, .., least] = row.choices.as_slice() else { panic!("{id}: no choices") };
            assert!(least.divergence > most.divergence, "{id}: {:?}", row.site);
        }
        move || drop(run())
    })
}
