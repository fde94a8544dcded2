//! Blocks × sub-modules as coloured cells in the terminal.

use std::fmt;

use crate::search::sensitivity::{Sensitivity, SiteLosses};

/// Colours from harmless to harmful, of the 256-colour palette: a dark-to-bright scale of one hue
/// family that stays ordered without colour vision, as brightness rises with harm.
const SCALE: [u8; 7] = [17, 54, 90, 126, 162, 203, 222];

/// The exact match that each site costs alone, in percent points.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    losses: SiteLosses,
    colour: Colour,
}

/// Whether cells are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// With terminal escapes.
    Yes,
    /// Numbers alone.
    No,
}

impl Colour {
    /// Colour where standard output is a terminal.
    pub fn of_stdout() -> Self {
        if std::io::IsTerminal::is_terminal(&std::io::stdout()) { Self::Yes } else { Self::No }
    }
}

impl HeatMap {
    /// From a sensitivity of single sites; blocks alone give no map.
    pub fn new(sensitivity: &Sensitivity) -> Option<Self> {
        Some(Self { losses: sensitivity.site_losses()?, colour: Colour::of_stdout() })
    }

    /// The same with or without colour; by default colour is used on a terminal.
    pub fn with_colour(mut self, colour: Colour) -> Self {
        self.colour = colour;
        self
    }
}

/// One cell: a text on the colour of its share of the worst, 0 to 1.
pub(crate) fn write_cell(f: &mut fmt::Formatter<'_>, colour: Colour, text: &str, share: f64) -> fmt::Result {
    match colour {
        Colour::No => write!(f, " {text} "),
        Colour::Yes => {
            let step = (share.clamp(0.0, 1.0) * (SCALE.len() - 1) as f64).round() as usize;
            let ink = if step >= SCALE.len() - 2 { 16 } else { 255 };
            write!(f, "\x1b[48;5;{}m\x1b[38;5;{ink}m {text} \x1b[0m", SCALE[step])
        }
    }
}

impl fmt::Display for HeatMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SiteLosses { modules, rows } = &self.losses;
        let worst = rows.iter().flatten().copied().fold(0.0, f64::max);
        write!(f, "block")?;
        for module in modules {
            write!(f, " {module:>12}")?;
        }
        writeln!(f)?;
        for (block, row) in rows.iter().enumerate() {
            write!(f, "{block:>5}")?;
            for harm in row {
                let share = if worst > 0.0 { harm / worst } else { 0.0 };
                write_cell(f, self.colour, &format!("{harm:>11.1}"), share)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
