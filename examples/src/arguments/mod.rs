//! Flags that several examples take.

pub mod hardening;
pub mod input;
pub mod quant;
pub mod regime;
pub mod run;
pub mod widths;
