//! Quantisation by a table and its reverse on slices: values by given scales.
//!
//! ```text
//! y = entry(number of middles below x / s) · s
//! ```
//!
//! The entry is chosen by comparisons alone, so that every instruction set gives the same bits. A NaN stays one.

use std::mem::MaybeUninit;

use crate::{cpu::multiversion::multiversion, spec::formats::code_book::Table};

#[inline(always)]
fn value(table: &Table, x: f32, scale: f32) -> f32 {
    let ratio = x / scale;
    let mut value = table.entries[0];
    for (middle, entry) in table.middles.iter().zip(&table.entries[1..]) {
        value = if ratio > *middle { *entry } else { value };
    }
    let value = if ratio.is_nan() { ratio } else { value };
    value * scale
}

/// The gradient where the value is not beyond the table, else 0.
#[inline(always)]
fn passed(table: &Table, x: f32, gradient: f32, scale: f32) -> f32 {
    let [first, .., last] = table.entries;
    let ratio = x / scale;
    if ratio >= first && ratio <= last { gradient } else { 0.0 }
}

multiversion! {
    /// Values of a run under one scale.
    pub(crate) fn table_run(x: &[f32], scale: f32, table: &Table, y: &mut [MaybeUninit<f32>]) {
        for (y, &x) in y.iter_mut().zip(x) {
            y.write(value(table, x, scale));
        }
    }
}

multiversion! {
    /// Values of a row whose columns have a scale each.
    pub(crate) fn table_columns(x: &[f32], scales: &[f32], table: &Table, y: &mut [MaybeUninit<f32>]) {
        for ((y, &x), &scale) in y.iter_mut().zip(x).zip(scales) {
            y.write(value(table, x, scale));
        }
    }
}

multiversion! {
    /// Gradients of a run under one scale by the clipped rule.
    pub(crate) fn table_pass_run(
        x: &[f32], gradient: &[f32], scale: f32, table: &Table, out: &mut [MaybeUninit<f32>]
    ) {
        for ((out, &x), &gradient) in out.iter_mut().zip(x).zip(gradient) {
            out.write(passed(table, x, gradient, scale));
        }
    }
}

multiversion! {
    /// Gradients of a row whose columns have a scale each, by the clipped rule.
    pub(crate) fn table_pass_columns(
        x: &[f32], gradient: &[f32], scales: &[f32], table: &Table, out: &mut [MaybeUninit<f32>]
    ) {
        for (((out, &x), &gradient), &scale) in out.iter_mut().zip(x).zip(gradient).zip(scales) {
            out.write(passed(table, x, gradient, scale));
        }
    }
}
