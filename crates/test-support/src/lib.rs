#![doc = include_str!("../README.md")]

pub mod compare;
pub mod fixture;
pub mod folder;
pub mod numbers;
pub mod panics;
pub mod test_device;
pub mod token_batch;
