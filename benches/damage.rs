//! Damage of all sites of the built-in model at seven widths on 24 questions.
//!
//! ```text
//! cargo bench -p switchable-quant-benches --bench damage
//! ```
//!
//! Ids are `damage/HOW/WIDTHSxQUESTIONS/DEVICE`: estimated from one backward pass for each question, or measured. The
//! throughput is in tokens of one reading of all windows.

fn main() {
    switchable_quant_benches::measure("damage", 10);
}
