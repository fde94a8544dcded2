//! The names of the files that certificates read and write in the folder of an artefact.

/// The certificate.
pub const CERTIFICATE: &str = "certificate.json";
/// The model card, of which a section is the certificate's.
pub const MODEL_CARD: &str = "README.md";
/// The questions that made the artefact.
pub const MADE_FROM: &str = "made_from.json";
