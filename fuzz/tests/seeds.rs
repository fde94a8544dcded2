//! Every target on its committed seeds and on changes of them, without libFuzzer and its toolchain.
//!
//! `MUTATIONS` in the environment is the number of changes per target, 3,000 by default. The same number gives
//! the same changes.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use switchable_quant_fuzz::{SEPARATOR, TARGETS, Target};

const LONGEST: Duration = Duration::from_secs(10);

/// What may stand where something else stood.
const PIECES: [&[u8]; 20] = [
    b"0",
    b"1",
    b"-1",
    b"255",
    b"4294967295",
    b"4294967296",
    b"9223372036854775807",
    b"18446744073709551615",
    b"1e999",
    b"-0.0",
    b"null",
    b"true",
    b"\"\"",
    b"[]",
    b"{}",
    b"[[[[",
    b"\\u0000",
    b",",
    b"\0\0\0\0",
    b"\xF0\x9F",
];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut files: Vec<_> = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn changed(seeds: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let mut input = seeds.choose(rng).expect("a seed").clone();
    for _ in 0..rng.random_range(1..=4) {
        let [start, end] = {
            let start = rng.random_range(0..=input.len());
            [start, rng.random_range(start..=input.len().min(start + 24))]
        };
        match rng.random_range(0..7) {
            0 => drop(input.splice(start..end, PIECES.choose(rng).expect("a piece").iter().copied())),
            1 => drop(input.drain(start..end)),
            2 => input.truncate(start),
            3 => drop(input.splice(start..start, input[start..end].to_vec())),
            4 => drop(input.splice(start..start, [SEPARATOR])),
            5 => {
                // A number becomes another one.
                let digits: Vec<usize> =
                    input.iter().enumerate().filter(|(_, byte)| byte.is_ascii_digit()).map(|(at, _)| at).collect();
                if let Some(&at) = digits.choose(rng) {
                    input.splice(at..=at, PIECES[rng.random_range(0..9)].iter().copied());
                }
            }
            _ => {
                if let Some(byte) = input.get_mut(start) {
                    *byte ^= 1 << rng.random_range(0..8);
                }
            }
        }
    }
    input
}

/// Calls a target; a panic or a long run fails the test and shows the input.
fn call(name: &str, target: Target, input: &[u8]) {
    let start = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(|| target(input)));
    let shown = || input.escape_ascii().to_string();
    assert!(ended.is_ok(), "{name} panicked on b\"{}\"", shown());
    assert!(start.elapsed() < LONGEST, "{name} took {:?} on b\"{}\"", start.elapsed(), shown());
}

#[test]
fn no_change_of_a_seed_panics_hangs_or_takes_a_gibibyte() {
    let mutations = std::env::var("MUTATIONS").map_or(3_000, |text| text.parse().expect("MUTATIONS is a number"));
    for (number, (name, target)) in TARGETS.into_iter().enumerate() {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seed");
        for seed in &seeds {
            call(name, target, seed);
        }
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(number as u64);
        for _ in 0..mutations {
            call(name, target, &changed(&seeds, &mut rng));
        }
        println!("{name}: {} seeds, {mutations} changes in {:.1?}", seeds.len(), start.elapsed());
    }
}

#[test]
fn every_target_has_a_program_and_no_program_is_without_one() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
    let mut programs: Vec<String> = fs::read_dir(programs)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    programs.sort();
    assert_eq!(programs, TARGETS.map(|(name, _)| name));
}
