//! Markers and pens of series, and whiskers of intervals.

use crate::canvas::Canvas;
use crate::palette::{Colour, PAPER, SERIES};
use crate::shapes::{Dash, Pen, Spot, spot};

/// How a series is told from the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) colour: Colour,
    pub(crate) dash: Dash,
    shape: Shape,
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Disc,
    Square,
    Triangle,
    Diamond,
    Inverted,
}

const SHAPES: [Shape; 5] = [Shape::Disc, Shape::Square, Shape::Triangle, Shape::Diamond, Shape::Inverted];

/// Number of series that differ in colour or dash.
pub(crate) const MOST_SERIES: usize = 2 * SERIES.len();

impl Look {
    pub(crate) fn of_series(index: usize) -> Self {
        Self {
            colour: SERIES[index % SERIES.len()],
            dash: if index < SERIES.len() { Dash::Solid } else { Dash::Dashed },
            shape: SHAPES[index % SHAPES.len()],
        }
    }

    pub(crate) fn pen(self) -> Pen {
        Pen { width: 4.0, colour: self.colour, dash: self.dash }
    }

    /// Draws a marker with a pale edge that sets it off from lines.
    pub(crate) fn draw_marker(self, canvas: &mut Canvas, at: Spot, radius: f64) {
        for (radius, colour) in [(radius * 1.25, PAPER), (radius, self.colour)] {
            let corners: &[(f64, f64)] = match self.shape {
                Shape::Disc => {
                    canvas.disc(at, radius, colour);
                    continue;
                }
                Shape::Square => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
                Shape::Triangle => &[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
                Shape::Diamond => &[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
                Shape::Inverted => &[(0.0, 1.2), (1.1, -0.8), (-1.1, -0.8)],
            };
            let corners: Vec<_> = corners.iter().map(|(x, y)| spot(at.x + x * radius, at.y + y * radius)).collect();
            canvas.polygon(&corners, colour, 1.0);
        }
    }
}

/// Draws an upright interval with caps and a pale edge that sets it off from bars and lines.
pub(crate) fn draw_whisker(canvas: &mut Canvas, x: f64, (from, to): (f64, f64), colour: Colour, cap: f64) {
    let mut draw = |extra: f64, colour| {
        let pen = Pen::solid(3.0 + 2.0 * extra, colour);
        canvas.line(spot(x, from), spot(x, to), pen);
        for y in [from, to] {
            canvas.line(spot(x - cap - extra, y), spot(x + cap + extra, y), pen);
        }
    };
    draw(1.5, PAPER);
    draw(0.0, colour);
}
