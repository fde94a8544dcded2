//! Quantisation of tensors at 1 to 16 bits: parameters, fake quantisation, learned steps and distortion.
