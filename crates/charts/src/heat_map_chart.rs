//! Tables of values as colours, one or several with one scale.
//!
//! ```text
//! sequential:  share(v) = (v − low) / (high − low)
//! diverging:   share(v) = ½ + v / 2m,   m = max |v|
//! ```

use serde::Serialize;

use crate::axis::{Axis, Padding, ResolvedAxis};
use crate::canvas::Canvas;
use crate::category_labels::{CategoryLabels, label_step};
use crate::error::{Error, Result};
use crate::estimate::Estimate;
use crate::figure::Figure;
use crate::lettering::Font;
use crate::numbers::fixed;
use crate::page::{STRONG_TEXT, TEXT, draw_heading};
use crate::palette::{Colour, EMPTY, GREY, INK, diverging, sequential};
use crate::plot_frame::check_room;
use crate::shapes::{Anchor, Area, Pen, spot};
use crate::size::Size;

const PANEL_GAP: f64 = 48.0;
const BAR_GAP: f64 = 44.0;
const BAR_WIDTH: f64 = 36.0;
const ROW_NAME_WIDTH: f64 = 300.0;
/// Free space beside a number in its cell.
const CELL_MARGIN: f64 = 6.0;
/// Steps of the colour bar.
const BAR_STEPS: usize = 256;

/// Tables of values as colours.
///
/// The number stands in its cell where the cells are large enough, its interval below it where there
/// is room for that as well.
///
/// ```
/// use charts::{Axis, ColourScale, Figure, HeatMapChart, Panel};
///
/// let chart = HeatMapChart {
///     title: "Exact match lost with one sub-module at 2 bits".into(),
///     subtitle: "n = 500 questions".into(),
///     row_label: "block".into(),
///     rows: vec!["0".into(), "1".into()],
///     column_label: "sub-module".into(),
///     columns: vec!["attn.c_attn".into(), "mlp.c_fc".into()],
///     panels: vec![Panel::new("static", [[1.2, 0.4], [-0.2, 3.1]])],
///     value: Axis::new("exact match lost", "points"),
///     scale: ColourScale::Diverging,
///     ..HeatMapChart::default()
/// };
/// assert!(chart.png()?.starts_with(b"\x89PNG"));
/// # Ok::<(), charts::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeatMapChart {
    /// What is shown.
    pub title: String,
    /// Number of questions, model, other conditions.
    pub subtitle: String,
    /// Size of the picture.
    pub size: Size,
    /// What the rows are.
    pub row_label: String,
    /// Names of the rows from above, at least one.
    pub rows: Vec<String>,
    /// What the columns are.
    pub column_label: String,
    /// Names of the columns from the left, at least one.
    pub columns: Vec<String>,
    /// The tables, side by side, at least one.
    pub panels: Vec<Panel>,
    /// The axis of the colours, linear.
    pub value: Axis,
    /// Which colours.
    pub scale: ColourScale,
    /// Decimals of the numbers in cells, up to 6.
    pub decimals: usize,
}

/// A table of values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Panel {
    /// What sets it apart from the others.
    pub title: String,
    /// Values by row and column; none where nothing was measured.
    pub cells: Vec<Vec<Option<Estimate>>>,
}

/// Which colours stand for values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub enum ColourScale {
    /// Dark for the lowest value, bright for the highest.
    #[default]
    Sequential,
    /// Blue below zero, white at zero, brown above; both sides reach equally far.
    Diverging,
}

impl Default for HeatMapChart {
    fn default() -> Self {
        Self {
            title: String::new(),
            subtitle: String::new(),
            size: Size::default(),
            row_label: String::new(),
            rows: Vec::new(),
            column_label: String::new(),
            columns: Vec::new(),
            panels: Vec::new(),
            value: Axis::default(),
            scale: ColourScale::default(),
            decimals: 1,
        }
    }
}

impl Panel {
    /// A full table of values without intervals.
    pub fn new<const COLUMNS: usize>(title: impl Into<String>, rows: impl IntoIterator<Item = [f64; COLUMNS]>) -> Self {
        let cells = rows.into_iter().map(|row| row.map(|value| Some(value.into())).to_vec()).collect();
        Self { title: title.into(), cells }
    }

    fn estimates(&self) -> impl Iterator<Item = &Estimate> {
        self.cells.iter().flatten().flatten()
    }
}

impl Figure for HeatMapChart {
    fn png(&self) -> Result<Vec<u8>> {
        Ok(self.drawn()?.png())
    }

    fn svg(&self) -> Result<String> {
        Ok(self.drawn()?.svg(&self.title))
    }
}

impl HeatMapChart {
    fn drawn(&self) -> Result<Canvas> {
        self.check()?;
        let colours = self.colours()?;
        let mut canvas = Canvas::new(self.size);
        let mut area = draw_heading(&mut canvas, &self.title, &self.subtitle, &[]);
        let (panels, columns) = (self.panels.len() as f64, self.columns.len() as f64);

        let names: Vec<String> = self.rows.iter().map(|name| TEXT.elided(name, ROW_NAME_WIDTH)).collect();
        let row_caption = spot(area.left + TEXT.line_height() / 2.0, 0.0);
        area.left += TEXT.line_height() + widest(&names) + 24.0;
        let bar_labels: Vec<String> = colours.axis.ticks.iter().map(|(_, label)| label.clone()).collect();
        area.right -= BAR_GAP + BAR_WIDTH + 12.0 + widest(&bar_labels) + 12.0 + TEXT.line_height();
        let panel_width = (area.width() - PANEL_GAP * (panels - 1.0)) / panels;
        let labels = CategoryLabels::new(&self.columns, panel_width / columns);
        area.bottom -= labels.height() + TEXT.line_height() + 6.0;
        area.top += if self.panels.iter().any(|p| !p.title.is_empty()) { TEXT.line_height() + 4.0 } else { 0.0 };
        check_room(area)?;

        let (cell_width, cell_height) = (panel_width / columns, area.height() / self.rows.len() as f64);
        let text = self.cell_text(cell_width, cell_height);
        for (index, panel) in self.panels.iter().enumerate() {
            let left = area.left + (panel_width + PANEL_GAP) * index as f64;
            let panel_area = Area { left, right: left + panel_width, ..area };
            let centre = panel_area.centre();
            let title = STRONG_TEXT.elided(&panel.title, panel_width);
            let above = area.top - 4.0 - TEXT.line_height() / 2.0;
            canvas.text(&title, spot(centre.x, above), Anchor::Centre, STRONG_TEXT, INK);
            for (row, cells) in panel.cells.iter().enumerate() {
                for (column, estimate) in cells.iter().enumerate() {
                    let (x, y) = (left + cell_width * column as f64, area.top + cell_height * row as f64);
                    let cell = Area { left: x, top: y, right: x + cell_width, bottom: y + cell_height };
                    self.draw_cell(&mut canvas, cell, *estimate, (&colours, text));
                }
            }
            labels.draw(&mut canvas, left, area.bottom, cell_width);
            let below = area.bottom + labels.height() + TEXT.line_height() / 2.0 + 6.0;
            let caption = TEXT.elided(&self.column_label, panel_width);
            canvas.text(&caption, spot(centre.x, below), Anchor::Centre, TEXT, INK);
        }
        for row in (0..names.len()).step_by(label_step(cell_height)) {
            let y = area.top + cell_height * (row as f64 + 0.5);
            canvas.text(&names[row], spot(area.left - 12.0, y), Anchor::Right, TEXT, INK);
        }
        let caption = TEXT.elided(&self.row_label, area.height());
        canvas.text(&caption, spot(row_caption.x, area.centre().y), Anchor::Upwards, TEXT, INK);
        let bar = Area { left: area.right + BAR_GAP, right: area.right + BAR_GAP + BAR_WIDTH, ..area };
        colours.draw_bar(&mut canvas, bar, &self.value.caption());
        Ok(canvas)
    }
}

/// What is written in cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CellText {
    Nothing,
    Value,
    ValueAndInterval,
}

impl HeatMapChart {
    fn check(&self) -> Result<()> {
        self.size.check()?;
        self.value.require_linear("value.scale")?;
        if self.decimals > 6 {
            return Err(Error::field("decimals", self.decimals, "6 at most"));
        }
        for (field, is_empty) in [
            ("rows", self.rows.is_empty()),
            ("columns", self.columns.is_empty()),
            ("panels", self.panels.iter().all(|panel| panel.estimates().next().is_none())),
        ] {
            if is_empty {
                return Err(Error::field(field, "empty", "at least one"));
            }
        }
        for panel in &self.panels {
            let expected = || format!("{} rows of {} cells", self.rows.len(), self.columns.len());
            if panel.cells.len() != self.rows.len() {
                let got = format!("{} rows (panel `{}`)", panel.cells.len(), panel.title);
                return Err(Error::field("cells", got, expected()));
            }
            for (cells, row) in panel.cells.iter().zip(&self.rows) {
                if cells.len() != self.columns.len() {
                    let got = format!("{} cells (panel `{}`, row `{row}`)", cells.len(), panel.title);
                    return Err(Error::field("cells", got, expected()));
                }
                for (cell, column) in cells.iter().zip(&self.columns) {
                    let place = || format!("panel `{}`, row `{row}`, column `{column}`", panel.title);
                    cell.map_or(Ok(()), |estimate| estimate.check("cells", place))?;
                }
            }
        }
        Ok(())
    }

    fn colours(&self) -> Result<Colours> {
        let values = self.panels.iter().flat_map(Panel::estimates).map(|estimate| estimate.value);
        let mirrored = |v: f64| match self.scale {
            ColourScale::Sequential => [v, v],
            ColourScale::Diverging => [v, -v],
        };
        let asked: Vec<f64> = self.value.includes.iter().chain(&self.value.ticks).copied().collect();
        let values = values.chain(asked).flat_map(mirrored);
        Ok(Colours { axis: self.value.resolve("value", values, (Padding::Exact, 7))?, scale: self.scale })
    }

    fn value_text(&self, estimate: Estimate) -> String {
        fixed(estimate.value, self.decimals)
    }

    fn interval_text(&self, estimate: Estimate) -> Option<String> {
        let interval = estimate.interval?;
        let between = if interval.low < 0.0 { " to " } else { "–" };
        Some(format!("{}{between}{}", fixed(interval.low, self.decimals), fixed(interval.high, self.decimals)))
    }

    /// What fits all cells.
    fn cell_text(&self, width: f64, height: f64) -> CellText {
        let room = width - 2.0 * CELL_MARGIN;
        let estimates = || self.panels.iter().flat_map(Panel::estimates).copied();
        let values_fit = estimates().all(|e| TEXT.width(&self.value_text(e)) <= room) && height >= TEXT.size * 1.05;
        let mut intervals = estimates().filter_map(|e| self.interval_text(e)).peekable();
        let has_intervals = intervals.peek().is_some();
        let intervals_fit = intervals.all(|text| TEXT.width(&text) <= room) && height >= 2.0 * TEXT.line_height();
        match (values_fit, has_intervals && intervals_fit) {
            (false, _) => CellText::Nothing,
            (true, false) => CellText::Value,
            (true, true) => CellText::ValueAndInterval,
        }
    }

    fn draw_cell(&self, canvas: &mut Canvas, cell: Area, estimate: Option<Estimate>, style: (&Colours, CellText)) {
        let (colours, text) = style;
        let gap = (cell.width().min(cell.height()) * 0.05).min(1.5);
        let inner =
            Area { left: cell.left + gap, top: cell.top + gap, right: cell.right - gap, bottom: cell.bottom - gap };
        let colour = estimate.map_or(EMPTY, |e| colours.of(e.value));
        canvas.rectangle(inner, colour);
        let ink = colour.readable_ink();
        let centre = cell.centre();
        let mut write =
            |text: &str, y: f64, font: Font| canvas.text(text, spot(centre.x, y), Anchor::Centre, font, ink);
        match (estimate, text) {
            (_, CellText::Nothing) => {}
            (None, _) => write("–", centre.y, TEXT),
            (Some(estimate), CellText::Value) => write(&self.value_text(estimate), centre.y, TEXT),
            (Some(estimate), CellText::ValueAndInterval) => {
                let half = TEXT.line_height() / 2.0;
                write(&self.value_text(estimate), centre.y - half, STRONG_TEXT);
                write(&self.interval_text(estimate).unwrap_or_default(), centre.y + half, TEXT);
            }
        }
    }
}

/// Values as colours.
struct Colours {
    axis: ResolvedAxis,
    scale: ColourScale,
}

impl Colours {
    fn of(&self, value: f64) -> Colour {
        self.at(self.axis.share(value))
    }

    fn at(&self, share: f64) -> Colour {
        match self.scale {
            ColourScale::Sequential => sequential(share),
            ColourScale::Diverging => diverging(share),
        }
    }

    fn draw_bar(&self, canvas: &mut Canvas, bar: Area, caption: &str) {
        let step = bar.height() / BAR_STEPS as f64;
        for index in 0..BAR_STEPS {
            let bottom = bar.bottom - step * index as f64;
            let colour = self.at((index as f64 + 0.5) / BAR_STEPS as f64);
            canvas.rectangle(Area { top: bottom - step, bottom, ..bar }, colour);
        }
        for (value, label) in &self.axis.ticks {
            let y = bar.bottom - self.axis.share(*value) * bar.height();
            canvas.line(spot(bar.right, y), spot(bar.right + 7.0, y), Pen::solid(2.0, GREY));
            canvas.text(label, spot(bar.right + 12.0, y), Anchor::Left, TEXT, INK);
        }
        let x = canvas.page().right - 36.0 - TEXT.line_height() / 2.0;
        let caption = TEXT.elided(caption, bar.height());
        canvas.text(&caption, spot(x, bar.centre().y), Anchor::Upwards, TEXT, INK);
    }
}

fn widest(names: &[String]) -> f64 {
    names.iter().map(|name| TEXT.width(name)).fold(0.0, f64::max)
}
