//! Rounding that knows the inputs.
//!
//! ```text
//! cargo bench -p switchable-quant-benches --bench calibrated
//! ```
//!
//! Ids are `calibrated/METHOD/RANGE/ROWSxCOLUMNS/DEVICE`; the throughput is in bytes of the weights.

fn main() {
    switchable_quant_benches::measure("calibrated", 10);
}
