//! Tables that fit the terminal: columns give way by rank, long cells are cut. Nothing is, and none does, where another program reads them.

use anstyle::Style;

use super::output::{BOLD, Look, cut, safe, width};

/// Columns are this far apart.
const GAP: usize = 2;
/// No cell is wider on a terminal.
const MAX_CELL: usize = 60;

/// Where a cell's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// At the left, as text does.
    Left,
    /// At the right, as numbers do.
    Right,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its title.
    pub title: &'static str,
    /// Where its text stands.
    pub align: Align,
    /// How narrow it may become; `None`: as wide as its widest cell.
    pub min: Option<usize>,
    /// Columns of the highest rank go first when there is no room; those of rank 0 stay.
    pub rank: u8,
}

impl Column {
    /// Makes a column that is never cut.
    pub const fn new(title: &'static str, rank: u8) -> Self {
        Self { title, align: Align::Left, min: None, rank }
    }

    /// Puts its text at the right.
    pub const fn right(self) -> Self {
        Self { align: Align::Right, ..self }
    }

    /// Lets it shrink to `min` columns.
    pub const fn shrinks_to(self, min: usize) -> Self {
        Self { min: Some(min), ..self }
    }
}

/// One cell; its text is safe to print.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Makes a cell of any text.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self { text: safe(text.as_ref()).into_owned(), style: Style::new() }
    }

    /// Sets its style.
    pub fn style(self, style: Style) -> Self {
        Self { style, ..self }
    }
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Makes a table without rows.
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; a cell a column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Draws the table.
    pub fn render(&self, look: Look) -> String {
        let shown = self.fit(look.room(), if look.cuts { MAX_CELL } else { look.room() });
        let mut out = String::new();
        let titles = shown.iter().map(|(place, columns)| {
            (self.columns[*place], *columns, Cell { text: self.columns[*place].title.to_owned(), style: BOLD })
        });
        render_row(&mut out, titles, look);
        for row in &self.rows {
            let cells = shown
                .iter()
                .map(|(place, columns)| (self.columns[*place], *columns, row.get(*place).cloned().unwrap_or_default()));
            render_row(&mut out, cells, look);
        }
        out
    }

    /// Chooses which columns are shown, and how wide.
    fn fit(&self, room: usize, max_cell: usize) -> Vec<(usize, usize)> {
        let natural = |place: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(place)).map(|cell| width(&cell.text)).max();
            cells
                .filter(|columns| *columns > 0)
                .map(|columns| columns.min(max_cell).max(width(self.columns[place].title)))
        };
        // A column that says nothing takes no room.
        let mut shown: Vec<(usize, usize)> =
            (0..self.columns.len()).filter_map(|place| natural(place).map(|columns| (place, columns))).collect();
        loop {
            let total = shown.iter().map(|(_, columns)| columns).sum::<usize>() + GAP * shown.len().saturating_sub(1);
            let Some(excess) = total.checked_sub(room).filter(|excess| *excess > 0) else { return shown };
            let floor = |&(place, columns): &(usize, usize)| self.columns[place].min.unwrap_or(columns).min(columns);
            let slack: usize = shown.iter().map(|column| column.1 - floor(column)).sum();
            let lowest = shown.iter().enumerate().max_by_key(|(_, (place, _))| self.columns[*place].rank);
            match lowest.filter(|(_, (place, _))| self.columns[*place].rank > 0) {
                Some((at, _)) if slack < excess => drop(shown.remove(at)),
                _ => {
                    for _ in 0..excess.min(slack) {
                        let widest = shown.iter_mut().filter(|column| column.1 > floor(column)).max_by_key(|c| c.1);
                        if let Some(column) = widest {
                            column.1 -= 1;
                        }
                    }
                    return shown;
                }
            }
        }
    }
}

fn render_row(out: &mut String, cells: impl Iterator<Item = (Column, usize, Cell)>, look: Look) {
    let start = out.len();
    for (place, (column, columns, cell)) in cells.enumerate() {
        if place > 0 {
            out.push_str("  ");
        }
        let text = cut(&cell.text, columns);
        let padding = std::iter::repeat_n(' ', columns.saturating_sub(width(&text)));
        if column.align == Align::Right {
            out.extend(padding);
            out.push_str(&look.paint(cell.style, &text));
        } else {
            out.push_str(&look.paint(cell.style, &text));
            out.extend(padding);
        }
    }
    let end = out[start..].trim_end_matches(' ').len();
    out.truncate(start + end);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[
            Column::new("ID", 0),
            Column::new("NAME", 0).shrinks_to(6),
            Column::new("COST", 1).right(),
            Column::new("MODEL", 2).shrinks_to(5),
            Column::new("EMPTY", 0),
        ]);
        for (id, name, cost, model) in
            [("01", "code-reviewer", "$0.42", "gpt-4-turbo"), ("02", "東京\x1b[2J", "$1", "")]
        {
            table.row(vec![Cell::new(id), Cell::new(name), Cell::new(cost), Cell::new(model), Cell::default()]);
        }
        table
    }

    fn plain(width: usize) -> String {
        table().render(Look { width, cuts: true, colour: false, is_terminal: false })
    }

    #[test]
    fn a_table_takes_what_it_needs() {
        assert_eq!(
            plain(80),
            "ID  NAME            COST  MODEL\n01  code-reviewer  $0.42  gpt-4-turbo\n02  東京\\u{1b}[2J     $1\n"
        );
    }

    #[test]
    fn cells_are_cut_before_columns_go() {
        assert_eq!(plain(30), "ID  NAME        COST  MODEL\n01  code-rev…  $0.42  gpt-4-t…\n02  東京\\u{1…     $1\n");
        assert_eq!(plain(20), "ID  NAME        COST\n01  code-rev…  $0.42\n02  東京\\u{1…     $1\n");
        assert_eq!(plain(5), "ID  NAME\n01  code-…\n02  東京\\…\n");
    }

    #[test]
    fn what_a_program_reads_is_whole() {
        let mut table = Table::new(&[Column::new("NAME", 0).shrinks_to(6), Column::new("MODEL", 2).shrinks_to(5)]);
        table.row(vec![Cell::new("a".repeat(70)), Cell::new("b".repeat(50))]);
        let shown = table.render(Look { width: 100, cuts: false, colour: false, is_terminal: false });
        assert_eq!(shown, format!("NAME{}MODEL\n{}  {}\n", " ".repeat(68), "a".repeat(70), "b".repeat(50)));
    }
}
