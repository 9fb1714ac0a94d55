//! Charts as SVG, whose colours are variables of the page's style: dark, light and print each have their own.

mod bars;
mod flame;
mod labels;
mod plot;

pub use bars::{Bar, Bars};
pub use flame::{Flame, Span};
pub use plot::{Axis, Dot, Line, Plot};

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::{Error, Result};

/// Width and height in pixels of a screen.
pub type Size = (i32, i32);

/// A chart on a screen with room.
pub const WIDE: Size = (720, 320);
/// The same on a phone.
pub const NARROW: Size = (350, 270);

/// Units of a drawing in a pixel: plotters draws in whole units, and lines would be jagged in whole pixels.
const FINE: i32 = 4;

/// Height of text, in pixels.
const TEXT: i32 = 12;

/// Text and marks.
const INK: RGBColor = RGBColor(1, 2, 3);
/// Text of axes.
const SOFT: RGBColor = RGBColor(2, 2, 3);
/// Lines of the grid.
const GRID: RGBColor = RGBColor(3, 2, 3);
/// What lies behind a chart.
const PAPER: RGBColor = RGBColor(4, 2, 3);

/// Colours of series; there are no more than the style has.
pub const COLOURS: usize = 6;

/// Colour of a series, from 1; more series than colours begin anew.
fn colour(number: usize) -> RGBColor {
    RGBColor(16, 2, (1 + (number.max(1) - 1) % COLOURS) as u8)
}

/// The area of a drawing.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws an SVG of this size.
fn svg(size: Size, draw: impl FnOnce(&Area) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    {
        let area =
            SVGBackend::with_string(&mut text, ((size.0 * FINE) as u32, (size.1 * FINE) as u32)).into_drawing_area();
        draw(&area)?;
        area.present().map_err(failed)?;
    }
    let mut themed = text;
    let named = [(INK, "ink"), (SOFT, "soft"), (GRID, "grid"), (PAPER, "paper")];
    let series = (1..=COLOURS).map(|number| (colour(number), format!("series-{number}")));
    for (RGBColor(r, g, b), name) in named.map(|(colour, name)| (colour, name.to_string())).into_iter().chain(series) {
        themed = themed.replace(&format!("\"#{r:02X}{g:02X}{b:02X}\""), &format!("\"var(--{name})\""));
    }
    // The page gives the size, and the drawing its proportions.
    let (width, height) = (size.0 * FINE, size.1 * FINE);
    Ok(themed.replacen(&format!("width=\"{width}\" height=\"{height}\" "), "", 1))
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::invalid(format!("a chart cannot be drawn: {error}"))
}

/// Style of text of a colour, anchored at a point.
fn text(colour: RGBColor, h: HPos, v: VPos) -> TextStyle<'static> {
    // plotters divides by this.
    let size = 1.24 * (TEXT * FINE) as f64;
    ("sans-serif", size).into_font().color(&colour).pos(Pos::new(h, v))
}

/// Pixels that a text takes: no font is at hand here, and 0.6 of the height is wider than the mean letter of one.
fn width_of(text: &str) -> i32 {
    (text.chars().count() as f64 * TEXT as f64 * 0.6).ceil() as i32
}

/// Text for a chart: no control characters, and cut where it is longer than a chart has room for.
pub fn label(text: &str, most: usize) -> String {
    let shown = crate::printable::printable(text).replace(['\n', '\t'], " ");
    match shown.char_indices().nth(most) {
        Some(_) => shown.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        None => shown,
    }
}

/// A number of any size with three digits and its unit: `1.25 G`, `340 µ`. Without a unit the prefix stands alone.
pub fn si(value: f64, unit: &str) -> String {
    const PREFIXES: [(f64, &str); 8] =
        [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ")];
    if value == 0.0 || !value.is_finite() {
        return format!("{value} {unit}").trim_end().to_string();
    }
    let size = value.abs() * (1.0 + 1e-9);
    let (scale, prefix) = PREFIXES.into_iter().find(|(scale, _)| size >= *scale).unwrap_or((1e-9, "n"));
    let scaled = value / scale;
    let digits = (2 - scaled.abs().log10().floor() as i32).clamp(0, 2) as usize;
    let number = format!("{scaled:.digits$}");
    let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    format!("{number} {prefix}{unit}").trim_end().to_string()
}

/// About so many round values within a range: multiples of 1, 2 or 5 times a power of ten.
fn ticks((low, high): (f64, f64), about: usize) -> Vec<f64> {
    let rough = (high - low) / about.max(1) as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return vec![low];
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough).unwrap_or(10.0 * power);
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    (first..=last).map(|n| n as f64 * step).collect()
}

/// Round values of a logarithmic axis from `low` to `high` (logarithms to base ten): decades, and where these are few
/// 2 and 5 times them.
fn log_ticks((low, high): (f64, f64), about: usize) -> Vec<f64> {
    let decades: Vec<f64> = (low.floor() as i64..=high.ceil() as i64).map(|n| n as f64).collect();
    let within = |at: &f64| *at >= low - 1e-9 && *at <= high + 1e-9;
    let whole: Vec<f64> = decades.iter().copied().filter(within).collect();
    if whole.len() >= 3 {
        let every = whole.len().div_ceil(about.max(1));
        return whole.into_iter().step_by(every).collect();
    }
    let all = decades.iter().flat_map(|decade| [1.0, 2.0, 5.0].map(|m: f64| decade + m.log10()));
    all.filter(within).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_prefix() {
        for (value, shown) in [
            (1.25e9, "1.25 GB"),
            (340e-6, "340 µB"),
            (1e3, "1 kB"),
            (999.4, "999 B"),
            (0.0, "0 B"),
            (-2.5e6, "-2.5 MB"),
            (4e-9, "4 nB"),
        ] {
            assert_eq!(si(value, "B"), shown);
        }
        assert_eq!(si(10.0, ""), "10");
    }

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(ticks((0.0, 10.0), 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks((0.31, 0.49), 3), [0.4]);
        assert_eq!(ticks((1.0, 1.0), 5), [1.0]);
        assert_eq!(log_ticks((-1.2, 3.1), 9), [-1.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(log_ticks((0.0, 1.0), 9).len(), 4);
    }

    #[test]
    fn foreign_text_of_a_chart_is_text() {
        assert_eq!(label("a\u{202e}b", 40), "a\\u{202e}b");
        assert_eq!(label("abcdef", 4), "abc…");
        let drawn = svg((50, 20), |area| {
            area.draw(&Text::new("<script>&", (0, 0), text(INK, HPos::Left, VPos::Top))).map_err(failed)
        });
        let drawn = drawn.unwrap();
        assert!(drawn.contains("&lt;script&gt;&amp;") && drawn.contains("fill=\"var(--ink)\""), "{drawn}");
        assert!(!drawn.contains('#') && !drawn.contains("width="), "{drawn}");
    }
}
