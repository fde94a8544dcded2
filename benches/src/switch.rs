//! Plans in turn on one nested memory.

use std::hint::black_box;

use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::kernels::QuantBackend;
use switchable_quant::model::{ModelOptions, PackOptions, PackedForm, SitePrecision, SwitchableModel};
use switchable_quant::reader::choice::controller::{PlanRequest, PrecisionController};
use switchable_quant::reader::choice::front::MeasuredFront;
use switchable_quant::reader::evaluation::evaluate::Evaluator;
use switchable_quant::reader::evaluation::options::EvaluateOptions;
use switchable_quant::reader::evaluation::reading::ReadingTask;

use crate::answer::{finish, token_ids, width};
use crate::case::{Case, Unit};

const TOKENS: usize = 96;

pub(crate) fn cases<B: QuantBackend>(device: &B::Device) -> Vec<Case> {
    let mut all = vec![pick::<B>(device)];
    all.extend([("4_4", [4, 4]), ("alternating", [4, 8]), ("8_8", [8, 8])].map(|which| forward::<B>(which, device)));
    all
}

fn pick<B: QuantBackend>(device: &B::Device) -> Case {
    let device = device.clone();
    Case::new("switch/pick".to_owned(), (2, Unit::Tokens), move || {
        let default = default_model::load::<B>(&ModelOptions::default(), &device).expect("it loads");
        let questions = default_model::questions(QuestionSet::Search).expect("they are generated").limited(3);
        let task = ReadingTask::new(questions, &default.tokenizer, default.model.config(), None).expect("it fits");
        let evaluator =
            Evaluator::new(&default.model, &task, EvaluateOptions::default(), &device).expect("valid options");
        let plans = [4, 8].map(|bits| default.model.transformer.uniform_plan(SitePrecision::uniform(width(bits))));
        let front = MeasuredFront::measure(&evaluator, &plans).expect("it measures");
        let controller = PrecisionController::new(&default.model, front, "here").expect("its own front");
        let bytes: Vec<usize> = controller.picks().map(|pick| pick.point.site_bytes).collect();
        let look_up = move |bytes: usize| {
            let pick = controller.pick(PlanRequest::Bytes(bytes)).expect("a plan fits");
            black_box(pick.plan.block(0)[0])
        };
        assert_eq!(look_up(bytes[0]).weights, width(4), "the smaller plan is of 4 bits");
        move || {
            for &bytes in &bytes {
                look_up(black_box(bytes));
            }
        }
    })
}

fn forward<B: QuantBackend>((name, widths): (&'static str, [u8; 2]), device: &B::Device) -> Case {
    let id = format!("switch/{name}");
    let device = device.clone();
    Case::new(id.clone(), (2 * TOKENS as u64, Unit::Tokens), move || {
        let options = ModelOptions::default();
        let floats = default_model::load::<B>(&options, &device).expect("it loads").model;
        let model = floats.clone().pack(PackedForm::Nested, &PackOptions::default()).expect("it packs");
        let ids = token_ids::<B>([1, TOKENS], model.config().vocab_size, &device);
        let plans = widths.map(|bits| model.transformer.uniform_plan(SitePrecision::uniform(width(bits))));
        let run = move |index: usize| model.forward(ids.clone(), None, &plans[index]).start;
        // The width is really used.
        assert_eq!(run(0).into_data() == run(1).into_data(), widths[0] == widths[1], "{id}");
        move || {
            for index in 0..2 {
                finish::<B>(run(index), &device);
            }
        }
    })
}
