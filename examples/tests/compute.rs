//! `--compute bf16`, through the programs themselves.

mod support;

use std::path::Path;

use support::{done, json, run};
use switchable_quant::prelude::{Cpu, QuantBackend as _};

fn accuracy(dir: &Path, flags: &str) -> f64 {
    done(dir, &format!("evaluate --limit 40 --no-adapter --untimed --bits 4 --out {flags}"));
    let folder = flags.split_whitespace().next().expect("a folder");
    let told = json(&dir.join(folder).join("evaluate.json"));
    told["accuracy"]["exact_match"].as_f64().expect("a number")
}

#[test]
fn a_model_answers_in_bf16_or_says_that_it_does_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let [plain, half] = ["plain", "half --compute bf16"].map(|flags| accuracy(dir.path(), flags));
    assert!((plain - half).abs() <= 5.0, "{plain} in f32, {half} in bf16");
    let output = run(dir.path(), "evaluate --limit 2 --untimed --compute bf16");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors.contains("compute    f32 all the same"), !Cpu::multiplies_bf16(), "{errors}");
    // What was answered in other numbers is another result.
    let again = run(dir.path(), "evaluate --limit 40 --no-adapter --untimed --bits 4 --out plain --compute bf16");
    assert_eq!(again.status.success(), !Cpu::multiplies_bf16());
}

#[test]
fn commands_that_are_of_f32_refuse_it_before_they_start() {
    let dir = tempfile::tempdir().expect("a folder");
    for (command, why) in [
        ("certify --limit 4", "a certificate is of products in f32"),
        ("pretrain --text a.txt", "weights that are trained are multiplied in f32"),
        ("train_default", "the model that is part of the program is made in f32"),
        ("dynamic_inference --pack packed", "`--pack` says what plans give in f32"),
    ] {
        let output = run(dir.path(), &format!("{command} --compute bf16"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command}: {errors}");
        assert!(errors.contains(&format!("`--compute bf16` is of no use here: {why}")), "{command}: {errors}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("it is there").count(), 0, "{command} wrote something");
    }
}
