//! One question at several precisions, as a crate that depends on `switchable-quant` writes it.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```

use switchable_quant::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = CpuDevice::default();
    let DefaultModel { model, tokenizer } = default_model::load::<Cpu>(&ModelOptions::default(), &device)?;

    let context = "Mira Kestrel was born in 1931. Tobin Marsh was born in 1964 and lives in Northfield.";
    let question = "When was Tobin Marsh born?";
    println!("{context}\n{question}");

    for bits in [32, 8, 4, 2] {
        let precision = SitePrecision::uniform(BitWidth::new(bits)?);
        let plan = model.transformer.uniform_plan(precision);
        let answer = answer(&model, &tokenizer, question, context, &plan)?;
        println!("{bits:>2} bits: {} (probability {:.2})", answer.text, answer.probability);
    }
    Ok(())
}
