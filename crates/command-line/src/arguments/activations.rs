//! The width of what enters a layer.

use clap::Args;

use switchable_quant::kernels::BitWidth;

/// The width of the activations.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ActivationArgs {
    /// Width of the activations of sites whose weights are quantised, a scale for each token; by default full
    /// precision, or as an artefact has it
    #[arg(long, value_name = "BITS")]
    pub activations: Option<BitWidth>,
}
