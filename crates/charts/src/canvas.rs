//! Shapes and text on a bitmap.
//!
//! Shapes are drawn at twice the size of the picture and averaged, which smooths their edges.

use plotters_backend::{DrawingBackend as _, DrawingErrorKind};
use plotters_bitmap::BitMapBackend;

use crate::lettering::Font;
use crate::palette::{Colour, PAPER};
use crate::size::Size;

/// Bitmap pixels per picture pixel, each way.
const OVERSAMPLING: usize = 2;

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
const DASH: [f64; 2] = [14.0, 9.0];

#[derive(Debug)]
pub(crate) struct Canvas {
    size: Size,
    /// Bitmap pixels per unit of the page.
    scale: f64,
    bitmap: Vec<u8>,
}

impl Canvas {
    pub(crate) fn new(size: Size) -> Self {
        let pixels = size.width as usize * size.height as usize * OVERSAMPLING * OVERSAMPLING;
        let bitmap = std::iter::repeat_n(PAPER.0, pixels).flatten().collect();
        Self { size, scale: size.pixels_per_unit() * OVERSAMPLING as f64, bitmap }
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
        let (left, top) = self.place(spot(area.left, area.top));
        let (right, bottom) = self.place(spot(area.right, area.bottom));
        let (right, bottom) = (right.max(left + 1), bottom.max(top + 1));
        self.on_bitmap(|b| b.draw_rect((left, top), (right, bottom), &colour.with_alpha(1.0), true));
    }

    pub(crate) fn polygon(&mut self, corners: &[Spot], colour: Colour, alpha: f64) {
        let corners: Vec<_> = corners.iter().map(|&s| self.place(s)).collect();
        self.on_bitmap(|b| b.fill_polygon(corners, &colour.with_alpha(alpha)));
    }

    pub(crate) fn disc(&mut self, centre: Spot, radius: f64, colour: Colour) {
        const CORNERS: usize = 32;
        let corners: Vec<_> = (0..CORNERS)
            .map(|i| {
                let angle = std::f64::consts::TAU * i as f64 / CORNERS as f64;
                spot(centre.x + radius * angle.cos(), centre.y + radius * angle.sin())
            })
            .collect();
        self.polygon(&corners, colour, 1.0);
    }

    pub(crate) fn line(&mut self, from: Spot, to: Spot, pen: Pen) {
        self.polyline(&[from, to], pen);
    }

    /// Straight lines from spot to spot with rounded corners.
    pub(crate) fn polyline(&mut self, spots: &[Spot], pen: Pen) {
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

    pub(crate) fn text(&mut self, text: &str, at: Spot, anchor: Anchor, font: Font, colour: Colour) {
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
        for rows in self.bitmap.chunks_exact(row * OVERSAMPLING) {
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
        draw(&mut BitMapBackend::with_buffer(&mut self.bitmap, size)).expect("drawing in memory cannot fail");
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
