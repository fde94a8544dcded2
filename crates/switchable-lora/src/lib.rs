//! Linear layers whose bit-width and LoRA adapter are chosen per call.
