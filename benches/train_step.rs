//! One training step of GPT-2 small's adapters.
//!
//! ```text
//! cargo bench -p switchable-quant-benches --bench train_step
//! ```
//!
//! Ids are `train_step/ADAPTER/WIDTH/BATCHxTOKENS/DEVICE`; the throughput is in tokens.

fn main() {
    switchable_quant_benches::measure("train_step", 10);
}
