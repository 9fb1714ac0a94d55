//! Horizontal bars with names, values and whiskers.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{FINE, GRID, INK, SOFT, Size, TEXT, colour, failed, svg, text, ticks, width_of};
use crate::error::Result;

/// Height of a bar with its gap, in pixels.
const BAR: i32 = 26;

/// A bar.
pub struct Bar {
    /// What it is of.
    pub name: String,
    /// Its length.
    pub value: f64,
    /// Both ends of its whisker.
    pub whisker: Option<(f64, f64)>,
    /// What stands beside it.
    pub shown: String,
    /// Number of its colour.
    pub colour: usize,
}

/// Bars on one axis.
pub struct Bars {
    /// What they measure, with its unit.
    pub axis: String,
    /// From above to below.
    pub bars: Vec<Bar>,
}

impl Bars {
    /// The chart as SVG of this width; the bars give the height.
    pub fn draw(&self, width: i32) -> Result<String> {
        let size: Size = (width, BAR * self.bars.len() as i32 + 2 * TEXT + 30);
        let ends =
            |bar: &Bar| [bar.value, bar.whisker.map_or(bar.value, |w| w.0), bar.whisker.map_or(bar.value, |w| w.1)];
        let all = || self.bars.iter().flat_map(ends).filter(|value| value.is_finite());
        let (low, high) = (all().fold(0.0, f64::min), all().fold(0.0, f64::max));
        let span = if high > low { high - low } else { 1.0 };
        svg(size, |area| {
            let names = self.bars.iter().map(|bar| width_of(&bar.name)).max().unwrap_or(0).min(width * 2 / 5);
            let values = self.bars.iter().map(|bar| width_of(&bar.shown)).max().unwrap_or(0);
            let (left, right) = (names + 10, width - values - 12);
            let x = |value: f64| left + ((value - low) / span * (right - left) as f64).round() as i32;
            let (top, bottom) = (4, 4 + BAR * self.bars.len() as i32);
            let fine = |x: i32, y: i32| (x * FINE, y * FINE);
            let line = |from: (i32, i32), to: (i32, i32), style: ShapeStyle| {
                area.draw(&PathElement::new(vec![fine(from.0, from.1), fine(to.0, to.1)], style)).map_err(failed)
            };
            for tick in ticks((low, high), ((right - left) / 70).max(2) as usize) {
                line((x(tick), top), (x(tick), bottom), GRID.stroke_width(FINE as u32))?;
                let shown = format!("{}", (tick * 1e6).round() / 1e6);
                let style = text(SOFT, HPos::Center, VPos::Top);
                area.draw(&Text::new(shown, fine(x(tick), bottom + 5), style)).map_err(failed)?;
            }
            let style = text(SOFT, HPos::Right, VPos::Bottom);
            area.draw(&Text::new(self.axis.clone(), fine(width - 2, size.1 - 2), style)).map_err(failed)?;
            for (number, bar) in self.bars.iter().enumerate() {
                let middle = top + BAR * number as i32 + BAR / 2;
                let style = text(INK, HPos::Right, VPos::Center);
                let most = (names / (TEXT * 6 / 10)).max(4) as usize;
                area.draw(&Text::new(super::label(&bar.name, most), fine(left - 8, middle), style)).map_err(failed)?;
                let style = text(INK, HPos::Left, VPos::Center);
                area.draw(&Text::new(bar.shown.clone(), fine(right + 8, middle), style)).map_err(failed)?;
                if bar.value.is_finite() {
                    let corners = [fine(x(0.0), middle - 8), fine(x(bar.value), middle + 8)];
                    area.draw(&Rectangle::new(corners, colour(bar.colour).filled())).map_err(failed)?;
                }
                if let Some((from, to)) = bar.whisker.filter(|(from, to)| from.is_finite() && to.is_finite()) {
                    let stroke = INK.stroke_width(6);
                    line((x(from), middle), (x(to), middle), stroke)?;
                    for end in [from, to] {
                        line((x(end), middle - 4), (x(end), middle + 4), stroke)?;
                    }
                }
            }
            line((x(0.0), top), (x(0.0), bottom), SOFT.stroke_width(FINE as u32))
        })
    }
}
