//! Where names of marks find room.

use super::{TEXT, width_of};

/// A box on a chart, in pixels: left, top, right, bottom.
type Rect = [i32; 4];

/// What is taken on a chart.
pub struct Room {
    within: Rect,
    taken: Vec<Rect>,
}

/// A name beside its mark: where its text begins, and whether it ends there instead.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Left end, middle or right end of the text, by `anchor`.
    pub x: i32,
    /// Its middle.
    pub y: i32,
    /// -1: the text begins at `x`, 0: it has its middle there, 1: it ends there.
    pub anchor: i32,
}

impl Room {
    /// Of a chart with these marks, each with its radius.
    pub fn new(within: Rect, marks: impl Iterator<Item = (i32, i32, i32)>) -> Room {
        Room { within, taken: marks.map(|(x, y, r)| [x - r, y - r, x + r, y + r]).collect() }
    }

    /// A place for a name beside a mark, if there is one that covers nothing.
    pub fn place(&mut self, name: &str, (x, y, r): (i32, i32, i32)) -> Option<Place> {
        let (gap, up) = (r + 4, r + TEXT / 2 + 2);
        let beside =
            [(gap, 0, -1), (-gap, 0, 1), (0, -up, 0), (0, up, 0), (gap, -up, -1), (gap, up, -1), (-gap, -up, 1)];
        let places = beside.map(|(dx, dy, anchor)| Place { x: x + dx, y: y + dy, anchor });
        let found = places.into_iter().find(|place| {
            let [l, t, right, b] = rect(name, *place);
            let [left, top, most_right, bottom] = self.within;
            let inside = l >= left && t >= top && right <= most_right && b <= bottom;
            inside && !self.taken.iter().any(|other| l < other[2] && other[0] < right && t < other[3] && other[1] < b)
        })?;
        self.taken.push(rect(name, found));
        Some(found)
    }
}

/// The box of a name at a place.
fn rect(name: &str, Place { x, y, anchor }: Place) -> Rect {
    let width = width_of(name);
    let left = x - (anchor + 1) * width / 2;
    [left, y - TEXT / 2 - 1, left + width, y + TEXT / 2 + 1]
}

/// Moves heights apart so that each is at least `gap` from the next, within limits, as little as that takes from above.
pub fn apart(heights: &[i32], gap: i32, (top, bottom): (i32, i32)) -> Vec<i32> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by_key(|&at| heights[at]);
    let mut moved = heights.to_vec();
    let mut least = top;
    for &at in &order {
        moved[at] = moved[at].max(least);
        least = moved[at] + gap;
    }
    let mut most = bottom;
    for &at in order.iter().rev() {
        moved[at] = moved[at].min(most);
        most = moved[at] - gap;
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cover_neither_marks_nor_each_other() {
        let mut room = Room::new([0, 0, 400, 100], [(200, 50, 4), (210, 50, 4)].into_iter());
        let first = room.place("gather", (200, 50, 4)).unwrap();
        // Another mark is to the right of it.
        assert_eq!(first, Place { x: 192, y: 50, anchor: 1 });
        assert_eq!(room.place("gather", (210, 50, 4)).unwrap().anchor, -1);
        let tight = Room::new([0, 0, 10, 10], [(5, 5, 4)].into_iter()).place("gather", (5, 5, 4));
        assert_eq!(tight, None);
    }

    #[test]
    fn heights_are_moved_apart_within_limits() {
        assert_eq!(apart(&[50, 10, 51], 14, (0, 100)), [50, 10, 64]);
        assert_eq!(apart(&[99, 98], 14, (0, 100)), [100, 86]);
    }
}
