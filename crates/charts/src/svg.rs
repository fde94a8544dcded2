//! Shapes and text as an SVG document.
//!
//! Text stays text, which can be searched and copied, and is as wide as the font that is compiled in has it: where that
//! font is not installed, another is stretched or squeezed to the same width, so that nothing overlaps.

use std::fmt::{self, Write as _};

use crate::lettering::{Font, Weight};
use crate::palette::{Colour, PAPER};
use crate::shapes::{Anchor, Area, DASH, Dash, Pen, Shape, Spot};
use crate::size::Size;

/// The document of some shapes.
pub(crate) fn document(size: Size, page: Area, title: &str, shapes: &[Shape]) -> String {
    let (right, bottom) = (number(page.right), number(page.bottom));
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {right} {bottom}\" \
         role=\"img\" font-family=\"'DejaVu Sans Condensed', 'DejaVu Sans', 'Liberation Sans Narrow', sans-serif\">\n\
         <title>{}</title>\n<rect width=\"{right}\" height=\"{bottom}\" fill=\"{}\"/>\n",
        size.width,
        size.height,
        escaped(title),
        hex(PAPER)
    );
    for shape in shapes {
        element(&mut text, shape);
        text.push('\n');
    }
    text += "</svg>\n";
    text
}

fn element(text: &mut String, shape: &Shape) {
    let written = match shape {
        Shape::Rectangle { area, colour } => {
            let [x, y, width, height] = [area.left, area.top, area.width(), area.height()].map(number);
            let colour = hex(*colour);
            // Without smoothing, which would leave a seam between rectangles that touch.
            let crisp = "shape-rendering=\"crispEdges\"";
            write!(text, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{colour}\" {crisp}/>")
        }
        Shape::Polygon { corners, colour, alpha } => {
            let (points, colour) = (points(corners), hex(*colour));
            let opacity = if *alpha < 1.0 { format!(" fill-opacity=\"{}\"", number(*alpha)) } else { String::new() };
            write!(text, "<polygon points=\"{points}\" fill=\"{colour}\"{opacity}/>")
        }
        Shape::Disc { centre, radius, colour } => {
            let [x, y, radius] = [centre.x, centre.y, *radius].map(number);
            write!(text, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\" fill=\"{}\"/>", hex(*colour))
        }
        Shape::Line { spots, pen: Pen { width, colour, dash } } => {
            let (points, width, colour) = (points(spots), number(*width), hex(*colour));
            let dashes = match dash {
                Dash::Solid => String::new(),
                Dash::Dashed => format!(" stroke-dasharray=\"{} {}\"", number(DASH[0]), number(DASH[1])),
            };
            write!(
                text,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" \
                 stroke-linejoin=\"round\"{dashes}/>"
            )
        }
        Shape::Text { text: content, at, anchor, font, colour } => label(text, content, *at, *anchor, (*font, *colour)),
    };
    written.expect("a text takes every character");
}

fn label(text: &mut String, content: &str, at: Spot, anchor: Anchor, (font, colour): (Font, Colour)) -> fmt::Result {
    if content.trim().is_empty() {
        return Ok(());
    }
    let (x, y, middle) = (number(at.x), number(at.y), font.middle_to_baseline());
    // Text that is read upwards is turned about its place.
    let (place, end) = match anchor {
        Anchor::Left => (format!("x=\"{x}\" y=\"{}\"", number(at.y + middle)), "start"),
        Anchor::Centre => (format!("x=\"{x}\" y=\"{}\"", number(at.y + middle)), "middle"),
        Anchor::Right => (format!("x=\"{x}\" y=\"{}\"", number(at.y + middle)), "end"),
        Anchor::Upwards | Anchor::UpwardsEnd => {
            let end = if anchor == Anchor::Upwards { "middle" } else { "end" };
            (format!("transform=\"translate({x} {y}) rotate(-90)\" y=\"{}\"", number(middle)), end)
        }
    };
    let weight = if font.weight == Weight::Bold { " font-weight=\"bold\"" } else { "" };
    let (size, width, colour) = (number(font.size), number(font.width(content)), hex(colour));
    write!(
        text,
        "<text {place} text-anchor=\"{end}\" font-size=\"{size}\"{weight} textLength=\"{width}\" \
         lengthAdjust=\"spacingAndGlyphs\" fill=\"{colour}\">{}</text>",
        escaped(content)
    )
}

fn points(spots: &[Spot]) -> String {
    let pairs: Vec<String> = spots.iter().map(|at| format!("{},{}", number(at.x), number(at.y))).collect();
    pairs.join(" ")
}

/// With at most two decimals, which are a sixtieth of a pixel and less.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn hex(Colour([red, green, blue]): Colour) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Without what means something in XML, and without characters that it cannot hold.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            letter if letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_short_as_they_can_be() {
        for (value, expected) in [(0.0, "0"), (-0.001, "0"), (12.5, "12.5"), (100.0, "100"), (1.0 / 3.0, "0.33")] {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn what_means_something_in_xml_is_written_otherwise() {
        assert_eq!(escaped("a<b> & \"c\"\u{0}\u{ffff}"), "a&lt;b&gt; &amp; &quot;c&quot; \u{fffd}");
    }
}
