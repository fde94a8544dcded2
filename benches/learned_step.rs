//! Quantisation by learned steps and its gradients, by kernels and in plain tensor operations.
//!
//! ```text
//! cargo bench -p switchable-quant-benches --bench learned_step
//! ```
//!
//! Ids are `learned_step/GRANULARITY/WIDTH/ROWSxCOLUMNS[/plain]/DEVICE`; the throughput is in bytes of the input.

fn main() {
    switchable_quant_benches::measure("learned_step", 30);
}
