//! Shapes and text on a page, in the order in which they are drawn: what every form of a picture is made from.

use crate::bitmap::Bitmap;
use crate::lettering::Font;
use crate::palette::Colour;
use crate::size::Size;
use crate::svg;

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

/// A page with what was drawn on it.
#[derive(Debug)]
pub(crate) struct Canvas {
    size: Size,
    shapes: Vec<Shape>,
}

impl Canvas {
    pub(crate) fn new(size: Size) -> Self {
        Self { size, shapes: Vec::new() }
    }

    /// The whole page.
    pub(crate) fn page(&self) -> Area {
        let unit = self.size.pixels_per_unit();
        Area {
            left: 0.0,
            top: 0.0,
            right: f64::from(self.size.width) / unit,
            bottom: f64::from(self.size.height) / unit,
        }
    }

    pub(crate) fn rectangle(&mut self, area: Area, colour: Colour) {
        self.shapes.push(Shape::Rectangle { area, colour });
    }

    pub(crate) fn polygon(&mut self, corners: &[Spot], colour: Colour, alpha: f64) {
        self.shapes.push(Shape::Polygon { corners: corners.to_vec(), colour, alpha });
    }

    pub(crate) fn disc(&mut self, centre: Spot, radius: f64, colour: Colour) {
        self.shapes.push(Shape::Disc { centre, radius, colour });
    }

    pub(crate) fn line(&mut self, from: Spot, to: Spot, pen: Pen) {
        self.polyline(&[from, to], pen);
    }

    /// Straight lines from spot to spot with rounded corners.
    pub(crate) fn polyline(&mut self, spots: &[Spot], pen: Pen) {
        self.shapes.push(Shape::Line { spots: spots.to_vec(), pen });
    }

    pub(crate) fn text(&mut self, text: &str, at: Spot, anchor: Anchor, font: Font, colour: Colour) {
        self.shapes.push(Shape::Text { text: text.to_owned(), at, anchor, font, colour });
    }

    /// The picture as a PNG file.
    pub(crate) fn png(&self) -> Vec<u8> {
        let mut bitmap = Bitmap::new(self.size);
        self.shapes.iter().for_each(|shape| bitmap.draw(shape));
        bitmap.png()
    }

    /// The picture as an SVG file, `title` being what it is called for those who cannot see it.
    pub(crate) fn svg(&self, title: &str) -> String {
        svg::document(self.size, self.page(), title, &self.shapes)
    }
}
