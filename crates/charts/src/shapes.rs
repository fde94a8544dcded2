//! What is drawn: places, areas, lines, shapes and text on a page.

use crate::lettering::Font;
use crate::palette::Colour;

/// A place on the page: units from the left and from the top.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spot {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

pub(crate) const fn spot(x: f64, y: f64) -> Spot {
    Spot { x, y }
}

/// A rectangle on the page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Area {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) right: f64,
    pub(crate) bottom: f64,
}

impl Area {
    pub(crate) fn width(self) -> f64 {
        self.right - self.left
    }

    pub(crate) fn height(self) -> f64 {
        self.bottom - self.top
    }

    pub(crate) fn centre(self) -> Spot {
        spot(f64::midpoint(self.left, self.right), f64::midpoint(self.top, self.bottom))
    }
}

/// Which part of a text its place is; upright text is centred on the height of its capitals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Left,
    Centre,
    Right,
    /// Read from bottom to top, centred.
    Upwards,
    /// Read from bottom to top, ending at the place.
    UpwardsEnd,
}

/// Width and colour of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pen {
    pub(crate) width: f64,
    pub(crate) colour: Colour,
    pub(crate) dash: Dash,
}

/// Whether a line has gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dash {
    Solid,
    Dashed,
}

impl Pen {
    pub(crate) const fn solid(width: f64, colour: Colour) -> Self {
        Self { width, colour, dash: Dash::Solid }
    }

    pub(crate) const fn dashed(width: f64, colour: Colour) -> Self {
        Self { width, colour, dash: Dash::Dashed }
    }
}

/// Lengths of a dash and of the gap after it.
pub(crate) const DASH: [f64; 2] = [14.0, 9.0];

/// What is drawn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    Rectangle {
        area: Area,
        colour: Colour,
    },
    Polygon {
        corners: Vec<Spot>,
        colour: Colour,
        alpha: f64,
    },
    Disc {
        centre: Spot,
        radius: f64,
        colour: Colour,
    },
    /// Straight lines from spot to spot with rounded corners.
    Line {
        spots: Vec<Spot>,
        pen: Pen,
    },
    Text {
        text: String,
        at: Spot,
        anchor: Anchor,
        font: Font,
        colour: Colour,
    },
}
