//! The loss of items that are cut into several windows, and its gradient.

use burn::tensor::Tensor;

use experiments::robustness::protected_example::ProtectedExample;
use experiments::robustness::victim::model_under_attack::{Victim, VictimOptions};
use experiments::robustness::victim::oracle::Oracle;
use gpt2_model::{Gpt2, Gpt2ForQuestionAnswering};
use span_reader::evaluation::reading::{BatchTensors, ReadingTask};
use squad_data::{BatchConfig, Batches, Dataset};

use super::{Learnt, UNSURE};
use crate::support::{Plain, Training, device, skip_without_device};

/// Of so few tokens that contexts are cut, and in several windows the answer stands.
const WINDOW: usize = 32;

fn victim<'a>(learnt: &'a Learnt, model: &Gpt2ForQuestionAnswering<Training>) -> Victim<'a, Training, Gpt2<Training>> {
    let options = VictimOptions { window: Some(WINDOW), ..VictimOptions::default() };
    Victim::new(model, &learnt.tokenizer, &learnt.task.dataset, options).expect("they fit")
}

/// A window: scores of starts and of ends where an answer may be, and the places of the targets among them.
struct Read {
    sides: [Vec<f64>; 2],
    targets: Option<[f64; 2]>,
}

/// The windows of an item, read one by one by the model without gradients.
fn windows(learnt: &Learnt, dataset: Dataset, bits: u8) -> Vec<Read> {
    let model: Gpt2ForQuestionAnswering<Plain> = burn::module::AutodiffModule::valid(&learnt.model);
    let task = ReadingTask::new(dataset, &learnt.tokenizer, model.config(), Some(WINDOW)).expect("they fit");
    let batches = Batches::new(&task.features, BatchConfig::evaluation(1, task.special.pad)).expect("windows");
    let read = |batch: squad_data::Batch| {
        let tensors = BatchTensors::<Plain>::new(&batch, &device());
        let logits = model.forward(tensors.ids, None, &learnt.plan(bits));
        let all = [logits.start, logits.end]
            .map(|side| side.into_data().convert::<f64>().into_vec::<f64>().expect("converted to f64"));
        let targets =
            (batch.starts[0] >= 0).then(|| [all[0][batch.starts[0] as usize], all[1][batch.ends[0] as usize]]);
        let may_answer = |side: &Vec<f64>| {
            side.iter().zip(&batch.answerable).filter(|(_, may)| **may).map(|(score, _)| *score).collect()
        };
        Read { sides: all.each_ref().map(may_answer), targets }
    };
    batches.epoch(0).map(read).collect()
}

/// The loss of the documentation, term by term.
fn loss(windows: &[Read]) -> f64 {
    let of_side = |side: usize| {
        let all: f64 = windows.iter().flat_map(|window| &window.sides[side]).map(|score| score.exp()).sum();
        let targets: f64 = windows.iter().filter_map(|window| window.targets).map(|t| t[side].exp()).sum();
        all.ln() - targets.ln()
    };
    0.5 * (of_side(0) + of_side(1))
}

#[test]
fn the_loss_is_normalised_over_all_windows_and_counts_every_one_that_holds_the_answer() {
    skip_without_device!();
    let victim = victim(&UNSURE, &UNSURE.model);
    let plans = [UNSURE.plan(32), UNSURE.plan(3)];
    let (mut several, mut twice) = (0, 0);
    for (at, example) in UNSURE.examples().into_iter().enumerate().take(12) {
        let item = ProtectedExample::new(example).unwrap();
        let got = Oracle::new(&victim, &plans).read(&[&item]).unwrap()[0].loss;
        let only = || UNSURE.task.dataset.chosen(|place| place == at);
        let read = [32, 3].map(|bits| windows(&UNSURE, only(), bits));
        let holding = read[0].iter().filter(|window| window.targets.is_some()).count();
        several += usize::from(read[0].len() > 1);
        twice += usize::from(holding > 1);
        if holding == 0 {
            assert_eq!(got, None);
            continue;
        }
        let expected = f64::midpoint(loss(&read[0]), loss(&read[1]));
        assert!((got.unwrap() - expected).abs() < 1e-4 * expected.max(1.0), "{got:?} {expected}");
    }
    assert!(several >= 6 && twice >= 1, "{several} items of several windows, {twice} answers in two");
}

#[test]
fn the_gradient_of_a_question_is_that_of_all_windows() {
    skip_without_device!();
    let victim = victim(&UNSURE, &UNSURE.model);
    let plans = [UNSURE.plan(32)];
    let table = UNSURE.model.transformer.wte.weight().inner();
    let d = table.dims()[1];
    let row = |id: u32| table.clone().slice([id as usize..id as usize + 1, 0..d]);
    let mut checked = 0;
    for example in UNSURE.examples().into_iter().take(12) {
        let (question, context) = (example.question.clone(), example.context.to_string());
        let item = ProtectedExample::new(example).unwrap();
        let Some(gradient) = Oracle::new(&victim, &plans).gradient(&item).unwrap() else { continue };
        let ids = &gradient.gold.window.ids;
        let loss = Oracle::new(&victim, &plans).read(&[&item]).unwrap()[0].loss.unwrap();
        assert!((loss - gradient.loss).abs() < 1e-4, "{loss} {}", gradient.loss);
        assert_eq!(gradient.gradient.dims(), [ids.len(), d]);
        // A token of the question that stands nowhere else: its embedding is the input there alone, in every window.
        let of_question = UNSURE.tokenizer.encode(&question).unwrap().ids;
        let of_context = UNSURE.tokenizer.encode(&context).unwrap().ids;
        let once = |&place: &usize| {
            let id = of_question[place];
            !of_context.contains(&id) && of_question.iter().filter(|&&other| other == id).count() == 1
        };
        let Some(place) = (0..of_question.len()).find(once) else { continue };
        assert_eq!(ids[place], of_question[place]);
        let (present, wanted) = (ids[place], ids[ids.len() - 1]);
        let step = row(wanted) - row(present);
        let along: f32 = (gradient.gradient.clone().slice([place..place + 1, 0..d]) * step.clone()).sum().into_scalar();
        let loss_at = |size: f32| {
            let mut model = UNSURE.model.clone();
            model.transformer.wte = model.transformer.wte.map_values(|table| {
                let at = present as usize..present as usize + 1;
                let moved = row(present) + step.clone() * size;
                table.slice_assign([at, 0..d], Tensor::from_inner(moved))
            });
            let moved = self::victim(&UNSURE, &model);
            Oracle::new(&moved, &plans).read(&[&item]).unwrap()[0].loss.unwrap()
        };
        let slope = (loss_at(5e-3) - loss_at(-5e-3)) / 1e-2;
        let along = f64::from(along);
        assert!((slope - along).abs() <= 0.02 * along.abs() + 2e-5, "{slope} {along}");
        checked += usize::from(along.abs() > 2e-4);
    }
    assert!(checked >= 4, "{checked}");
}
