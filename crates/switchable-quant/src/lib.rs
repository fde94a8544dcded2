//! One GPT-2 at 4, 8, 16 or 32 bits, switched per sub-module at run time.
