//! Fake quantisation, by kernels and in plain tensor operations.
//!
//! ```text
//! cargo bench -p switchable-quant-benches --bench fake_quantize
//! ```
//!
//! Ids are `fake_quantize/GRANULARITY/WIDTH/ROWSxCOLUMNS[/plain]/DEVICE`; the throughput is in bytes of the input.

fn main() {
    switchable_quant_benches::measure("fake_quantize", 100);
}
