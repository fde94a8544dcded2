//! Text: widths, line breaks and glyphs, from a font that is compiled in.

use std::sync::LazyLock;

use ab_glyph::{Font as _, FontRef, PxScale, ScaleFont as _, point};

/// Sans Condensed of the `dejavu` crate, regular and bold.
static FONTS: LazyLock<[FontRef<'static>; 2]> = LazyLock::new(|| {
    [dejavu::sans_condensed::regular(), dejavu::sans_condensed::bold()]
        .map(|bytes| FontRef::try_from_slice(bytes).expect("the compiled-in font is a font"))
});

/// Longest text that is looked at; more never fits a figure.
const MOST_CHARS: usize = 2000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    Regular,
    Bold,
}

/// A weight at a size (the em, in the same unit as the widths it gives).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Font {
    pub(crate) weight: Weight,
    pub(crate) size: f64,
}

/// A letter on its line.
#[derive(Debug, Clone, Copy)]
struct Placed {
    letter: char,
    index: usize,
    left: f64,
    right: f64,
}

impl Font {
    pub(crate) const fn regular(size: f64) -> Self {
        Self { weight: Weight::Regular, size }
    }

    pub(crate) const fn bold(size: f64) -> Self {
        Self { weight: Weight::Bold, size }
    }

    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self { size: self.size * factor, ..self }
    }

    /// From one line to the next.
    pub(crate) fn line_height(self) -> f64 {
        self.size * 1.3
    }

    /// From the middle of capitals down to the baseline.
    pub(crate) fn middle_to_baseline(self) -> f64 {
        self.size * 0.365
    }

    pub(crate) fn width(self, text: &str) -> f64 {
        let mut end = 0.0;
        self.advance(text, |placed| end = placed.right);
        end
    }

    /// The text, shortened to fit with an ellipsis.
    pub(crate) fn elided(self, text: &str, width: f64) -> String {
        let text = one_line(text);
        if self.width(&text) <= width {
            return text;
        }
        let room = width - self.width("…");
        let mut kept = 0;
        self.advance(&text, |placed| {
            if placed.right <= room {
                kept = placed.index + 1;
            }
        });
        let kept: String = text.chars().take(kept).collect();
        format!("{}…", kept.trim_end())
    }

    /// The text in at most `most` lines, the last shortened where there is more.
    pub(crate) fn wrapped(self, text: &str, width: f64, most: usize) -> Vec<String> {
        let text = one_line(text);
        let mut lines: Vec<String> = Vec::new();
        let mut line = String::new();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
            if line.is_empty() || lines.len() + 1 == most || self.width(&longer) <= width {
                line = longer;
            } else {
                lines.push(std::mem::replace(&mut line, word.to_owned()));
            }
        }
        if !line.is_empty() {
            lines.push(line);
        }
        lines.iter().map(|line| self.elided(line, width)).collect()
    }

    /// Coverage of every pixel of the text, relative to the start of its baseline.
    pub(crate) fn rasterise(self, text: &str, mut pixel: impl FnMut(i32, i32, f32)) {
        let font = self.font();
        self.advance(text, |placed| {
            let position = point(placed.left as f32, 0.0);
            let glyph = font.glyph_id(placed.letter).with_scale_and_position(self.scale(), position);
            if let Some(outline) = font.outline_glyph(glyph) {
                let corner = outline.px_bounds().min;
                outline.draw(|dx, dy, coverage| {
                    pixel(corner.x as i32 + dx as i32, corner.y as i32 + dy as i32, coverage);
                });
            }
        });
    }

    /// Calls with each letter in turn.
    fn advance(self, text: &str, mut each: impl FnMut(Placed)) {
        let font = self.font().as_scaled(self.scale());
        let mut x = 0.0;
        let mut previous = None;
        for (index, letter) in text.chars().enumerate() {
            let glyph = font.glyph_id(letter);
            if let Some(previous) = previous {
                x += f64::from(font.kern(previous, glyph));
            }
            let right = x + f64::from(font.h_advance(glyph));
            each(Placed { letter, index, left: x, right });
            x = right;
            previous = Some(glyph);
        }
    }

    fn font(self) -> &'static FontRef<'static> {
        &FONTS[self.weight as usize]
    }

    fn scale(self) -> PxScale {
        let font = self.font();
        let em = font.units_per_em().expect("a TrueType font states its units");
        PxScale::from(self.size as f32 * font.height_unscaled() / em)
    }
}

/// Without line breaks and other control characters, which have no glyph; a number stays together
/// with its percent sign.
fn one_line(text: &str) -> String {
    let text: String = text.chars().take(MOST_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.replace(" %", "\u{a0}%")
}
