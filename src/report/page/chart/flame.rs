//! Where a time goes: bars of parts below the bar of the whole.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{FINE, INK, PAPER, colour, failed, label, svg, text, width_of};
use crate::error::Result;

/// Height of a row, in pixels.
const ROW: i32 = 30;

/// A part of a whole.
pub struct Span {
    /// Which row it stands in, from 0 above.
    pub depth: usize,
    /// Where it begins and ends, as shares of the whole.
    pub share: (f64, f64),
    /// What it is.
    pub name: String,
    /// Number of its colour.
    pub colour: usize,
}

/// Spans in rows.
pub struct Flame {
    /// The spans.
    pub spans: Vec<Span>,
}

impl Flame {
    /// The chart as SVG of this width; the rows give the height.
    pub fn draw(&self, width: i32) -> Result<String> {
        let rows = self.spans.iter().map(|span| span.depth as i32 + 1).max().unwrap_or(1);
        svg((width, rows * ROW), |area| {
            let x = |share: f64| (share.clamp(0.0, 1.0) * (width * FINE) as f64).round() as i32;
            for Span { depth, share, name, colour: number } in &self.spans {
                let (left, right, top) = (x(share.0), x(share.1), *depth as i32 * ROW * FINE);
                let corners = [(left, top), (right, top + (ROW - 2) * FINE)];
                // Names stand on it, and must be read in the dark as in the light.
                let fill = colour(*number).mix(0.28).filled();
                area.draw(&Rectangle::new(corners, fill)).map_err(failed)?;
                area.draw(&Rectangle::new(corners, PAPER.stroke_width(FINE as u32))).map_err(failed)?;
                let room = ((right - left) / FINE - 10) / width_of("x");
                if room >= 3 {
                    let at = (left + 6 * FINE, top + (ROW - 2) * FINE / 2);
                    let style = text(INK, HPos::Left, VPos::Center);
                    area.draw(&Text::new(label(name, room as usize), at, style)).map_err(failed)?;
                }
            }
            Ok(())
        })
    }
}
