//! Values of named categories as bars, in one or more groups.

use serde::Serialize;

use crate::axis::{Axis, Padding};
use crate::canvas::Canvas;
use crate::category_labels::CategoryLabels;
use crate::error::{Error, Result};
use crate::estimate::Estimate;
use crate::figure::Figure;
use crate::mark::Mark;
use crate::marker::{Look, draw_whisker};
use crate::page::{IntervalShape, LegendEntry, Sample, TEXT, draw_heading};
use crate::palette::{INK, SERIES};
use crate::plot_frame::{
    HorizontalMarks, check_room, draw_lower_caption, draw_lower_line, draw_value_axis, height_of, value_axis_width,
};
use crate::shapes::Area;
use crate::size::Size;

/// Share of a category's width that its bars take.
const FILLED: f64 = 0.8;

/// Bars that start at zero, with their intervals.
///
/// ```
/// use charts::{Interval, Axis, BarChart, BarGroup, Estimate, Figure, Mark};
///
/// let chart = BarChart {
///     title: "Exact match with one block at 2 bits".into(),
///     subtitle: "n = 500 questions".into(),
///     category_label: "block".into(),
///     categories: vec!["0".into(), "1".into()],
///     value: Axis::new("exact match", "%"),
///     groups: vec![BarGroup::new("", [
///         Estimate::new(71.2, Interval { low: 67.1, high: 75.0 }),
///         Estimate::new(79.8, Interval { low: 76.1, high: 83.1 }),
///     ])],
///     horizontal_marks: vec![Mark::new(84.0, "all blocks at 32 bits")],
///     ..BarChart::default()
/// };
/// assert!(chart.png()?.starts_with(b"\x89PNG"));
/// # Ok::<(), charts::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct BarChart {
    /// What is shown.
    pub title: String,
    /// Number of questions, model, other conditions.
    pub subtitle: String,
    /// Size of the picture.
    pub size: Size,
    /// What the categories are.
    pub category_label: String,
    /// The categories from left to right, at least one.
    pub categories: Vec<String>,
    /// The axis at the left, linear; it holds zero.
    pub value: Axis,
    /// Bars of each group, 1 to 7 groups.
    pub groups: Vec<BarGroup>,
    /// Level reference lines.
    pub horizontal_marks: Vec<Mark>,
}

/// Bars of one colour.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BarGroup {
    /// Name in the legend; not listed where empty.
    pub name: String,
    /// One value per category.
    pub bars: Vec<Estimate>,
}

impl BarGroup {
    /// Bars in the order of the categories.
    pub fn new(name: impl Into<String>, bars: impl Into<Vec<Estimate>>) -> Self {
        Self { name: name.into(), bars: bars.into() }
    }
}

impl Figure for BarChart {
    fn png(&self) -> Result<Vec<u8>> {
        Ok(self.drawn()?.png())
    }

    fn svg(&self) -> Result<String> {
        Ok(self.drawn()?.svg(&self.title))
    }
}

impl BarChart {
    fn drawn(&self) -> Result<Canvas> {
        self.check()?;
        let bars = self.groups.iter().flat_map(|g| &g.bars).flat_map(Estimate::extent);
        let values = bars.chain(self.horizontal_marks.iter().map(|m| m.at));
        let mut value = self.value.clone();
        value.includes.push(0.0);
        let axis = value.resolve("value", values, (Padding::AroundData, 7))?;

        let mut canvas = Canvas::new(self.size);
        let mut area = draw_heading(&mut canvas, &self.title, &self.subtitle, &self.legend());
        let marks = HorizontalMarks::new(&self.horizontal_marks);
        area.left += value_axis_width(&axis);
        area.right -= marks.width().max(20.0);
        let slot = area.width() / self.categories.len() as f64;
        let labels = CategoryLabels::new(&self.categories, slot);
        area.bottom -= labels.height() + TEXT.line_height() + 6.0;
        check_room(area)?;
        marks.check(area)?;

        draw_value_axis(&mut canvas, area, &axis, &value.caption());
        let bar = slot * FILLED / self.groups.len() as f64;
        let height = |value: f64| height_of(area, &axis, value);
        let left_of = |category: usize, group: usize| {
            area.left + slot * (category as f64 + (1.0 - FILLED) / 2.0) + bar * group as f64
        };
        let each = || {
            self.groups
                .iter()
                .enumerate()
                .flat_map(|(g, group)| group.bars.iter().enumerate().map(move |(c, bar)| (g, c, bar)))
        };
        for (group, category, estimate) in each() {
            let (left, top) = (left_of(category, group), height(estimate.value));
            let (top, bottom) = (top.min(height(0.0)), top.max(height(0.0)));
            let gap = (bar * 0.04).min(2.0);
            let rectangle = Area { left: left + gap, top, right: left + bar - gap, bottom };
            canvas.rectangle(rectangle, Look::of_series(group).colour);
        }
        marks.draw_lines(&mut canvas, area, &axis);
        for (group, category, estimate) in each() {
            if let Some(interval) = estimate.interval {
                let x = left_of(category, group) + bar / 2.0;
                draw_whisker(&mut canvas, x, (height(interval.high), height(interval.low)), INK, (bar * 0.2).min(10.0));
            }
        }
        let zero = Area { bottom: height(0.0), ..area };
        draw_lower_line(&mut canvas, zero);
        labels.draw(&mut canvas, area.left, area.bottom, slot);
        let caption = area.bottom + labels.height() + TEXT.line_height() / 2.0 + 6.0;
        draw_lower_caption(&mut canvas, area, &self.category_label, caption);
        marks.draw_labels(&mut canvas, area, &axis);
        Ok(canvas)
    }

    fn check(&self) -> Result<()> {
        self.size.check()?;
        self.value.require_linear("value.scale")?;
        if self.categories.is_empty() {
            return Err(Error::field("categories", "empty", "at least one category"));
        }
        if !(1..=SERIES.len()).contains(&self.groups.len()) {
            let expected = format!("1 to {}", SERIES.len());
            return Err(Error::field("groups", format!("{} groups", self.groups.len()), expected));
        }
        for group in &self.groups {
            if group.bars.len() != self.categories.len() {
                let got = format!("{} bars (group `{}`)", group.bars.len(), group.name);
                return Err(Error::field("bars", got, format!("one for each of {} categories", self.categories.len())));
            }
            for (bar, category) in group.bars.iter().zip(&self.categories) {
                bar.check("bars", || format!("group `{}`, category `{category}`", group.name))?;
            }
        }
        self.horizontal_marks.iter().try_for_each(|m| m.check("horizontal_marks"))
    }

    fn legend(&self) -> Vec<LegendEntry> {
        let named = self.groups.iter().enumerate().filter(|(_, group)| !group.name.is_empty());
        let mut entries: Vec<_> = named
            .map(|(index, group)| LegendEntry {
                name: group.name.clone(),
                sample: Sample::Block(Look::of_series(index)),
            })
            .collect();
        if self.groups.iter().flat_map(|g| &g.bars).any(|bar| bar.interval.is_some()) {
            entries.push(LegendEntry::interval(IntervalShape::Whisker));
        }
        entries
    }
}
