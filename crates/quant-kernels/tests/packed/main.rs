//! Packed weights, their products and their files, against scalar references.
#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

mod cases;
mod file;
mod half;
mod nested;
mod nested_speed;
mod normal_float;
mod pack;
mod product;
mod properties;
