//! The frame of a plot: axes with grid, ticks and captions, and reference lines.

use crate::axis::ResolvedAxis;
use crate::canvas::Canvas;
use crate::error::{Error, Result};
use crate::mark::Mark;
use crate::page::TEXT;
use crate::palette::{GREY, GRID, INK};
use crate::shapes::{Anchor, Area, Pen, spot};

/// From the plot to the labels of its ticks.
const TICK_GAP: f64 = 14.0;
const MARK_WIDTH: f64 = 260.0;
const AXIS_PEN: Pen = Pen::solid(2.0, GREY);
const GRID_PEN: Pen = Pen::solid(1.5, GRID);
const MARK_PEN: Pen = Pen::dashed(3.0, GREY);
/// From an upright line to its label.
const FLAG_GAP: f64 = 10.0;
/// From the plot to the lowest label above it: markers reach over the plot's edge.
const FLAG_BASE: f64 = 14.0;
/// Smallest side of a plot that can be read.
const LEAST_SIDE: f64 = 150.0;

/// Refuses a plot for which the text leaves no room.
pub(crate) fn check_room(area: Area) -> Result<()> {
    if area.width() < LEAST_SIDE || area.height() < LEAST_SIDE {
        return Err(Error::field("size", "too small for the text of this figure", "a larger size or less text"));
    }
    Ok(())
}

/// Height of the place of a value.
pub(crate) fn height_of(area: Area, axis: &ResolvedAxis, value: f64) -> f64 {
    area.bottom - axis.share(value) * area.height()
}

/// Width that labels and caption of a value axis take.
pub(crate) fn value_axis_width(axis: &ResolvedAxis) -> f64 {
    let widest = axis.ticks.iter().map(|(_, label)| TEXT.width(label)).fold(0.0, f64::max);
    TEXT.line_height() + TICK_GAP + widest + TICK_GAP
}

/// Draws the value axis at the left: grid, labels, caption.
pub(crate) fn draw_value_axis(canvas: &mut Canvas, area: Area, axis: &ResolvedAxis, caption: &str) {
    let mut free = f64::INFINITY;
    for (value, label) in &axis.ticks {
        let y = height_of(area, axis, *value);
        canvas.line(spot(area.left, y), spot(area.right, y), GRID_PEN);
        // Ticks may be given in any order and as close as their giver liked.
        if (free - y).abs() >= TEXT.size {
            canvas.text(label, spot(area.left - TICK_GAP, y), Anchor::Right, TEXT, INK);
            free = y;
        }
    }
    canvas.line(spot(area.left, area.top), spot(area.left, area.bottom), AXIS_PEN);
    let x = area.left - value_axis_width(axis) + TEXT.line_height() / 2.0;
    let caption = TEXT.elided(caption, area.height());
    canvas.text(&caption, spot(x, area.centre().y), Anchor::Upwards, TEXT, INK);
}

/// Height that labels and caption below a plot take.
pub(crate) fn lower_axis_height() -> f64 {
    TICK_GAP + 2.0 * TEXT.line_height() + 6.0
}

/// Draws the axis below: grid, labels, caption.
pub(crate) fn draw_lower_axis(canvas: &mut Canvas, area: Area, axis: &ResolvedAxis, caption: &str) {
    let y = area.bottom + TICK_GAP + TEXT.line_height() / 2.0;
    let mut taken: Vec<(f64, f64)> = Vec::new();
    for (value, label) in &axis.ticks {
        let x = area.left + axis.share(*value) * area.width();
        canvas.line(spot(x, area.top), spot(x, area.bottom), GRID_PEN);
        let half = TEXT.width(label) / 2.0 + 5.0;
        if taken.iter().all(|(left, right)| x + half <= *left || x - half >= *right) {
            canvas.text(label, spot(x, y), Anchor::Centre, TEXT, INK);
            taken.push((x - half, x + half));
        }
    }
    draw_lower_line(canvas, area);
    draw_lower_caption(canvas, area, caption, y + TEXT.line_height() + 6.0);
}

pub(crate) fn draw_lower_line(canvas: &mut Canvas, area: Area) {
    canvas.line(spot(area.left, area.bottom), spot(area.right, area.bottom), AXIS_PEN);
}

pub(crate) fn draw_lower_caption(canvas: &mut Canvas, area: Area, caption: &str, y: f64) {
    let caption = TEXT.elided(caption, area.width());
    canvas.text(&caption, spot(area.centre().x, y), Anchor::Centre, TEXT, INK);
}

/// Reference lines across the plot, labelled to its right.
#[derive(Debug)]
pub(crate) struct HorizontalMarks {
    marks: Vec<(f64, Vec<String>)>,
}

impl HorizontalMarks {
    pub(crate) fn new(marks: &[Mark]) -> Self {
        let mut marks: Vec<_> = marks.iter().map(|m| (m.at, TEXT.wrapped(&m.label, MARK_WIDTH, 4))).collect();
        marks.sort_by(|a, b| b.0.total_cmp(&a.0));
        Self { marks }
    }

    /// Width that the labels take.
    pub(crate) fn width(&self) -> f64 {
        let lines = self.marks.iter().flat_map(|(_, lines)| lines);
        let widest = lines.map(|line| TEXT.width(line)).fold(0.0, f64::max);
        if widest > 0.0 { widest + TICK_GAP } else { 0.0 }
    }

    /// Refuses labels that fill more than the height beside a plot.
    pub(crate) fn check(&self, area: Area) -> Result<()> {
        let lines: usize = self.marks.iter().map(|(_, lines)| lines.len()).sum();
        if lines as f64 * TEXT.line_height() > area.height() + lower_axis_height() {
            let got = format!("{} marks of {lines} lines", self.marks.len());
            return Err(Error::field("horizontal_marks", got, "labels that fit beside the plot"));
        }
        Ok(())
    }

    pub(crate) fn draw_lines(&self, canvas: &mut Canvas, area: Area, axis: &ResolvedAxis) {
        for (at, _) in &self.marks {
            let y = height_of(area, axis, *at);
            canvas.line(spot(area.left, y), spot(area.right, y), MARK_PEN);
        }
    }

    /// Labels at the height of their lines, moved apart where they would overlap.
    pub(crate) fn draw_labels(&self, canvas: &mut Canvas, area: Area, axis: &ResolvedAxis) {
        let heights: Vec<f64> = self.marks.iter().map(|(_, lines)| lines.len() as f64 * TEXT.line_height()).collect();
        let mut below = area.top - TEXT.line_height();
        let mut tops = Vec::new();
        for ((at, _), height) in self.marks.iter().zip(&heights) {
            let top = (height_of(area, axis, *at) - height / 2.0).max(below);
            below = top + height;
            tops.push(top);
        }
        let mut above = area.bottom + lower_axis_height();
        for (top, height) in tops.iter_mut().zip(&heights).rev() {
            *top = top.min(above - height);
            above = *top;
        }
        for (top, (_, lines)) in tops.iter().zip(&self.marks) {
            for (index, line) in lines.iter().enumerate() {
                let y = top + (index as f64 + 0.5) * TEXT.line_height();
                canvas.text(line, spot(area.right + TICK_GAP, y), Anchor::Left, TEXT, GREY);
            }
        }
    }
}

/// Upright reference lines, labelled above the plot.
#[derive(Debug)]
pub(crate) struct VerticalMarks {
    marks: Vec<UprightMark>,
}

#[derive(Debug)]
struct UprightMark {
    x: f64,
    label: String,
    /// Where the label starts and ends.
    span: (f64, f64),
    /// Row of the label, counted from the plot upwards.
    row: usize,
}

impl UprightMark {
    /// A mark whose label stands right of its line where there is room, else left of it.
    fn new(mark: &Mark, area: Area, axis: &ResolvedAxis) -> Self {
        let label = TEXT.elided(&mark.label, area.width() / 2.0 - FLAG_GAP);
        let width = TEXT.width(&label) + FLAG_GAP;
        let x = area.left + axis.share(mark.at) * area.width();
        let span = if x + width <= area.right { (x, x + width) } else { (x - width, x) };
        Self { x, label, span, row: 0 }
    }

    fn is_right_of_line(&self) -> bool {
        self.span.0 >= self.x
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.span.0 < other.span.1 + FLAG_GAP && other.span.0 < self.span.1 + FLAG_GAP
    }
}

impl VerticalMarks {
    /// Finds a row for each label; of the area only its sides are looked at.
    pub(crate) fn new(marks: &[Mark], area: Area, axis: &ResolvedAxis) -> Self {
        let marks = marks.iter().map(|mark| UprightMark::new(mark, area, axis));
        let (mut right, mut left): (Vec<_>, Vec<_>) = marks.partition(UprightMark::is_right_of_line);
        // A label lies above the lines that it reaches over: those of its own side are placed first.
        right.sort_by(|a, b| b.x.total_cmp(&a.x));
        left.sort_by(|a, b| a.x.total_cmp(&b.x));
        let mut placed: Vec<UprightMark> = Vec::new();
        for mut mark in right.into_iter().chain(left) {
            let below = placed.iter().filter(|other| other.overlaps(&mark)).map(|other| other.row + 1);
            mark.row = below.max().unwrap_or(0);
            placed.push(mark);
        }
        Self { marks: placed }
    }

    /// Height that the labels take.
    pub(crate) fn height(&self) -> f64 {
        let rows = self.marks.iter().map(|m| m.row + 1).max().unwrap_or(0);
        if rows > 0 { rows as f64 * TEXT.line_height() + FLAG_BASE } else { 0.0 }
    }

    pub(crate) fn draw(&self, canvas: &mut Canvas, area: Area) {
        for mark in &self.marks {
            let bottom = area.top - FLAG_BASE - mark.row as f64 * TEXT.line_height();
            let top = bottom - TEXT.line_height();
            canvas.line(spot(mark.x, top), spot(mark.x, area.bottom), MARK_PEN);
            let y = f64::midpoint(top, bottom);
            let (at, anchor) = if mark.is_right_of_line() {
                (mark.x + FLAG_GAP, Anchor::Left)
            } else {
                (mark.x - FLAG_GAP, Anchor::Right)
            };
            canvas.text(&mark.label, spot(at, y), anchor, TEXT, GREY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::axis::{Axis, Padding};

    #[test]
    fn labels_of_upright_marks_do_not_overlap_and_lines_from_the_right_do_not_cross_them() {
        let area = Area { left: 100.0, top: 200.0, right: 1500.0, bottom: 900.0 };
        let values = [0.0, 0.1, 3.0, 3.0, 5.0, 9.7, 9.9, 10.0];
        let axis = Axis::new("", "").resolve("x", values.into_iter(), (Padding::Exact, 9)).unwrap();
        let marks: Vec<Mark> = values.iter().map(|&v| Mark::new(v, "a label of some length")).collect();
        let placed = VerticalMarks::new(&marks, area, &axis).marks;
        for (index, mark) in placed.iter().enumerate() {
            assert!(mark.span.0 >= area.left && mark.span.1 <= area.right);
            for other in &placed[..index] {
                let is_apart = mark.span.0 >= other.span.1 || other.span.0 >= mark.span.1;
                assert!(mark.row > other.row || is_apart);
                // The line of the other ends at its own row.
                let crosses = other.x > mark.span.0 && other.x < mark.span.1;
                assert!(mark.row > other.row || !crosses);
            }
        }
    }
}
