//! Training, evaluation and bit-width search for switchable GPT-2 models.
