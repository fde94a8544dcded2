use gpt2_model::Gpt2Config;
use gpt2_model::names::MLP_C_PROJ;
use quant_kernels::spec::bit_width::BitWidth;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::config::ModelConfig;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::Site;

use super::*;
use crate::train::branch::{Distance, Protection};
use crate::train::ladder::Ladder;
use crate::train::regimes::cascade::Cascade;
use crate::train::regimes::cyclic::{Cycle, Cyclic};
use crate::train::regimes::in_turn::Static;
use crate::train::regimes::joint::Joint;
use crate::train::regimes::layer_dropout::LayerDropout;
use crate::train::regimes::random::Random;
use crate::train::regimes::shuffled::Shuffled;
use crate::train::regimes::specialised::Specialised;

const WIDTHS: [BitWidth; 4] = [BitWidth::B4, BitWidth::B8, BitWidth::B16, BitWidth::FULL];

fn config() -> Gpt2Config {
    Gpt2Config::new(97, 64, 32, 3, 4)
}

fn plan(bits: BitWidth) -> SitePlan {
    SitePlan::uniform(&config().sites(), SitePrecision::uniform(bits))
}

fn ladder() -> Ladder {
    // In no order: a ladder sorts itself.
    Ladder::new([2, 0, 3, 1].map(|i| (WIDTHS[i], plan(WIDTHS[i])))).unwrap()
}

/// Width of the only branch of a step.
fn width(regime: &dyn Regime, step: usize) -> u8 {
    let branches = regime.branches(step);
    assert_eq!(branches.len(), 1);
    let mut widths = branches[0].plan.iter().map(|(_, precision)| precision.weights.bits());
    let first = widths.next().unwrap();
    assert!(widths.all(|width| width == first));
    first
}

#[test]
fn ladders_hold_each_width_once() {
    assert_eq!(ladder().rungs().iter().map(|rung| rung.bits).collect::<Vec<_>>(), WIDTHS);
    assert!(Ladder::new([]).is_err());
    let message = Ladder::new([BitWidth::B4, BitWidth::B4].map(|b| (b, plan(b)))).unwrap_err().to_string();
    assert!(message.contains("4 twice"), "{message}");
    let nearest = |bits| ladder().nearest(bits).bits;
    assert_eq!(
        [nearest(2.0), nearest(6.0), nearest(6.1), nearest(23.9), nearest(24.1)],
        [BitWidth::B4, BitWidth::B4, BitWidth::B8, BitWidth::B16, BitWidth::FULL]
    );
}

#[test]
fn cosine_cycles_ramp_by_the_formula_and_reset() {
    let regime = Cyclic::new(ladder(), Cycle::Cosine, 10).unwrap();
    // rint(4 + 14·(1 − cos(π·t/10))) for t = 0 … 9, by hand.
    let expected = [4.0, 5.0, 7.0, 10.0, 14.0, 18.0, 22.0, 26.0, 29.0, 31.0];
    for step in 0..30 {
        assert_eq!(regime.bits(step).to_bits(), f64::to_bits(expected[step % 10]), "step {step}");
    }
    let widths: Vec<u8> = (0..11).map(|step| width(&regime, step)).collect();
    assert_eq!(widths, [4, 4, 8, 8, 16, 16, 16, 32, 32, 32, 4]);
}

#[test]
fn triangular_cycles_go_up_and_down() {
    let regime = Cyclic::new(ladder(), Cycle::Triangular, 6).unwrap();
    let widths: Vec<u8> = (0..13).map(|step| width(&regime, step)).collect();
    assert_eq!(widths, [4, 8, 16, 32, 16, 8, 4, 8, 16, 32, 16, 8, 4]);
    // A single width stays.
    let one = Ladder::new([(BitWidth::B4, plan(BitWidth::B4))]).unwrap();
    for cycle in [Cycle::Cosine, Cycle::Triangular] {
        let regime = Cyclic::new(one.clone(), cycle, 7).unwrap();
        assert!((0..20).all(|step| width(&regime, step) == 4));
    }
}

#[test]
fn cycles_that_do_not_fit_are_refused() {
    assert!(Cyclic::new(ladder(), Cycle::Cosine, 1).is_err());
    assert_eq!(Cyclic::steps_of(100, 8).unwrap(), 12);
    assert!(Cyclic::steps_of(100, 0).is_err() && Cyclic::steps_of(100, 51).is_err());
}

#[test]
fn a_shuffled_run_has_each_width_as_often_as_the_cyclic_one_and_no_cycles() {
    let widths_of = |regime: &dyn Regime| (0..203).map(|step| width(regime, step)).collect::<Vec<_>>();
    let cyclic = widths_of(&Cyclic::new(ladder(), Cycle::Cosine, Cyclic::steps_of(203, 8).unwrap()).unwrap());
    let shuffled = widths_of(&Shuffled::new(ladder(), 203, 8, 1).unwrap());
    let sorted = |widths: &[u8]| {
        let mut widths = widths.to_vec();
        widths.sort_unstable();
        widths
    };
    assert_eq!(sorted(&shuffled), sorted(&cyclic));
    let same = shuffled.iter().zip(&cyclic).filter(|(a, b)| a == b).count();
    // Of independent draws at the shares of this histogram 55 are the same.
    assert!(same < 85, "{same} of 203");
    assert_eq!(shuffled, widths_of(&Shuffled::new(ladder(), 203, 8, 1).unwrap()));
    assert_ne!(shuffled, widths_of(&Shuffled::new(ladder(), 203, 8, 2).unwrap()));
    let message = Shuffled::new(ladder(), 15, 8, 1).unwrap_err().to_string();
    assert!(message.contains("cycles") && message.contains("15 steps"), "{message}");
}

#[test]
fn joint_runs_every_width_and_protects_the_highest() {
    let branches = Joint::new(ladder(), Protection::Guarded).branches(3);
    assert_eq!(branches.iter().map(|b| &b.plan).collect::<Vec<_>>(), WIDTHS.map(plan).iter().rev().collect::<Vec<_>>());
    assert!((branches.iter().map(|b| b.weight).sum::<f64>() - 1.0).abs() < 1e-12);
    assert_eq!(branches[0].protection, Protection::Guarded);
    assert!(branches[1..].iter().all(|b| b.protection == Protection::None && b.teachers.is_empty()));
}

#[test]
fn every_higher_width_teaches_in_a_cascade() {
    let regime = Cascade::new(ladder(), 0.5, Distance::Mse, Protection::None).unwrap();
    for (place, branch) in regime.branches(0).iter().enumerate() {
        let teachers: Vec<usize> = branch.teachers.iter().map(|t| t.branch).collect();
        assert_eq!(teachers, (0..place).collect::<Vec<_>>());
        assert!(branch.teachers.iter().all(|t| t.distance == Distance::Mse && (t.weight - 0.5).abs() < 1e-12));
    }
    for beta in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(Cascade::new(ladder(), beta, Distance::Kl, Protection::None).is_err());
    }
}

#[test]
fn specialised_steps_come_at_their_share_and_the_others_keep_their_turn() {
    let site = Site::in_block(1, MLP_C_PROJ);
    let low = SitePrecision::uniform(BitWidth::B4);
    let inner = Static::new(WIDTHS.map(plan).to_vec()).unwrap();
    let regime = Specialised::new(inner, &plan(BitWidth::FULL), &[site], low, 0.25).unwrap();
    let special = plan(BitWidth::FULL).with(site, low);
    let mut inner_steps = 0;
    for step in 0..40 {
        let branches = regime.branches(step);
        if step % 4 == 3 {
            assert_eq!(branches[0].plan, special, "step {step}");
        } else {
            assert_eq!(branches[0].plan, plan(WIDTHS[inner_steps % 4]), "step {step}");
            inner_steps += 1;
        }
    }
    let inner = || Static::new(vec![plan(BitWidth::B4)]).unwrap();
    assert!(Specialised::new(inner(), &special, &[], low, 0.5).is_err());
    assert!(Specialised::new(inner(), &special, &[site], low, 1.5).is_err());
}

#[test]
fn layer_dropout_leaves_a_random_few_sites_high() {
    let high = plan(BitWidth::FULL);
    let inner = || Joint::new(ladder(), Protection::None);
    let regime = LayerDropout::new(inner(), high.clone(), 2, 5).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for step in 0..50 {
        let branches = regime.branches(step);
        assert_eq!(branches, regime.branches(step), "a step draws the same in every run");
        assert_eq!(branches[0].plan, high);
        for branch in &branches[1..] {
            let kept: Vec<Site> =
                branch.plan.iter().filter(|(_, p)| p.weights.is_full()).map(|(site, _)| site).collect();
            assert_eq!(kept.len(), 2);
            seen.extend(kept);
        }
    }
    assert_eq!(seen.len(), 12, "every site is left out at some time");
    assert!(LayerDropout::new(inner(), high.clone(), 0, 5).is_err());
    assert!(LayerDropout::new(inner(), high, 12, 5).is_err());
}

#[test]
fn wrapped_regimes_tell_all_their_parameters() {
    let regime: Box<dyn Regime> = Box::new(Cyclic::new(ladder(), Cycle::Cosine, 9).unwrap());
    let regime = LayerDropout::new(regime, plan(BitWidth::FULL), 2, 5).unwrap();
    let parameters = regime.parameters();
    assert_eq!(parameters["inner"], "cyclic");
    assert_eq!(parameters["inner_parameters"]["steps_per_cycle"], 9);
}

#[test]
fn random_widths_are_drawn_alike_and_the_same_in_every_run() {
    let regime = Random::new(ladder(), 3);
    let widths: Vec<u32> = (0..400).map(|step| width(&regime, step).into()).collect();
    for bits in [4, 8, 16, 32] {
        let drawn = widths.iter().filter(|width| **width == bits).count();
        // 100 expected; three standard deviations are 26.
        assert!((74..=126).contains(&drawn), "{bits} bits: {drawn}");
    }
    assert_eq!(widths[57], u32::from(width(&Random::new(ladder(), 3), 57)));
    assert!((0..400).any(|step| u32::from(width(&Random::new(ladder(), 4), step)) != widths[step]));
}
