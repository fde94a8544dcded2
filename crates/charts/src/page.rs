//! Title, subtitle and legend above a figure's content.

use crate::canvas::Canvas;
use crate::lettering::Font;
use crate::marker::{Look, draw_whisker};
use crate::palette::{GREY, INK};
use crate::shapes::{Anchor, Area, spot};

/// Text but titles.
pub(crate) const TEXT: Font = Font::regular(28.0);
pub(crate) const STRONG_TEXT: Font = Font::bold(28.0);
const TITLE: Font = Font::bold(38.0);
const MARGIN: f64 = 36.0;
/// From a sample to its name.
const SAMPLE_GAP: f64 = 14.0;
/// From one entry to the next.
const ENTRY_GAP: f64 = 44.0;
const LEGEND_LINE: f64 = 42.0;

/// A line of the legend.
#[derive(Debug)]
pub(crate) struct LegendEntry {
    pub(crate) name: String,
    pub(crate) sample: Sample,
}

/// What stands before a name in the legend.
#[derive(Debug)]
pub(crate) enum Sample {
    Line(Look),
    Marker(Look),
    LineAndMarker(Look),
    Block(Look),
    Interval(IntervalShape),
}

/// How a figure shows intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntervalShape {
    Whisker,
    Band,
    Both,
}

impl Sample {
    fn width(&self) -> f64 {
        match self {
            Self::Line(_) | Self::LineAndMarker(_) => 60.0,
            Self::Block(_) | Self::Interval(IntervalShape::Band | IntervalShape::Both) => 44.0,
            Self::Marker(_) | Self::Interval(IntervalShape::Whisker) => 24.0,
        }
    }
}

impl LegendEntry {
    pub(crate) fn interval(shape: IntervalShape) -> Self {
        Self { name: "95 % interval".to_owned(), sample: Sample::Interval(shape) }
    }
}

/// Draws what stands above the content and gives the area that is left.
pub(crate) fn draw_heading(canvas: &mut Canvas, title: &str, subtitle: &str, legend: &[LegendEntry]) -> Area {
    let page = canvas.page();
    let mut content =
        Area { left: MARGIN, top: MARGIN * 0.7, right: page.right - MARGIN, bottom: page.bottom - MARGIN * 0.7 };
    for (text, font, most, colour) in [(title, TITLE, 2, INK), (subtitle, TEXT, 3, GREY)] {
        for line in font.wrapped(text, content.width(), most) {
            let y = content.top + font.line_height() / 2.0;
            canvas.text(&line, spot(content.left, y), Anchor::Left, font, colour);
            content.top += font.line_height();
        }
    }
    content.top += 14.0;
    draw_legend(canvas, &mut content, legend);
    content
}

fn draw_legend(canvas: &mut Canvas, content: &mut Area, legend: &[LegendEntry]) {
    let mut x = content.left;
    for entry in legend {
        let before = entry.sample.width() + SAMPLE_GAP;
        let name = TEXT.elided(&entry.name, content.width() / 2.0 - before - ENTRY_GAP);
        let width = before + TEXT.width(&name);
        if x > content.left && x + width > content.right {
            x = content.left;
            content.top += LEGEND_LINE;
        }
        let y = content.top + LEGEND_LINE / 2.0;
        draw_sample(canvas, &entry.sample, x, y);
        canvas.text(&name, spot(x + before, y), Anchor::Left, TEXT, INK);
        x += width + ENTRY_GAP;
    }
    if !legend.is_empty() {
        content.top += LEGEND_LINE + 14.0;
    }
}

fn draw_sample(canvas: &mut Canvas, sample: &Sample, left: f64, y: f64) {
    let (right, middle) = (left + sample.width(), left + sample.width() / 2.0);
    if let Sample::Line(look) | Sample::LineAndMarker(look) = sample {
        canvas.line(spot(left, y), spot(right, y), look.pen());
    }
    match sample {
        Sample::Line(_) => {}
        Sample::Marker(look) | Sample::LineAndMarker(look) => look.draw_marker(canvas, spot(middle, y), 9.0),
        Sample::Block(look) => {
            canvas.rectangle(Area { left, top: y - 14.0, right, bottom: y + 14.0 }, look.colour);
        }
        Sample::Interval(shape) => {
            if *shape != IntervalShape::Whisker {
                let corners = [(left, y - 12.0), (right, y - 12.0), (right, y + 12.0), (left, y + 12.0)];
                canvas.polygon(&corners.map(|(x, y)| spot(x, y)), GREY, 0.3);
            }
            if *shape != IntervalShape::Band {
                draw_whisker(canvas, middle, (y - 15.0, y + 15.0), INK, 8.0);
            }
        }
    }
}
