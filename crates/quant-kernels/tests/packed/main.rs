//! Packed weights, their products and their files, against scalar references.

mod cases;
mod file;
mod nested;
mod pack;
mod product;
mod properties;
