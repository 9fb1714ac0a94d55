//! Lines and marks on two axes.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::labels::{Place, Room, apart};
use super::{Area, FINE, GRID, INK, PAPER, SOFT, Size, TEXT, colour, failed, log_ticks, svg, text, ticks, width_of};
use crate::error::Result;

/// An axis.
pub struct Axis<'a> {
    /// What it measures, with its unit.
    pub name: &'a str,
    /// Its ends.
    pub range: (f64, f64),
    /// Whether equal ratios have equal lengths; both ends are above 0 then.
    pub log: bool,
    /// Whether it counts something, so that there is nothing between whole numbers.
    pub whole: bool,
    /// Shows a value.
    pub show: &'a dyn Fn(f64) -> String,
}

impl Axis<'_> {
    /// A value's place on the axis, in units of [`Axis::ends`].
    fn at(&self, value: f64) -> f64 {
        if self.log { value.log10() } else { value }
    }

    /// Both ends; a range without width gets some.
    fn ends(&self) -> (f64, f64) {
        let (low, high) = (self.at(self.range.0), self.at(self.range.1));
        let least = 1e-9 * low.abs().max(high.abs()).max(1e-30);
        if high - low > least { (low, high) } else { (low - 0.5, high + 0.5) }
    }

    fn ticks(&self, about: usize) -> Vec<f64> {
        let found = if self.log { log_ticks(self.ends(), about) } else { ticks(self.ends(), about) };
        found.into_iter().filter(|at| !self.whole || at.fract() == 0.0).collect()
    }

    fn shown(&self, at: f64) -> String {
        (self.show)(if self.log { 10f64.powf(at) } else { at })
    }
}

/// An axis for plotters: its values are where they stand on it, and its ticks are ours.
struct Ticked {
    ends: (f64, f64),
    ticks: Vec<f64>,
}

impl Ranged for Ticked {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.range()).map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.ends.0..self.ends.1
    }
}

/// A line, in pieces between gaps.
pub struct Line {
    /// Points of each piece.
    pub pieces: Vec<Vec<(f64, f64)>>,
    /// Number of its colour.
    pub colour: usize,
    /// What stands at its end.
    pub name: Option<String>,
    /// Whether each point has a mark.
    pub marked: bool,
}

/// A mark.
pub struct Dot {
    /// Where.
    pub at: (f64, f64),
    /// Number of its colour.
    pub colour: usize,
    /// Whether only its edge is drawn.
    pub hollow: bool,
    /// In pixels.
    pub radius: i32,
    /// What stands beside it if there is room.
    pub name: Option<String>,
}

/// A chart.
pub struct Plot<'a> {
    /// From left to right.
    pub x: Axis<'a>,
    /// From below to above.
    pub y: Axis<'a>,
    /// Its lines.
    pub lines: Vec<Line>,
    /// Its marks, drawn over lines.
    pub dots: Vec<Dot>,
}

impl Plot<'_> {
    /// The chart as SVG.
    pub fn draw(&self, size: Size) -> Result<String> {
        svg(size, |area| {
            let y_ticks = self.y.ticks(if size.1 < 200 { 3 } else { 5 });
            let about = (size.0 / 80).max(3) as usize;
            let x_ticks = self.x.ticks(about);
            let left = y_ticks.iter().map(|at| width_of(&self.y.shown(*at))).max().unwrap_or(0) + 10;
            let names = self.lines.iter().filter_map(|line| line.name.as_deref());
            let right = names.map(width_of).max().map_or(14, |width| width + 14);
            let (x, y) =
                (Ticked { ends: self.x.ends(), ticks: x_ticks }, Ticked { ends: self.y.ends(), ticks: y_ticks });
            let mut chart = ChartBuilder::on(area)
                .margin_top((TEXT + 14) * FINE)
                .margin_right(right * FINE)
                .x_label_area_size((2 * TEXT + 16) * FINE)
                .y_label_area_size(left * FINE)
                .build_cartesian_2d(x, y)
                .map_err(failed)?;
            let grid = ShapeStyle::from(&GRID).stroke_width(FINE as u32);
            chart
                .configure_mesh()
                .disable_x_mesh()
                .axis_style(grid)
                .bold_line_style(grid)
                .light_line_style(TRANSPARENT)
                .set_all_tick_mark_size(4 * FINE)
                .label_style(text(SOFT, HPos::Center, VPos::Center))
                .x_label_formatter(&|at| self.x.shown(*at))
                .y_label_formatter(&|at| self.y.shown(*at))
                .draw()
                .map_err(failed)?;
            let (width, height) = (size.0 * FINE, size.1 * FINE);
            let name = text(SOFT, HPos::Left, VPos::Top);
            area.draw(&Text::new(self.y.name.to_string(), (0, 2 * FINE), name)).map_err(failed)?;
            let name = text(SOFT, HPos::Right, VPos::Bottom);
            area.draw(&Text::new(self.x.name.to_string(), (width - right * FINE, height - 2 * FINE), name))
                .map_err(failed)?;

            let at = |&(x, y): &(f64, f64)| (self.x.at(x), self.y.at(y));
            for line in &self.lines {
                let stroke = colour(line.colour).stroke_width(2 * FINE as u32);
                for piece in &line.pieces {
                    chart.draw_series(LineSeries::new(piece.iter().map(at), stroke)).map_err(failed)?;
                    // A piece of one point has no line.
                    if line.marked || piece.len() == 1 {
                        let mark = |point| Circle::new(at(point), 3 * FINE, colour(line.colour).filled());
                        chart.draw_series(piece.iter().map(mark)).map_err(failed)?;
                    }
                }
            }
            let pixel = |point: &(f64, f64)| {
                let (x, y) = chart.backend_coord(&at(point));
                (x / FINE, y / FINE)
            };
            let [bottom, top] = [self.y.range.0, self.y.range.1].map(|y| pixel(&(self.x.range.0, y)).1);
            self.names(area, pixel, (top, bottom))?;
            self.marks(area, pixel, [left, top - 8, size.0 - 2, bottom])
        })
    }

    /// Writes the lines' names at their ends.
    fn names(&self, area: &Area, pixel: impl Fn(&(f64, f64)) -> (i32, i32), limits: (i32, i32)) -> Result<()> {
        let last = |line: &Line| line.pieces.iter().rev().find_map(|piece| piece.last().copied());
        let ends = self.lines.iter().filter_map(|line| Some((line.name.clone()?, pixel(&last(line)?))));
        let ends: Vec<(String, (i32, i32))> = ends.collect();
        let heights: Vec<i32> = ends.iter().map(|(_, (_, y))| *y).collect();
        for ((name, (x, _)), y) in ends.into_iter().zip(apart(&heights, TEXT + 3, limits)) {
            let style = text(INK, HPos::Left, VPos::Center);
            area.draw(&Text::new(name, ((x + 8) * FINE, y * FINE), style)).map_err(failed)?;
        }
        Ok(())
    }

    /// Draws the marks, and their names where there is room.
    fn marks(&self, area: &Area, pixel: impl Fn(&(f64, f64)) -> (i32, i32), within: [i32; 4]) -> Result<()> {
        let place = |dot: &Dot| {
            let (x, y) = pixel(&dot.at);
            (x, y, dot.radius)
        };
        let places: Vec<(i32, i32, i32)> = self.dots.iter().map(place).collect();
        let mut room = Room::new(within, places.iter().copied());
        for (dot, &place) in self.dots.iter().zip(&places) {
            let (at, r) = ((place.0 * FINE, place.1 * FINE), dot.radius * FINE);
            // What lies behind a hollow mark must not show through it.
            let fill = if dot.hollow { PAPER.filled() } else { colour(dot.colour).filled() };
            area.draw(&Circle::new(at, r, fill)).map_err(failed)?;
            let edge = if dot.hollow { colour(dot.colour) } else { PAPER };
            let stroke = edge.stroke_width(if dot.hollow { 2 * FINE as u32 } else { FINE as u32 });
            area.draw(&Circle::new(at, r, stroke)).map_err(failed)?;
            let Some(name) = &dot.name else { continue };
            if let Some(Place { x, y, anchor }) = room.place(name, place) {
                let h = [HPos::Left, HPos::Center, HPos::Right][(anchor + 1) as usize];
                let style = text(INK, h, VPos::Center);
                area.draw(&Text::new(name.clone(), (x * FINE, y * FINE), style)).map_err(failed)?;
            }
        }
        Ok(())
    }
}
