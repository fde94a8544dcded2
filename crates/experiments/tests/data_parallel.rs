//! Several devices train what one does.

use std::collections::BTreeMap;

use burn::module::Module as _;

use experiments::banks::bank::{BankConfig, RegimeOfBank, train_bank_with, train_base};
use experiments::train::branch::Protection;
use experiments::train::config::TrainConfig;
use experiments::train::ladder::Ladder;
use experiments::train::regimes::joint::Joint;
use experiments::train::trainer::TrainRun;
use quant_kernels::spec::bit_width::BitWidth;
use switchable_lora::{linear_settings::BasePolicy, lora_config::LoraConfig};
use test_support::test_device::further_devices;

use crate::support::{Training, model, quiet, skip_without_device, task, train_config, training, weights};

/// One device, and it with one and with all further ones.
fn teams() -> BTreeMap<usize, TrainRun> {
    let further = further_devices();
    let team = |size: usize| (size, TrainRun { beside: further[..size].to_vec(), ..quiet(size + 1) });
    [0, 1, further.len()].map(team).into()
}

fn in_parts(steps: usize, micro_batches: usize) -> TrainConfig {
    TrainConfig { micro_batches, ..train_config(steps) }
}

/// Every team trains what one device does: weights and losses, to the bit.
fn assert_same_from_every_team(train: impl Fn(&TrainRun) -> (Vec<f32>, Vec<f64>)) {
    let mut teams = teams().into_iter().map(|(size, run)| (size, train(&run)));
    let (_, alone) = teams.next().expect("one device");
    for (size, trained) in teams {
        assert_eq!(trained, alone, "{size} further devices");
    }
}

#[test]
fn a_base_is_the_same_from_any_number_of_devices() {
    skip_without_device!();
    let (_, shape, task) = task(6);
    // Parts that the devices share evenly and parts that they do not.
    for micro_batches in [4, 8] {
        let config = in_parts(5, micro_batches);
        assert_same_from_every_team(|run| {
            let start = model::<Training>(&shape, BasePolicy::Trainable);
            let before = weights(&start);
            let (model, outcome) = train_base(start, &task, training(&config, run)).expect("it trains");
            assert_ne!(weights(&model), before, "something was trained");
            assert_eq!(model.devices().len(), 1, "what is trained is on one device");
            (weights(&model), outcome.losses)
        });
    }
}

/// Frozen weights that are quantised and kept, adapters, learned steps and gradients that are kept from acting against
/// another width.
#[test]
fn a_bank_with_learned_steps_is_the_same_from_any_number_of_devices() {
    skip_without_device!();
    let (_, shape, task) = task(6);
    let widths = [BitWidth::FULL, BitWidth::B4, BitWidth::B2];
    let bank = BankConfig { learned_steps: true, ..BankConfig::new(&widths, LoraConfig::new(2, 4.0).unwrap(), 3) };
    let regime = |_: &_, ladder: &Ladder| {
        let joint: Box<dyn experiments::train::regimes::Regime> =
            Box::new(Joint::new(ladder.clone(), Protection::Guarded));
        Ok(joint)
    };
    let config = in_parts(4, 4);
    assert_same_from_every_team(|run| {
        let start = model::<Training>(&shape, BasePolicy::Trainable);
        let of = RegimeOfBank::new(&bank, &regime);
        let (model, outcome) = train_bank_with(start, &task, &of, training(&config, run)).expect("it trains");
        (weights(&model), outcome.losses)
    });
}

#[test]
fn every_device_needs_a_part_of_a_step() {
    skip_without_device!();
    let (_, shape, task) = task(3);
    let run = TrainRun { beside: vec![further_devices()[0]; 2], ..quiet(1) };
    let start = model::<Training>(&shape, BasePolicy::Trainable);
    let error = train_base(start, &task, training(&in_parts(1, 2), &run)).unwrap_err().to_string();
    assert!(error.contains("micro_batches") && error.contains("at least 3"), "{error}");
}
