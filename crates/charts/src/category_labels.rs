//! Names below columns: side by side where they fit, else upwards.

use crate::canvas::Canvas;
use crate::page::TEXT;
use crate::palette::INK;
use crate::shapes::{Anchor, spot};

const UPWARDS_WIDTH: f64 = 320.0;
const MOST_LINES: usize = 2;
const GAP: f64 = 10.0;

/// Names of columns, laid out for columns of one width.
#[derive(Debug)]
pub(crate) struct CategoryLabels {
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    Flat(Vec<Vec<String>>),
    Upwards(Vec<String>),
}

impl CategoryLabels {
    pub(crate) fn new(names: &[String], column: f64) -> Self {
        let flat: Option<Vec<_>> = names.iter().map(|name| broken(name, column - 8.0)).collect();
        let layout = match flat {
            Some(lines) => Layout::Flat(lines),
            None => Layout::Upwards(names.iter().map(|name| TEXT.elided(name, UPWARDS_WIDTH)).collect()),
        };
        Self { layout }
    }

    /// Height that the names take.
    pub(crate) fn height(&self) -> f64 {
        GAP + match &self.layout {
            Layout::Flat(names) => names.iter().map(Vec::len).max().unwrap_or(0) as f64 * TEXT.line_height(),
            Layout::Upwards(names) => names.iter().map(|name| TEXT.width(name)).fold(0.0, f64::max),
        }
    }

    /// Draws the names below `top`; where columns are narrower than text, only as many as fit.
    pub(crate) fn draw(&self, canvas: &mut Canvas, left: f64, top: f64, column: f64) {
        let centre = |index: usize| left + (index as f64 + 0.5) * column;
        match &self.layout {
            Layout::Flat(names) => {
                for (index, lines) in names.iter().enumerate() {
                    for (row, line) in lines.iter().enumerate() {
                        let y = top + GAP + (row as f64 + 0.5) * TEXT.line_height();
                        canvas.text(line, spot(centre(index), y), Anchor::Centre, TEXT, INK);
                    }
                }
            }
            Layout::Upwards(names) => {
                for index in (0..names.len()).step_by(label_step(column)) {
                    canvas.text(&names[index], spot(centre(index), top + GAP), Anchor::UpwardsEnd, TEXT, INK);
                }
            }
        }
    }
}

/// Every how many rows or columns of a size a label has room.
pub(crate) fn label_step(size: f64) -> usize {
    ((TEXT.size * 1.1 / size).ceil() as usize).max(1)
}

/// The name in lines that end after spaces, dots, slashes and hyphens; none if it does not fit.
fn broken(name: &str, width: f64) -> Option<Vec<String>> {
    let mut lines = vec![String::new()];
    for part in name.split_inclusive([' ', '.', '/', '-']) {
        let line = lines.last_mut()?;
        let longer = format!("{line}{part}");
        if line.is_empty() || TEXT.width(longer.trim_end()) <= width {
            *line = longer;
        } else {
            lines.push(part.to_owned());
        }
    }
    let fits = lines.len() <= MOST_LINES && lines.iter().all(|line| TEXT.width(line.trim_end()) <= width);
    fits.then(|| lines.iter().map(|line| line.trim_end().to_owned()).collect())
}
