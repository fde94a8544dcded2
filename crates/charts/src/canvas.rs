//! A page on which shapes and text are drawn, in their order, and the forms of the picture that it makes.

use crate::bitmap::Bitmap;
use crate::lettering::Font;
use crate::palette::Colour;
use crate::shapes::{Anchor, Area, Pen, Shape, Spot};
use crate::size::Size;
use crate::svg;

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
