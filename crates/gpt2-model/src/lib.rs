//! GPT-2 on burn with every linear sub-module at its own bit-width.
