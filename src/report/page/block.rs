//! What a page is made of, whatever a section says. All texts are plain text: the template escapes them.

use serde::Serialize;

/// A section of the page.
#[derive(Debug, Serialize)]
pub struct Section {
    /// Its place in the address, `#results`.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// A sentence on how to read it.
    pub lead: &'static str,
    /// What it shows, in order.
    pub blocks: Vec<Block>,
}

/// A piece of a section.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Block {
    /// A heading, and the file that what follows is from.
    Heading { text: String, source: Option<String> },
    /// A sentence.
    Text { text: String },
    /// A sentence that keeps a reader from a wrong conclusion.
    Warning { text: String },
    /// See [`Table`].
    Table(Table),
    /// See [`Figure`].
    Figure(Box<Figure>),
    /// Small figures side by side, under one caption.
    Panels { caption: String, figures: Vec<Figure> },
    /// See [`RankMatrix`].
    Matrix(RankMatrix),
    /// See [`Example`].
    Example(Example),
}

impl Block {
    /// A heading of what is from this file.
    pub fn heading(text: impl Into<String>, source: &str) -> Block {
        Block::Heading { text: text.into(), source: Some(source.to_string()) }
    }

    /// A sentence.
    pub fn text(text: impl Into<String>) -> Block {
        Block::Text { text: text.into() }
    }

    /// A warning.
    pub fn warning(text: impl Into<String>) -> Block {
        Block::Warning { text: text.into() }
    }
}

/// A table. Its first column heads the rows.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Headings of the columns, that of the first one included.
    pub header: Vec<String>,
    /// Its rows.
    pub rows: Vec<Row>,
    /// Rows that are not shown.
    pub left_out: usize,
}

/// Most rows of a table: what has more is to be looked up in its file.
const MOST_ROWS: usize = 400;

impl Table {
    /// A table of these rows, as many as a page has room for.
    pub fn new(caption: impl Into<String>, header: &[&str], mut rows: Vec<Row>) -> Table {
        let left_out = rows.len().saturating_sub(MOST_ROWS);
        rows.truncate(MOST_ROWS);
        Table { caption: caption.into(), header: header.iter().map(|name| name.to_string()).collect(), rows, left_out }
    }
}

/// A row of a table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// What it is of.
    pub head: String,
    /// A remark below that.
    pub remark: Option<String>,
    /// Its values.
    pub cells: Vec<Cell>,
    /// Whether the others are compared with it.
    pub marked: bool,
}

impl Row {
    /// A row of plain values.
    pub fn new(head: impl Into<String>, cells: impl IntoIterator<Item = impl Into<Cell>>) -> Row {
        let cells = cells.into_iter().map(Into::into).collect();
        Row { head: head.into(), remark: None, cells, marked: false }
    }
}

/// A value of a table, and what stands below it in small print, such as its interval.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cell {
    /// The value.
    pub text: String,
    /// What stands below it.
    pub below: Option<String>,
}

impl Cell {
    /// A value with something below it.
    pub fn with(text: impl Into<String>, below: impl Into<String>) -> Cell {
        Cell { text: text.into(), below: Some(below.into()) }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell { text, below: None }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell { text: text.to_string(), below: None }
    }
}

/// A chart in two widths, and its numbers.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// What it shows.
    pub caption: String,
    /// What one sees, for those who do not.
    pub label: String,
    /// SVG for screens with room.
    pub wide: String,
    /// SVG for phones; none where the wide one is small itself.
    pub narrow: Option<String>,
    /// What its marks mean.
    pub legend: Vec<Key>,
    /// The numbers that are drawn.
    pub numbers: Option<Table>,
}

/// A mark of a legend.
#[derive(Clone, Debug, Serialize)]
pub struct Key {
    /// Number of the colour, from 1.
    pub colour: usize,
    /// How it looks: `line`, `solid`, `hollow`, `bar`.
    pub mark: &'static str,
    /// What it means.
    pub text: String,
}

/// How many went from which rank (rows) to which (columns).
#[derive(Debug, Serialize)]
pub struct RankMatrix {
    /// What it shows.
    pub caption: String,
    /// Rows of counts.
    pub rows: Vec<Vec<Count>>,
}

/// A count of a matrix.
#[derive(Debug, Serialize)]
pub struct Count {
    /// The count.
    pub count: usize,
    /// How dark its cell is, from 0 to 5.
    pub shade: usize,
    /// `better`, `worse` or `same`.
    pub side: &'static str,
}

/// A mention with what methods rank first.
#[derive(Debug, Serialize)]
pub struct Example {
    /// Its identifier.
    pub id: String,
    /// The sentence before the mention, the mention, and the sentence after it; all is before it if it is not there.
    pub sentence: [String; 3],
    /// The span.
    pub mention: String,
    /// Name of the right entity.
    pub gold: String,
    /// Its image.
    pub image: Picture,
    /// One for each method.
    pub methods: Vec<Method>,
}

/// An image, or why there is none.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Picture {
    /// A `data:` address.
    pub data: Option<String>,
    /// What is said in its place.
    pub missing: String,
}

/// A method's ranking of an example.
#[derive(Debug, Serialize)]
pub struct Method {
    /// Its name.
    pub name: String,
    /// Names of the scores of its candidates.
    pub scores: Vec<String>,
    /// Best first.
    pub candidates: Vec<Candidate>,
}

/// An entity that was ranked.
#[derive(Debug, Serialize)]
pub struct Candidate {
    /// Its rank, from 1.
    pub rank: usize,
    /// Its name.
    pub name: String,
    /// Its identifier.
    pub qid: Option<String>,
    /// Its image.
    pub image: Picture,
    /// Whether it is the right one.
    pub gold: bool,
    /// Its scores, in the order of the method's names.
    pub values: Vec<String>,
}
