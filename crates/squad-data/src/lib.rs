//! SQuAD reading, windows, official metrics and synthetic reading-comprehension corpora.
