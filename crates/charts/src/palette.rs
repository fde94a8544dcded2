//! Colours that stay apart without colour vision.

use plotters_backend::BackendColor;

/// An opaque sRGB colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Colour(pub(crate) [u8; 3]);

pub(crate) const PAPER: Colour = Colour([255, 255, 255]);
/// Text and whiskers.
pub(crate) const INK: Colour = Colour([26, 26, 26]);
/// Subtitles, axis lines, reference lines.
pub(crate) const GREY: Colour = Colour([85, 85, 85]);
pub(crate) const GRID: Colour = Colour([225, 225, 225]);
/// A cell without a value.
pub(crate) const EMPTY: Colour = Colour([214, 214, 214]);

/// Okabe and Ito's colours without yellow, which is too pale on white.
pub(crate) const SERIES: [Colour; 7] = [
    Colour([0, 114, 178]),
    Colour([213, 94, 0]),
    Colour([0, 158, 115]),
    Colour([204, 121, 167]),
    Colour([86, 180, 233]),
    Colour([230, 159, 0]),
    Colour([0, 0, 0]),
];

const VIRIDIS: [Colour; 9] = [
    Colour([68, 1, 84]),
    Colour([71, 44, 122]),
    Colour([59, 81, 139]),
    Colour([44, 113, 142]),
    Colour([33, 144, 141]),
    Colour([39, 173, 129]),
    Colour([92, 200, 99]),
    Colour([170, 220, 50]),
    Colour([253, 231, 37]),
];

/// Blue below, white at the middle, orange-brown above.
const DIVERGING: [Colour; 5] = [
    Colour([0, 72, 130]),
    Colour([110, 170, 212]),
    Colour([247, 247, 247]),
    Colour([236, 150, 80]),
    Colour([150, 60, 0]),
];

/// Viridis at a share of 0 to 1.
pub(crate) fn sequential(share: f64) -> Colour {
    between(&VIRIDIS, share)
}

/// The diverging scale; a share of ½ is its neutral middle.
pub(crate) fn diverging(share: f64) -> Colour {
    between(&DIVERGING, share)
}

fn between(stops: &[Colour], share: f64) -> Colour {
    let position = share.clamp(0.0, 1.0) * (stops.len() - 1) as f64;
    let first = (position as usize).min(stops.len() - 2);
    stops[first].mixed(stops[first + 1], position - first as f64)
}

impl Colour {
    fn mixed(self, other: Self, share: f64) -> Self {
        let mix = |i: usize| {
            let (a, b) = (f64::from(self.0[i]), f64::from(other.0[i]));
            (a + (b - a) * share).round() as u8
        };
        Self([mix(0), mix(1), mix(2)])
    }

    /// Relative luminance of WCAG 2, 0 to 1.
    pub(crate) fn luminance(self) -> f64 {
        let linear = |byte: u8| {
            let c = f64::from(byte) / 255.0;
            if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        let [r, g, b] = self.0;
        0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
    }

    /// Contrast ratio of WCAG 2, 1 to 21.
    pub(crate) fn contrast(self, other: Self) -> f64 {
        let (a, b) = (self.luminance(), other.luminance());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    /// Black or white, whichever stands out more from this colour.
    pub(crate) fn readable_ink(self) -> Self {
        let black = Self([0, 0, 0]);
        if self.contrast(PAPER) > self.contrast(black) { PAPER } else { black }
    }

    pub(crate) fn with_alpha(self, alpha: f64) -> BackendColor {
        let [r, g, b] = self.0;
        BackendColor { rgb: (r, g, b), alpha }
    }
}
