//! Forward pass of GPT-2 small and of the built-in model.
//!
//! ```text
//! cargo bench -p switchable-quant-benches --bench gpt2_forward
//! ```
//!
//! Ids are `gpt2_forward/WIDTHS/BATCHxTOKENS/DEVICE`; the throughput is in tokens.

fn main() {
    switchable_quant_benches::measure("gpt2_forward", 10);
}
