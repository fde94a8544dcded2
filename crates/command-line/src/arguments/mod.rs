//! Flags that several examples take, and those of one that are many.

pub mod activations;
pub mod answers;
pub mod attack_budget;
pub mod bank;
pub mod calibration;
pub mod count;
pub mod execution;
pub mod further_devices;
pub mod generation;
pub mod greedy;
pub mod hardening;
pub mod input;
pub mod items;
pub mod ladder;
pub mod language_model;
pub mod null_threshold;
pub mod plan;
pub mod quant;
pub mod reading;
pub mod regime;
pub mod run;
pub mod scaling;
pub mod study;
pub mod widths;
