//! Plans that one command writes and another runs, through the programs themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use switchable_quant::backend::Flex;
use switchable_quant::burn::backend::flex::FlexDevice;
use switchable_quant::burn::tensor::TensorData;
use switchable_quant::default_model::{self, QuestionSet, questions};
use switchable_quant::kernels::BitWidth;
use switchable_quant::lora::peft::{PeftOptions, save::save_peft, saved_module::SavedModule, width_folder};
use switchable_quant::transformer::adapters::AdapterFolders as _;
use switchable_quant::transformer::model::SwitchableModel as _;
use switchable_quant::transformer::options::ModelOptions;
use switchable_quant::transformer::sites::Site;

/// The program of an example, which cargo builds beside the tests of its package.
fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("valid input");
    let path = tests.parent().and_then(Path::parent).expect("valid input").join("examples").join(name);
    assert!(path.exists(), "{} is missing: `cargo build --examples` makes it", path.display());
    path
}

fn run(name: &str, dir: &Path, flags: &str) -> Output {
    run_loud(name, dir, &format!("{flags} --quiet"))
}

/// The same for a command that shows no progress.
fn run_loud(name: &str, dir: &Path, flags: &str) -> Output {
    Command::new(program(name))
        .args(flags.split_whitespace())
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("valid input")
}

/// What a command printed, but for memory and times.
#[track_caller]
fn done(output: &Output) -> [String; 2] {
    let [text, errors] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8(bytes.clone()).expect("valid input"));
    assert!(output.status.success(), "{text} {errors}");
    let is_measured = |line: &&str| line.starts_with("resident: ") || line.contains(" tokens/s with ");
    let lines = text.lines().filter(|line| !is_measured(line)).map(|line| format!("{line}\n"));
    [lines.collect(), errors]
}

#[track_caller]
fn refused(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr.clone()).expect("valid input")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("valid input")).expect("valid input")
}

/// A folder with 24 questions.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("valid input");
    questions(QuestionSet::Search)
        .expect("valid input")
        .limited(24)
        .write(dir.path().join("data.json"))
        .expect("valid input");
    dir
}

/// What the last line of `evaluate` says.
fn scores(stdout: &str) -> [String; 2] {
    let last: Value = serde_json::from_str(stdout.lines().last().expect("valid input")).expect("valid input");
    ["exact_match", "f1"].map(|field| last[field].to_string())
}

#[test]
fn a_plan_gives_what_the_search_that_found_it_measured() {
    let dir = folder();
    let at = dir.path();
    let search = "--data data.json --bits 3 --target-bits 16 --quantizer per-channel,symmetric,min-max --no-adapter";
    let [_, errors] = done(&run("greedy_search", at, &format!("{search} --out g")));
    assert!(errors.contains("adapters   none"), "{errors}");
    let found = json(&at.join("g/greedy_search.json"));
    let plan = json(&at.join("g/plan.json"));
    assert_eq!(plan["version"], 2);
    let sites = plan["sites"].as_object().unwrap();
    assert!(sites.len() > 10, "{} sites", sites.len());
    for entry in sites.values().chain([&plan["default"]]) {
        assert_eq!(entry["quantizer"], "per-channel,symmetric,min-max");
        assert_eq!(entry["activation_quantizer"], "per-token,symmetric,min-max");
        assert_eq!((&entry["rounding"], &entry["placement"]), (&"nearest".into(), &"residual".into()));
    }

    let evaluate = "--data data.json --plan g/plan.json";
    let [stdout, errors] = done(&run("evaluate", at, &format!("{evaluate} --out e")));
    let expected = ["exact_match", "f1"].map(|field| found["search"]["accuracy"][field].to_string());
    assert_eq!(scores(&stdout), expected);
    let line = format!("{:>3} sites: weights per-channel,symmetric,min-max nearest\n", sites.len());
    assert!(errors.contains(&line), "{errors}");
    assert_eq!(json(&at.join("e/evaluate.json"))["plan"], plan);

    // The same quantiser may be named; another is refused before anything is computed.
    let [again, _] = done(&run("evaluate", at, &format!("{evaluate} --quantizer per-channel,symmetric,min-max")));
    assert_eq!(again, stdout);
    let error = refused(&run("evaluate", at, &format!("{evaluate} --quantizer per-tensor")));
    for part in ["--quantizer per-tensor,symmetric,min-max", "g/plan.json", "per-channel,symmetric,min-max"] {
        assert!(error.contains(part), "{error}");
    }

    // Adapters of another quantiser are not in the way of a plan that asks for none, and are of one that does.
    for command in ["evaluate --bits 3", "greedy_search --bits 3", "allocate --bits 3,8 --average-bits 5"] {
        let (name, flags) = command.split_once(' ').expect("valid input");
        let error = refused(&run(name, at, &format!("{flags} --data data.json --quantizer per-channel")));
        let asked =
            error.contains("per-channel,symmetric,min-max") && error.contains("--quantizer per-tensor,symmetric");
        assert!(asked, "{command}: {error}");
    }

    // Of version 1, the plan leaves its quantiser to the run, and that is said.
    let mut old = plan;
    old["version"] = 1.into();
    let entries = old["sites"].as_object_mut().unwrap();
    for entry in entries.values_mut() {
        *entry = serde_json::json!({ "weights": 3, "activations": 32, "adapter": null });
    }
    old["default"] = serde_json::json!({ "weights": 32, "activations": 32, "adapter": null });
    fs::write(at.join("old.json"), old.to_string()).unwrap();
    let old = "--data data.json --plan old.json";
    let [of_flag, errors] = done(&run("evaluate", at, &format!("{old} --quantizer per-channel")));
    assert_eq!(of_flag, stdout);
    assert!(errors.contains("old.json does not say how every site is quantised"), "{errors}");
    let [_, errors] = done(&run("evaluate", at, old));
    assert!(errors.contains("sites: weights per-tensor,symmetric,min-max nearest\n"), "{errors}");
}

#[test]
fn a_width_without_an_adapter_is_said_to_run_without_one() {
    let dir = folder();
    let at = dir.path();
    let evaluate = "--data data.json --limit 4";
    let [with, errors] = done(&run("evaluate", at, &format!("{evaluate} --bits 2")));
    assert!(with.starts_with("2 bits, with adapters "), "{with}");
    assert!(errors.contains("adapters   built-in: 2, 3, 4, 8, 16, 32 bits, none at other widths"), "{errors}");
    let [without, _] = done(&run("evaluate", at, &format!("{evaluate} --bits 5")));
    assert!(without.starts_with("5 bits, without adapters "), "{without}");
    let [bare, errors] = done(&run("evaluate", at, &format!("{evaluate} --bits 2 --no-adapter")));
    assert!(bare.starts_with("2 bits, without adapters ") && errors.contains("adapters   none"), "{bare} {errors}");
    assert_ne!(scores(&with), scores(&bare));

    // A folder brings the adapters beside it, as the built-in model does.
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default");
    let [beside, errors] = done(&run("evaluate", at, &format!("{evaluate} --bits 2 --model {model}")));
    assert_eq!(beside, with);
    assert!(errors.contains("default: 2, 3, 4, 8, 16, 32 bits"), "{errors}");
    let [left, _] = done(&run("evaluate", at, &format!("{evaluate} --bits 2 --model {model} --no-adapter")));
    assert_eq!(left, bare);

    // Other adapters take the place of the model's own.
    let [source, own] = [format!("{model}/adapters/bits-4"), "own/bits-4".to_owned()];
    fs::create_dir_all(at.join(&own)).unwrap();
    for file in fs::read_dir(source).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), at.join(&own).join(file.file_name())).unwrap();
    }
    let [replaced, errors] = done(&run("evaluate", at, &format!("{evaluate} --bits 2 --adapters own")));
    assert_eq!(replaced, bare);
    assert!(errors.contains("adapters   own: 4 bits, none at other widths"), "{errors}");
}

#[test]
fn names_that_a_model_has_not_are_refused_with_those_that_it_has() {
    let dir = folder();
    let at = dir.path();
    let full = r#"{"weights": 32, "activations": 32, "adapter": null}"#;
    for (rule, expected) in [
        (r#""sub_modules": {"mlp": F}"#, "sub-module `mlp` matches no site, expected `attn.c_attn`, `attn.c_proj`"),
        (r#""blocks": {"h.12": F}"#, "block `h.12` matches no site, expected `h.0`, `h.1`"),
        (r#""sites": {"h.0.mlp": F}"#, "unknown site `h.0.mlp`, expected a block (`h.0`"),
        (r#""kv_cache_blocks": {"h.12": 4}"#, "kv cache of unknown block `h.12`, expected `h.0`"),
    ] {
        let rule = rule.replace('F', full);
        fs::write(at.join("plan.json"), format!(r#"{{"version": 2, "default": {full}, {rule}}}"#)).unwrap();
        let error = refused(&run("evaluate", at, "--data data.json --plan plan.json"));
        assert!(error.contains("plan.json: ") && error.contains(expected), "{error}");
    }
}

/// Adapters of the built-in model for 4 and 8 bits, without what they were trained for; those of some widths bring a
/// head of their own, which takes ends for starts.
fn adapters_with_heads(dir: &Path, with_head: &[BitWidth]) {
    let device = FlexDevice;
    let model = default_model::load::<Flex>(&ModelOptions::default(), &device).expect("it is in the program").model;
    let parameters = model.named_parameters();
    let values = |name: &str| {
        let (_, parameter) = parameters.iter().find(|(known, _)| known == name).expect("a head");
        let mut values = parameter.values();
        let half = values.len() / 2;
        values.rotate_left(half);
        TensorData::new(values, parameter.shape())
    };
    let body = &model.transformer;
    let names: Vec<_> = body.sites().iter().map(|site| (site, body.sites().name(site))).collect();
    for width in [BitWidth::B4, BitWidth::B8] {
        let pairs = names.iter().map(|(site, name)| {
            (name.as_str(), body.site(*site).bank().get(width).expect("the built-in model has one"))
        });
        let (weight, bias) = (values("qa_outputs.weight"), values("qa_outputs.bias"));
        let head = SavedModule { name: "qa_outputs".into(), weight, bias };
        let saved_modules = if with_head.contains(&width) { vec![head] } else { Vec::new() };
        let options = PeftOptions { prefix: "transformer.".into(), saved_modules, ..PeftOptions::default() };
        save_peft(width_folder(dir, width), pairs, &options).expect("it is written");
    }
}

#[test]
fn a_plan_of_several_span_heads_says_which_answers() {
    let dir = folder();
    let at = dir.path();
    adapters_with_heads(&at.join("heads"), &[BitWidth::B4]);
    let search = "--data data.json --adapters heads --high 8 --bits 4 --target-bits 6.5 --quantizer per-channel";
    for command in ["greedy_search", "allocate"] {
        let flags = if command == "allocate" {
            "--data data.json --adapters heads --bits 8,4 --quantizer per-channel"
        } else {
            search
        };
        let output = run(command, at, &format!("{flags} --out none"));
        let error = refused(&output);
        assert!(error.contains("different span heads (4, base)"), "{error}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("EM"), "{command} measured first");
    }

    let [stdout, _] = done(&run("greedy_search", at, &format!("{search} --span-head base --out g")));
    assert!(stdout.contains("span head  that of the base"), "{stdout}");
    let plan = json(&at.join("g/plan.json"));
    assert_eq!(plan["span_head"], "base");
    let found = json(&at.join("g/greedy_search.json"));
    let expected = ["exact_match", "f1"].map(|field| found["search"]["accuracy"][field].to_string());
    let evaluate = "--data data.json --plan g/plan.json";
    let [stdout, errors] = done(&run("evaluate", at, &format!("{evaluate} --adapters heads --out e")));
    assert_eq!(scores(&stdout), expected);
    assert!(errors.contains("span head  that of the base"), "{errors}");
    assert_eq!(json(&at.join("e/evaluate.json"))["plan"], plan);
    // The same head may be named, another is refused.
    let [again, _] = done(&run("evaluate", at, &format!("{evaluate} --adapters heads --span-head base")));
    assert_eq!(again, stdout);
    let output = run("evaluate", at, &format!("{evaluate} --adapters heads --span-head 4"));
    assert_eq!(output.status.code(), Some(2));
    let error = refused(&output);
    assert!(error.contains("`--span-head 4` contradicts g/plan.json, whose `span_head` is base"), "{error}");

    // Another head, of a plan that says it, is another answer; a model without it refuses the plan.
    let mut other = plan;
    other["span_head"] = 4.into();
    fs::write(at.join("g/plan.json"), other.to_string()).unwrap();
    let [swapped, errors] = done(&run("evaluate", at, &format!("{evaluate} --adapters heads")));
    assert_ne!(scores(&swapped), expected);
    assert!(errors.contains("span head  that of the adapters of 4 bits"), "{errors}");
    adapters_with_heads(&at.join("bare"), &[]);
    let error = refused(&run("evaluate", at, &format!("{evaluate} --adapters bare")));
    assert!(error.contains("g/plan.json: no span head of 4 bits, available: base"), "{error}");

    let error = refused(&run("evaluate", at, "--data data.json --bits 4 --adapters heads --span-head 8"));
    assert!(error.contains("--span-head: no span head of 8 bits, available: base, 4"), "{error}");

    // A folder that is packed by the plan answers with its head.
    done(&run_loud("pack_gpt2", at, "--plan g/plan.json --adapters heads --out packed"));
    let [packed, errors] = done(&run("evaluate", at, "--data data.json --model packed"));
    assert!(errors.contains("span head  that of the adapters of 4 bits"), "{errors}");
    assert_eq!(scores(&packed), scores(&swapped));

    // What an allocation knows belongs to the head that it asked for.
    let solve = "--data data.json --limit 4 --adapters heads --bits 8,4 --quantizer per-channel --solve-only";
    let allocate = |head: &str| run("allocate", at, &format!("{solve} --average-bits 12 --out a --span-head {head}"));
    done(&allocate("base"));
    assert_eq!(json(&at.join("a/plan-12.json"))["span_head"], "base");
    let error = refused(&allocate("4"));
    assert!(error.contains("span_head"), "{error}");
}

#[test]
fn scales_that_f16_does_not_hold_are_said_to_be_f32() {
    let dir = folder();
    let at = dir.path();
    let default = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default"));
    fs::create_dir(at.join("small")).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        fs::copy(default.join(file), at.join("small").join(file)).unwrap();
    }
    // One matrix of weights that are a millionth of what they were.
    let mut bytes = fs::read(default.join("model.safetensors")).unwrap();
    let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let entry = &header["transformer.h.1.mlp.c_fc.weight"];
    assert_eq!(entry["dtype"], "F32");
    let [start, end] = [0, 1].map(|end| usize::try_from(entry["data_offsets"][end].as_u64().unwrap()).unwrap());
    for number in bytes[8 + length..][start..end].chunks_exact_mut(4) {
        let value = f32::from_le_bytes((&*number).try_into().unwrap());
        number.copy_from_slice(&(value * 1e-6).to_le_bytes());
    }
    fs::write(at.join("small/model.safetensors"), bytes).unwrap();
    let pack =
        |flags: &str| done(&run_loud("pack_gpt2", at, &format!("--model small --out packed {flags}")))[0].clone();
    let said = "scales of 1 matrices are f32, as f16 holds 6.1e-5 to 65504 and some of theirs are not: h.1.mlp.c_fc\n";
    assert!(pack("--scales f16").contains(said));
    let file = fs::read(at.join("packed/packed.safetensors")).unwrap();
    let length = usize::try_from(u64::from_le_bytes(file[..8].try_into().unwrap())).unwrap();
    let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    for (site, dtype) in [("h.1.mlp.c_fc", "F32"), ("h.0.mlp.c_fc", "F16")] {
        assert_eq!(header[format!("transformer.{site}.weight.scales")]["dtype"], dtype, "{site}");
    }
    assert!(!pack("--scales f32").contains("scales of"));
    let other = run_loud("pack_gpt2", at, "--model small --out packed --scales f8");
    assert_eq!(other.status.code(), Some(2));
}

/// Adapters of the built-in model for 2 bits at `attn.c_attn` alone, as PEFT trains them unless it is told more.
fn adapters_of_one_module(dir: &Path) {
    let (options, device) = (ModelOptions::default(), FlexDevice);
    let whole = default_model::load::<Flex>(&options, &device).expect("it is built in");
    let mut folder = default_model::load_without_adapters::<Flex>(&options, &device).expect("it is built in");
    let (whole, part) = (&whole.model.transformer, &mut folder.model.transformer);
    let sites: Vec<Site> = part.sites().iter().filter(|site| site.module.to_string() == "attn.c_attn").collect();
    for site in sites {
        let pair = whole.site(site).bank().get(BitWidth::B2).expect("the bank has it").clone();
        part.site_mut(site).insert_adapter(BitWidth::B2, pair).expect("it fits");
    }
    part.save_adapters(dir, "built-in").expect("it can be written");
}

#[test]
fn an_adapter_of_some_sites_is_used_at_these() {
    let dir = folder();
    let at = dir.path();
    adapters_of_one_module(&at.join("part"));
    let common = "--data data.json --adapters part";
    let [part, errors] = done(&run("evaluate", at, &format!("{common} --bits 2")));
    assert!(errors.contains("adapters   part: 2 (at 12 of 48 sites) bits, none at other widths"), "{errors}");
    assert!(part.starts_with("2 bits, 12 of 48 sites with adapters "), "{part}");
    let [bare, _] = done(&run("evaluate", at, "--data data.json --bits 2 --no-adapter"));
    assert_ne!(scores(&part), scores(&bare));

    let [printed, _] = done(&run("greedy_search", at, &format!("{common} --bits 2 --target-bits 20 --out g")));
    assert!(printed.contains("\n 2 bits with adapter, 36 sites without "), "{printed}");
    let (plan, found) = (json(&at.join("g/plan.json")), json(&at.join("g/greedy_search.json")));
    let mut adapted = 0;
    for (site, precision) in plan["sites"].as_object().expect("sites") {
        let of_adapter = precision["weights"] == 2 && site.ends_with("attn.c_attn");
        adapted += usize::from(of_adapter);
        let adapter = if of_adapter { 2.into() } else { Value::Null };
        assert_eq!(precision["adapter"], adapter, "{site}");
    }
    assert!(0 < adapted, "{plan}");
    let [again, _] = done(&run("evaluate", at, &format!("{common} --plan g/plan.json")));
    assert_eq!(scores(&again), ["exact_match", "f1"].map(|field| found["search"]["accuracy"][field].to_string()));

    done(&run("allocate", at, &format!("{common} --limit 4 --bits 32,2 --average-bits 20 --swaps 1 --out a")));
    let plan = json(&at.join("a/plan-20.json"));
    let with_adapter = |(site, precision): (&String, &Value)| (!precision["adapter"].is_null()).then(|| site.clone());
    let sites: Vec<String> = plan["sites"].as_object().expect("sites").iter().filter_map(with_adapter).collect();
    assert!(!sites.is_empty() && sites.iter().all(|site| site.ends_with("attn.c_attn")), "{sites:?}");
    done(&run("evaluate", at, &format!("{common} --limit 4 --plan a/plan-20.json")));

    // A plan that asks for one where there is none is refused.
    let asks = r#"{"version": 2, "default": {"weights": 2, "activations": 32, "adapter": 2}}"#;
    fs::write(at.join("asks.json"), asks).expect("valid input");
    let error = refused(&run("evaluate", at, &format!("{common} --plan asks.json")));
    assert!(error.contains("asks.json: site `h.0.attn.c_proj`: no adapter for 2 bits"), "{error}");
}

#[test]
fn no_command_comes_to_a_pass_with_a_plan_that_does_not_fit() {
    let dir = folder();
    let at = dir.path();
    adapters_with_heads(&at.join("heads"), &[BitWidth::B4]);
    // Codes whose plan asks for adapters that are not there, and whose adapters have heads that are not there.
    done(&run_loud("pack_gpt2", at, "--adapters heads --quantizer per-channel --bits 4 --out packed"));
    fs::rename(at.join("packed/adapters"), at.join("moved")).unwrap();
    let data = "--data data.json --limit 4";
    let report = "--search-limit 4 --train-limit 20 --steps 2 --seeds 1 --swaps 1 --attack-items 1 --attack-bits 8,4 \
                  --adversarial-rounds 1 --adversarial-items 1 --adversarial-steps 1 --contestants joint";
    let on_codes = [
        format!("evaluate {data} --quiet"),
        format!("greedy_search {data} --bits 4 --quiet"),
        format!("allocate {data} --bits 8,4 --quiet"),
        format!("robustness {data} --bits 8,4 --attacks typos,hot-flip-word --quiet"),
        format!("dynamic_inference {data} --bits 4,8 --quiet"),
        format!("report {data} --bits 8,4 {report} --quiet"),
        "train_bank --train data.json --steps 2 --bits 4 --quiet".to_owned(),
        "import_gpt2 --ids 1,2 --bits 4".to_owned(),
        "pack_gpt2 --out again".to_owned(),
        "nested_distortion".to_owned(),
    ];
    // Plans of adapters with different heads, with a word on which answers or without.
    let on_heads = ["", "--span-head base", "--span-head 4", "--span-head 8"].map(|head| {
        let mut commands: Vec<String> = on_codes[..6].iter().map(|command| format!("{command} {head}")).collect();
        commands[0] = format!("evaluate {data} --bits 4 --quiet {head}");
        commands
    });
    let mut refused = 0;
    let commands = on_codes.iter().map(|command| format!("{command} --model packed"));
    let on_heads =
        on_heads.concat().into_iter().map(|command| format!("{command} --adapters heads --quantizer per-channel"));
    for (number, command) in commands.chain(on_heads).enumerate() {
        let (name, flags) = command.split_once(' ').unwrap_or((&command, ""));
        let out = if ["train_bank", "greedy_search", "allocate", "robustness", "report", "dynamic_inference"]
            .contains(&name)
        {
            format!("--out out-{number}")
        } else {
            String::new()
        };
        let output = run_loud(name, at, &format!("{flags} {out}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0..=2)), "{command}: {errors}");
        assert!(!errors.contains("panicked"), "{command}: {errors}");
        refused += usize::from(output.status.code() == Some(1));
    }
    assert!(refused >= 8, "{refused} were refused");
}

#[test]
fn a_folder_packed_by_a_plan_that_merges_at_some_sites_answers_as_the_plan_does() {
    let dir = folder();
    let at = dir.path();
    // Adapters of PEFT alone, which do not say what they were trained for.
    let default = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/switchable-quant/default"));
    fs::create_dir_all(at.join("foreign/bits-4")).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(default.join("adapters/bits-4").join(file), at.join("foreign/bits-4").join(file)).unwrap();
    }
    let precision =
        |placement: &str| format!(r#"{{"weights": 4, "activations": 32, "adapter": 4, "placement": "{placement}"}}"#);
    let plan = |default: &str, c_fc: &str| {
        let [default, c_fc] = [default, c_fc].map(precision);
        format!(r#"{{"version": 2, "default": {default}, "sub_modules": {{"mlp.c_fc": {c_fc}}}}}"#)
    };
    for (name, default, c_fc, beside) in [
        ("some-beside", "merged", "residual", "adapters of 4 bits"),
        ("some-merged", "residual", "merged", "adapters of 4 bits"),
        ("all-merged", "merged", "merged", "no adapters beside the codes"),
    ] {
        fs::write(at.join(format!("{name}.json")), plan(default, c_fc)).unwrap();
        let plan = format!("--adapters foreign --plan {name}.json");
        let [of_plan, _] = done(&run("evaluate", at, &format!("--data data.json {plan} --out {name}-plan")));
        let [packed, _] = done(&run_loud("pack_gpt2", at, &format!("{plan} --out {name}")));
        assert!(packed.contains(beside), "{packed}");
        let [of_codes, _] = done(&run("evaluate", at, &format!("--data data.json --model {name} --out {name}-codes")));
        assert_eq!(scores(&of_codes), scores(&of_plan), "{name}");
        let answers = |out: &str| fs::read_to_string(at.join(format!("{name}-{out}/predictions.json"))).unwrap();
        assert_eq!(answers("codes"), answers("plan"), "{name}");
    }
}
