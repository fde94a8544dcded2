//! Shapes and text as pixels.
//!
//! Shapes are drawn at twice the size of the picture and averaged, which smooths their edges.

use plotters_backend::{DrawingBackend as _, DrawingErrorKind};
use plotters_bitmap::BitMapBackend;

use crate::lettering::Font;
use crate::palette::{Colour, PAPER};
use crate::shapes::{Anchor, Area, DASH, Dash, Pen, Shape, Spot, spot};
use crate::size::Size;

/// Bitmap pixels per picture pixel, each way.
const OVERSAMPLING: usize = 2;

#[derive(Debug)]
pub(crate) struct Bitmap {
    size: Size,
    /// Bitmap pixels per unit of the page.
    scale: f64,
    pixels: Vec<u8>,
}

impl Bitmap {
    pub(crate) fn new(size: Size) -> Self {
        let pixels = size.width as usize * size.height as usize * OVERSAMPLING * OVERSAMPLING;
        let pixels = std::iter::repeat_n(PAPER.0, pixels).flatten().collect();
        Self { size, scale: size.pixels_per_unit() * OVERSAMPLING as f64, pixels }
    }

    pub(crate) fn draw(&mut self, shape: &Shape) {
        match shape {
            Shape::Rectangle { area, colour } => self.rectangle(*area, *colour),
            Shape::Polygon { corners, colour, alpha } => self.polygon(corners, *colour, *alpha),
            Shape::Disc { centre, radius, colour } => self.disc(*centre, *radius, *colour),
            Shape::Line { spots, pen } => self.polyline(spots, *pen),
            Shape::Text { text, at, anchor, font, colour } => self.text(text, *at, *anchor, *font, *colour),
        }
    }

    fn rectangle(&mut self, area: Area, colour: Colour) {
        let (left, top) = self.place(spot(area.left, area.top));
        let (right, bottom) = self.place(spot(area.right, area.bottom));
        let (right, bottom) = (right.max(left + 1), bottom.max(top + 1));
        self.on_bitmap(|b| b.draw_rect((left, top), (right, bottom), &colour.with_alpha(1.0), true));
    }

    fn polygon(&mut self, corners: &[Spot], colour: Colour, alpha: f64) {
        let corners: Vec<_> = corners.iter().map(|&s| self.place(s)).collect();
        self.on_bitmap(|b| b.fill_polygon(corners, &colour.with_alpha(alpha)));
    }

    fn disc(&mut self, centre: Spot, radius: f64, colour: Colour) {
        const CORNERS: usize = 32;
        let corners: Vec<_> = (0..CORNERS)
            .map(|i| {
                let angle = std::f64::consts::TAU * i as f64 / CORNERS as f64;
                spot(centre.x + radius * angle.cos(), centre.y + radius * angle.sin())
            })
            .collect();
        self.polygon(&corners, colour, 1.0);
    }

    /// Straight lines from spot to spot with rounded corners.
    fn polyline(&mut self, spots: &[Spot], pen: Pen) {
        match pen.dash {
            Dash::Solid => self.solid(spots, pen),
            Dash::Dashed => {
                for dash in dashes(spots) {
                    self.solid(&dash, pen);
                }
            }
        }
    }

    fn solid(&mut self, spots: &[Spot], pen: Pen) {
        for pair in spots.windows(2) {
            self.segment(pair[0], pair[1], pen);
        }
        if spots.len() > 2 {
            for &corner in &spots[1..spots.len() - 1] {
                self.disc(corner, pen.width / 2.0, pen.colour);
            }
        }
    }

    fn segment(&mut self, from: Spot, to: Spot, pen: Pen) {
        let half = pen.width / 2.0;
        if (from.x - to.x).abs() < 1e-9 || (from.y - to.y).abs() < 1e-9 {
            let (h, v) = if (from.x - to.x).abs() < 1e-9 { (half, 0.0) } else { (0.0, half) };
            let area = Area {
                left: from.x.min(to.x) - h,
                right: from.x.max(to.x) + h,
                top: from.y.min(to.y) - v,
                bottom: from.y.max(to.y) + v,
            };
            return self.rectangle(area, pen.colour);
        }
        let (dx, dy) = (to.x - from.x, to.y - from.y);
        let length = dx.hypot(dy);
        let (nx, ny) = (-dy / length * half, dx / length * half);
        let corners = [
            spot(from.x + nx, from.y + ny),
            spot(to.x + nx, to.y + ny),
            spot(to.x - nx, to.y - ny),
            spot(from.x - nx, from.y - ny),
        ];
        self.polygon(&corners, pen.colour, 1.0);
    }

    fn text(&mut self, text: &str, at: Spot, anchor: Anchor, font: Font, colour: Colour) {
        let font = font.scaled(self.scale);
        let width = font.width(text);
        let back = match anchor {
            Anchor::Left => 0.0,
            Anchor::Centre | Anchor::Upwards => width / 2.0,
            Anchor::Right | Anchor::UpwardsEnd => width,
        };
        let along = -back.round() as i32;
        let across = font.middle_to_baseline().round() as i32;
        let (x, y) = self.place(at);
        self.on_bitmap(|bitmap| {
            let mut result = Ok(());
            font.rasterise(text, |dx, dy, coverage| {
                let at = match anchor {
                    Anchor::Left | Anchor::Centre | Anchor::Right => (x + along + dx, y + across + dy),
                    Anchor::Upwards | Anchor::UpwardsEnd => (x + across + dy, y - along - dx),
                };
                let drawn = bitmap.draw_pixel(at, colour.with_alpha(f64::from(coverage.min(1.0))));
                if drawn.is_err() {
                    result = drawn;
                }
            });
            result
        });
    }

    /// The picture as a PNG file.
    pub(crate) fn png(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.size.width, self.size.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(&self.averaged()))
            .expect("memory takes every byte, and the data is as long as the size says");
        bytes
    }

    fn averaged(&self) -> Vec<u8> {
        let width = self.size.width as usize;
        let row = width * OVERSAMPLING * 3;
        let mut picture = Vec::with_capacity(width * self.size.height as usize * 3);
        for rows in self.pixels.chunks_exact(row * OVERSAMPLING) {
            for x in 0..width {
                for channel in 0..3 {
                    let first = x * OVERSAMPLING * 3 + channel;
                    let sum = u16::from(rows[first])
                        + u16::from(rows[first + 3])
                        + u16::from(rows[first + row])
                        + u16::from(rows[first + row + 3]);
                    picture.push(((sum + 2) / 4) as u8);
                }
            }
        }
        picture
    }

    fn place(&self, at: Spot) -> (i32, i32) {
        ((at.x * self.scale).round() as i32, (at.y * self.scale).round() as i32)
    }

    fn on_bitmap<E: std::error::Error + Send + Sync>(
        &mut self,
        draw: impl FnOnce(&mut BitMapBackend<'_>) -> Result<(), DrawingErrorKind<E>>,
    ) {
        let size = (self.size.width * OVERSAMPLING as u32, self.size.height * OVERSAMPLING as u32);
        draw(&mut BitMapBackend::with_buffer(&mut self.pixels, size)).expect("drawing in memory cannot fail");
    }
}

/// A line cut into dashes that go on round its corners.
fn dashes(spots: &[Spot]) -> Vec<Vec<Spot>> {
    let mut dashes = Vec::new();
    let mut dash: Vec<Spot> = spots.first().copied().into_iter().collect();
    let mut part = 0;
    let mut left = DASH[part];
    for pair in spots.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let length = (to.x - from.x).hypot(to.y - from.y);
        let mut done = 0.0;
        while length - done > left {
            done += left;
            let cut = spot(from.x + (to.x - from.x) * done / length, from.y + (to.y - from.y) * done / length);
            if part == 0 {
                dash.push(cut);
                dashes.push(std::mem::take(&mut dash));
            } else {
                dash = vec![cut];
            }
            part = 1 - part;
            left = DASH[part];
        }
        left -= length - done;
        if part == 0 {
            dash.push(to);
        }
    }
    if dash.len() > 1 {
        dashes.push(dash);
    }
    dashes
}
