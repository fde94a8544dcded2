//! One question at several precisions, as a crate that depends on `switchable-quant` writes it.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```

use std::process::ExitCode;

use command_line::finish;
use switchable_quant::default_model::QuestionSet;
use switchable_quant::prelude::*;

fn main() -> ExitCode {
    finish(quickstart)
}

fn quickstart() -> anyhow::Result<()> {
    let device = CpuDevice::default();
    let DefaultModel { model, tokenizer, .. } = default_model::load::<Cpu>(&ModelOptions::default(), &device)?;

    let questions = default_model::questions(QuestionSet::HeldOut)?.examples();
    let example = &questions[0];
    println!("{}\n{}", example.context, example.question);

    for bits in [32, 8, 4, 2] {
        let precision = SitePrecision::uniform(BitWidth::new(bits)?);
        let plan = model.transformer.uniform_plan(precision);
        let answer = answer(&model, &tokenizer, &example.question, &example.context, &plan)?;
        println!("{bits:>2} bits: {} (probability {:.2})", answer.text, answer.probability);
    }
    Ok(())
}
