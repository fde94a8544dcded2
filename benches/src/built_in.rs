//! The built-in model on one batch.

use switchable_quant::default_model;
use switchable_quant::kernels::QuantBackend;
use switchable_quant::model::{ModelOptions, SitePrecision, SwitchableModel};

use crate::answer::{finish, token_ids, width};
use crate::case::{Case, Unit};

const BATCH: usize = 32;
const TOKENS: usize = 96;

pub(crate) fn cases<B: QuantBackend>(device: &B::Device) -> Vec<Case> {
    [32, 8, 4].map(|bits| case::<B>(bits, device)).into()
}

fn case<B: QuantBackend>(bits: u8, device: &B::Device) -> Case {
    let id = format!("gpt2_forward/built_in/q{bits}/{BATCH}x{TOKENS}");
    let device = device.clone();
    Case::new(id.clone(), ((BATCH * TOKENS) as u64, Unit::Tokens), move || {
        let model = default_model::load::<B>(&ModelOptions::default(), &device).expect("it loads").model;
        let ids = token_ids::<B>([BATCH, TOKENS], model.config().vocab_size, &device);
        let run = move |bits: u8| {
            let plan = model.transformer.uniform_plan(SitePrecision::uniform(width(bits)));
            model.forward(ids.clone(), None, &plan).start
        };
        // The width is really used.
        assert_eq!(run(bits).into_data() == run(32).into_data(), bits == 32, "{id}");
        move || finish::<B>(run(bits), &device)
    })
}
