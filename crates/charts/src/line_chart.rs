//! Series over a numeric axis: sweeps, search paths, Pareto fronts.

use serde::Serialize;

use crate::axis::{Axis, Padding, ResolvedAxis};
use crate::canvas::Canvas;
use crate::error::{Error, Result};
use crate::estimate::{Estimate, Interval, check_number};
use crate::figure::Figure;
use crate::mark::Mark;
use crate::marker::{Look, MOST_SERIES, draw_whisker};
use crate::page::{IntervalShape, LegendEntry, Sample, draw_heading};
use crate::plot_frame::{
    HorizontalMarks, VerticalMarks, check_room, draw_lower_axis, draw_value_axis, height_of, lower_axis_height,
    value_axis_width,
};
use crate::shapes::{Area, Spot, spot};
use crate::size::Size;

/// Longest series whose intervals are whiskers; those of longer lines are a band.
const MOST_WHISKERS: usize = 12;
/// Whiskers of several series stand so far beside each other, and all within a marker's width.
const WHISKER_SHIFT: f64 = 12.0;
const WHISKER_SPREAD: f64 = 18.0;

/// Series over a numeric axis.
///
/// ```
/// use charts::{Interval, Axis, Estimate, Figure, LineChart, Mark, Point, Series};
///
/// let point = |bits, value, low, high| Point { x: bits, y: Estimate::new(value, Interval { low, high }) };
/// let chart = LineChart {
///     title: "Exact match of uniform bit-widths".into(),
///     subtitle: "n = 500 questions".into(),
///     x: Axis::new("weight width", "bits").log2().with_ticks([2.0, 4.0, 8.0]),
///     y: Axis::new("exact match", "%").including([0.0, 100.0]),
///     series: vec![Series::new("per channel", [
///         point(2.0, 23.0, 19.5, 26.9),
///         point(4.0, 83.0, 79.5, 86.0),
///         point(8.0, 84.0, 80.5, 86.9),
///     ])],
///     horizontal_marks: vec![Mark::new(75.6, "threshold")],
///     ..LineChart::default()
/// };
/// assert!(chart.png()?.starts_with(b"\x89PNG"));
/// # Ok::<(), charts::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct LineChart {
    /// What is shown.
    pub title: String,
    /// Number of questions, model, other conditions.
    pub subtitle: String,
    /// Size of the picture.
    pub size: Size,
    /// The axis below.
    pub x: Axis,
    /// The axis at the left.
    pub y: Axis,
    /// What is drawn, 1 to [`MOST_SERIES`](Self::MOST_SERIES) series.
    pub series: Vec<Series>,
    /// Upright reference lines, at values of `x`.
    pub vertical_marks: Vec<Mark>,
    /// Level reference lines, at values of `y`.
    pub horizontal_marks: Vec<Mark>,
}

/// Points that belong together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// Name in the legend; not listed where empty.
    pub name: String,
    /// The points, at least one, joined in this order.
    pub points: Vec<Point>,
    /// How they are drawn.
    pub style: LineStyle,
}

/// A point of a series.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Value on the axis below.
    pub x: f64,
    /// Value on the axis at the left.
    pub y: Estimate,
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub enum LineStyle {
    /// Joined points.
    Line,
    /// Points alone.
    Markers,
    /// Points and the line that joins them.
    #[default]
    Both,
    /// A line that keeps its height until the next point, as a front of best values does.
    Step,
}

impl Series {
    /// Points joined by a line.
    pub fn new(name: impl Into<String>, points: impl Into<Vec<Point>>) -> Self {
        Self { name: name.into(), points: points.into(), style: LineStyle::default() }
    }

    /// The same, drawn otherwise.
    pub fn with_style(self, style: LineStyle) -> Self {
        Self { style, ..self }
    }

    fn is_line(&self) -> bool {
        self.style != LineStyle::Markers
    }

    fn has_markers(&self) -> bool {
        matches!(self.style, LineStyle::Markers | LineStyle::Both) || self.points.len() == 1
    }

    fn has_intervals(&self) -> bool {
        self.points.iter().any(|p| p.y.interval.is_some())
    }

    fn has_band(&self) -> bool {
        self.has_intervals() && self.is_line() && self.points.len() > MOST_WHISKERS
    }

    fn has_whiskers(&self) -> bool {
        self.has_intervals() && !self.has_band()
    }

    fn sample(&self, look: Look) -> Sample {
        match (self.is_line(), self.has_markers()) {
            (true, true) => Sample::LineAndMarker(look),
            (true, false) => Sample::Line(look),
            (false, _) => Sample::Marker(look),
        }
    }
}

impl Figure for LineChart {
    fn png(&self) -> Result<Vec<u8>> {
        Ok(self.drawn()?.png())
    }

    fn svg(&self) -> Result<String> {
        Ok(self.drawn()?.svg(&self.title))
    }
}

impl LineChart {
    /// Series of a chart at most: as many as have looks of their own.
    pub const MOST_SERIES: usize = MOST_SERIES;

    fn drawn(&self) -> Result<Canvas> {
        self.check()?;
        let points = || self.series.iter().flat_map(|s| &s.points);
        let marked = |marks: &[Mark]| marks.iter().map(|m| m.at).collect::<Vec<_>>();
        let xs = points().map(|p| p.x).chain(marked(&self.vertical_marks));
        let ys = points().flat_map(|p| p.y.extent()).chain(marked(&self.horizontal_marks));
        let x = self.x.resolve("x", xs, (Padding::AroundData, 9))?;
        let y = self.y.resolve("y", ys, (Padding::AroundData, 7))?;

        let mut canvas = Canvas::new(self.size);
        let mut area = draw_heading(&mut canvas, &self.title, &self.subtitle, &self.legend());
        let horizontal = HorizontalMarks::new(&self.horizontal_marks);
        area.left += value_axis_width(&y);
        area.right -= horizontal.width().max(20.0);
        area.bottom -= lower_axis_height();
        check_room(area)?;
        let vertical = VerticalMarks::new(&self.vertical_marks, area, &x);
        area.top += vertical.height();
        check_room(area)?;
        horizontal.check(area)?;

        draw_value_axis(&mut canvas, area, &y, &self.y.caption());
        draw_lower_axis(&mut canvas, area, &x, &self.x.caption());
        let plot = Plot { area, x, y };
        for (index, series) in self.series.iter().enumerate().filter(|(_, s)| s.has_band()) {
            plot.draw_band(&mut canvas, series, Look::of_series(index));
        }
        horizontal.draw_lines(&mut canvas, area, &plot.y);
        vertical.draw(&mut canvas, area);
        for (index, series) in self.series.iter().enumerate() {
            plot.draw_line(&mut canvas, series, Look::of_series(index));
        }
        let with_whiskers: Vec<usize> =
            (0..self.series.len()).filter(|&index| self.series[index].has_whiskers()).collect();
        let last = with_whiskers.len().saturating_sub(1) as f64;
        let step = WHISKER_SHIFT.min(WHISKER_SPREAD / last.max(1.0));
        for (position, &index) in with_whiskers.iter().enumerate() {
            let shift = (position as f64 - last / 2.0) * step;
            plot.draw_whiskers(&mut canvas, &self.series[index], Look::of_series(index), shift);
        }
        for (index, series) in self.series.iter().enumerate() {
            plot.draw_markers(&mut canvas, series, Look::of_series(index));
        }
        horizontal.draw_labels(&mut canvas, area, &plot.y);
        Ok(canvas)
    }

    fn check(&self) -> Result<()> {
        self.size.check()?;
        if !(1..=MOST_SERIES).contains(&self.series.len()) {
            return Err(Error::field("series", format!("{} series", self.series.len()), format!("1 to {MOST_SERIES}")));
        }
        for series in &self.series {
            if series.points.is_empty() {
                return Err(Error::field("points", format!("empty (series `{}`)", series.name), "at least one point"));
            }
            for (index, point) in series.points.iter().enumerate() {
                let place = || format!("series `{}`, point {}", series.name, index + 1);
                check_number("points.x", point.x, place)?;
                point.y.check("points.y", place)?;
            }
        }
        self.vertical_marks.iter().try_for_each(|m| m.check("vertical_marks"))?;
        self.horizontal_marks.iter().try_for_each(|m| m.check("horizontal_marks"))
    }

    fn legend(&self) -> Vec<LegendEntry> {
        let named = self.series.iter().enumerate().filter(|(_, series)| !series.name.is_empty());
        let mut entries: Vec<_> = named
            .map(|(index, series)| LegendEntry {
                name: series.name.clone(),
                sample: series.sample(Look::of_series(index)),
            })
            .collect();
        let shape = match (self.series.iter().any(Series::has_whiskers), self.series.iter().any(Series::has_band)) {
            (true, true) => Some(IntervalShape::Both),
            (true, false) => Some(IntervalShape::Whisker),
            (false, true) => Some(IntervalShape::Band),
            (false, false) => None,
        };
        entries.extend(shape.map(LegendEntry::interval));
        entries
    }
}

/// Where values stand on the page.
struct Plot {
    area: Area,
    x: ResolvedAxis,
    y: ResolvedAxis,
}

impl Plot {
    fn spot(&self, x: f64, y: f64) -> Spot {
        spot(self.area.left + self.x.share(x) * self.area.width(), height_of(self.area, &self.y, y))
    }

    /// The way of a line through points; steps go level to the next point, then up or down.
    fn path(&self, points: &[(f64, f64)], style: LineStyle) -> Vec<Spot> {
        let mut path: Vec<Spot> = Vec::with_capacity(points.len() * 2);
        for &(x, y) in points {
            let next = self.spot(x, y);
            if let (LineStyle::Step, Some(last)) = (style, path.last()) {
                path.push(spot(next.x, last.y));
            }
            path.push(next);
        }
        path
    }

    fn draw_band(&self, canvas: &mut Canvas, series: &Series, look: Look) {
        // Points without an interval interrupt the band.
        for run in series.points.split(|p| p.y.interval.is_none()) {
            let ends = |end: fn(Interval) -> f64| -> Vec<(f64, f64)> {
                run.iter().filter_map(|p| Some((p.x, end(p.y.interval?)))).collect()
            };
            let mut corners = self.path(&ends(|i| i.high), series.style);
            corners.extend(self.path(&ends(|i| i.low), series.style).into_iter().rev());
            if run.len() > 1 {
                canvas.polygon(&corners, look.colour, 0.22);
            }
        }
    }

    fn draw_line(&self, canvas: &mut Canvas, series: &Series, look: Look) {
        if series.is_line() {
            let points: Vec<_> = series.points.iter().map(|p| (p.x, p.y.value)).collect();
            canvas.polyline(&self.path(&points, series.style), look.pen());
        }
    }

    fn draw_whiskers(&self, canvas: &mut Canvas, series: &Series, look: Look, shift: f64) {
        for point in &series.points {
            if let Some(interval) = point.y.interval {
                let (low, high) = (self.spot(point.x, interval.low), self.spot(point.x, interval.high));
                draw_whisker(canvas, low.x + shift, (high.y, low.y), look.colour, 8.0);
            }
        }
    }

    fn draw_markers(&self, canvas: &mut Canvas, series: &Series, look: Look) {
        if series.has_markers() {
            let radius = match series.points.len() {
                0..=30 => 9.0,
                31..=200 => 6.0,
                _ => 3.0,
            };
            for point in &series.points {
                look.draw_marker(canvas, self.spot(point.x, point.y.value), radius);
            }
        }
    }
}
