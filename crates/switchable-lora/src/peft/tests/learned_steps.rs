//! The file of learned steps.

use super::*;

#[test]
fn learned_steps_come_back_bit_for_bit_beside_the_files_that_peft_reads() {
    let (pairs, bare) = (pairs_with_steps(), saved(&pairs()));
    let dir = saved(&pairs);
    for file in [CONFIG_FILE, MODEL_FILE] {
        let read = |dir: &TempDir| fs::read(dir.path().join(file)).unwrap();
        assert_eq!(read(&dir), read(&bare), "{file}");
    }
    assert!(!bare.path().join(LEARNED_STEPS_FILE).exists());
    let loaded = load(&dir).unwrap();
    for (site, pair) in &pairs {
        let step = |pair: &LoraAdapterPair<Flex>| {
            let step = pair.step()?;
            Some((step.bits(), step.granularity(), step.step.dims(), values(step.step.val())))
        };
        assert_eq!(step(&loaded[site]), step(pair), "{site}");
        assert_eq!(step(pair).is_none(), site == "h.0.attn.c_attn");
        assert_eq!(values(loaded[site].a.val()), values(pair.a.val()), "{site}");
    }

    // From bytes, onto the adapters that have none yet.
    let bytes = fs::read(dir.path().join(LEARNED_STEPS_FILE)).unwrap();
    let given = parse_learned_steps(&bytes, PREFIX, load(&bare).unwrap()).unwrap();
    assert_eq!(given.values().filter(|pair| pair.step().is_some()).count(), 4);

    // A later bank without steps leaves none behind.
    let without = super::tests::pairs();
    save_peft(&dir, without.iter().map(|(site, pair)| (site.as_str(), pair)), &options()).unwrap();
    assert!(!dir.path().join(LEARNED_STEPS_FILE).exists());
    assert!(load(&dir).unwrap().values().all(|pair| pair.step().is_none()));
}

#[test]
fn bad_files_of_learned_steps_are_errors_that_name_file_and_tensor() {
    const TENSOR: &str = "transformer.h.2.attn.c_attn.step";
    type Tensors = BTreeMap<String, OwnedTensor>;
    type Edit<'a> = &'a dyn Fn(&mut Tensors);
    let set = |tensors: &mut Tensors, value: f32| {
        tensors.get_mut(TENSOR).unwrap().2[8..12].copy_from_slice(&value.to_le_bytes());
    };
    let cases: [(Edit<'_>, String); 9] = [
        (&|tensors| set(tensors, f32::NAN), format!("tensor `{TENSOR}` holds NaN at element 2")),
        (&|tensors| set(tensors, f32::INFINITY), format!("tensor `{TENSOR}` holds inf at element 2")),
        (&|tensors| set(tensors, 0.0), format!("tensor `{TENSOR}` holds 0 at element 2")),
        (&|tensors| set(tensors, -0.0), format!("tensor `{TENSOR}` holds 0 at element 2")),
        (
            &|tensors| tensors.get_mut(TENSOR).unwrap().1 = vec![2, 9],
            format!("tensor `{TENSOR}` has shape [2, 9], expected [1, 18], per-channel"),
        ),
        (&|tensors| tensors.get_mut(TENSOR).unwrap().0 = Dtype::I32, format!("tensor `{TENSOR}` has dtype I32")),
        (&|tensors| drop(tensors.remove(TENSOR)), format!("tensor `{TENSOR}` is missing")),
        (
            &|tensors| {
                let tensor = tensors[TENSOR].clone();
                tensors.insert("transformer.h.9.mlp.c_fc.step".into(), tensor);
            },
            "tensor `transformer.h.9.mlp.c_fc.step` is unexpected, expected `transformer.<site with an adapter>.step`"
                .into(),
        ),
        (
            &|tensors| {
                let tensor = tensors.remove(TENSOR).unwrap();
                tensors.insert(TENSOR.replace("transformer", "gpt"), tensor);
            },
            "tensor `gpt.h.2.attn.c_attn.step` is unexpected, expected `transformer.<site>.step`".into(),
        ),
    ];
    for (edit, expected) in cases {
        let dir = saved(&pairs_with_steps());
        edit_tensors_of(&dir, LEARNED_STEPS_FILE, edit, |_| ());
        let message = message(&dir);
        assert!(message.contains(&expected) && message.contains(LEARNED_STEPS_FILE), "`{message}` is not `{expected}`");
    }

    for (key, value, expected) in [
        ("format", "pt", "field `format` is pt, expected switchable-lora.learned-steps"),
        ("version", "2", "field `version` is 2, expected 1"),
        ("bits", "many", "field `bits` is many"),
        ("bits", "32", "32 bits are full precision"),
        ("granularities", "[]", "field `granularities`: invalid type"),
        ("granularities", "{}", "field `granularities` is transformer.h"),
        ("granularities", r#"{"transformer.h.2.attn.c_attn": "per-row"}"#, "field `granularities`: "),
    ] {
        let dir = saved(&pairs_with_steps());
        edit_tensors_of(&dir, LEARNED_STEPS_FILE, |_| (), |metadata| drop(metadata.insert(key.into(), value.into())));
        let message = message(&dir);
        assert!(message.contains(expected) && message.contains(LEARNED_STEPS_FILE), "`{message}` is not `{expected}`");
    }

    let dir = saved(&pairs_with_steps());
    let path = dir.path().join(LEARNED_STEPS_FILE);
    let bytes = fs::read(&path).unwrap();
    for keep in [0, 4, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..keep]).unwrap();
        assert!(message(&dir).contains(LEARNED_STEPS_FILE), "{keep} bytes");
    }
}

#[test]
fn steps_that_cannot_be_saved_leave_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let of = |value: f32, bits| {
        let step = Tensor::<Flex, 2>::from_floats([[value]], &Default::default());
        pair(2, 2.0, [3, 4], 1).with_step(LearnedStep::from_steps(step, bits, Granularity::PerTensor).unwrap())
    };
    let (fine, other) = (of(0.5, BitWidth::B4), of(0.5, BitWidth::B3));
    let pairs = [("h.0.attn.c_attn", &fine), ("h.0.mlp.c_fc", &other)];
    let message = save_peft(&dir, pairs, &options()).unwrap_err().to_string();
    let expected = "a learned step for 3 bits does not fit the adapter for 4 bits";
    assert!(message.contains("h.0.mlp.c_fc") && message.contains(expected), "{message}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}
