//! A model whose files are part of the program.

use quant_kernels::spec::bit_width::BitWidth;

/// The files of a folder that is part of the program; the names stand in errors.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedFolder {
    /// The folder's name, such as `<built-in>`.
    pub name: &'static str,
    /// `config.json`.
    pub config: &'static str,
    /// `model.safetensors`.
    pub weights: &'static [u8],
    /// `tokenizer.json`.
    pub tokenizer: &'static [u8],
    /// Adapters of each width.
    pub adapters: &'static [EmbeddedAdapter],
}

/// The files of an adapter that is part of the program.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedAdapter {
    /// The folder's name.
    pub name: &'static str,
    /// The width that it belongs to.
    pub width: BitWidth,
    /// `adapter_config.json`.
    pub config: &'static [u8],
    /// `adapter_model.safetensors`.
    pub weights: &'static [u8],
    /// `switchable_quant.json`, what the adapter was trained for.
    pub trained_for: &'static [u8],
}
