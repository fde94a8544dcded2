//! Time of a switch between plans, and what it adds to a forward pass.
//!
//! ```text
//! cargo bench -p switchable-quant-benches --bench switch
//! ```
//!
//! Ids are `switch/CASE/DEVICE`. `pick` is two requests to a controller and the look-up of the first
//! site's precision in each plan; `alternating` is two forward passes under two plans in turn, `4_4` and
//! `8_8` two under one: the mean of these is what `alternating` would take if a switch cost nothing.

fn main() {
    switchable_quant_benches::measure("switch", 20);
}
