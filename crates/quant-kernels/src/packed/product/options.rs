//! How a product is computed.

use crate::{
    cpu::instruction_set::InstructionSet,
    packed::product::{activations::ActivationBits, epilogue::Epilogue},
};

/// How a product is computed.
///
/// | option | default |
/// |---|---|
/// | `activations` | full precision |
/// | `epilogue` | none |
/// | `instructions` | the best that the processor has |
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    /// The numbers of the activations; integers are quantised per row.
    pub activations: ActivationBits,
    /// What is done to each output.
    pub epilogue: Epilogue<'a>,
    /// The instructions that are used.
    pub instructions: InstructionSet,
}

impl Default for Product<'_> {
    fn default() -> Self {
        Self { activations: ActivationBits::FULL, epilogue: Epilogue::default(), instructions: InstructionSet::best() }
    }
}
