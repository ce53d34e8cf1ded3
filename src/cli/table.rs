//! A table of text: columns as wide as their widest cell. On a terminal it fits the width: long cells are shortened.

use super::output::Output;
use crate::error::Result;

/// The columns of a table.
pub struct Columns<const N: usize> {
    pub head: [&'static str; N],
    /// Columns at the left end whose cells are aligned to the left; the others are aligned to the right.
    pub left: usize,
    /// Columns that are shortened on a narrow terminal, the first one first.
    pub shortened: &'static [usize],
    /// Columns that are left out if all their cells are empty.
    pub optional: &'static [usize],
}

/// The width that shortened columns keep.
const LEAST: usize = 8;
/// The space between two columns.
const GAP: &str = "  ";

/// Prints rows below a head.
pub fn print<const N: usize>(out: &mut Output, columns: &Columns<N>, rows: &[[String; N]]) -> Result<()> {
    let terminal = console::Term::stdout();
    let width = terminal.is_term().then(|| terminal.size_checked()).flatten().map(|(_, columns)| columns.into());
    lines(columns, rows, width).iter().try_for_each(|line| out.line(line))
}

fn lines<const N: usize>(columns: &Columns<N>, rows: &[[String; N]], width: Option<usize>) -> Vec<String> {
    let head = columns.head.map(String::from);
    let all = || std::iter::once(&head).chain(rows);
    let is_shown = |i: &usize| !columns.optional.contains(i) || rows.iter().any(|row| !row[*i].is_empty());
    let shown: Vec<usize> = (0..N).filter(is_shown).collect();
    let mut widths: [usize; N] = std::array::from_fn(|i| all().map(|row| measure(&row[i])).max().unwrap_or(0));
    if let Some(width) = width {
        let used = shown.iter().map(|i| widths[*i] + GAP.len()).sum::<usize>().saturating_sub(GAP.len());
        let mut excess = used.saturating_sub(width);
        for i in columns.shortened.iter().filter(|i| shown.contains(i)) {
            let less = excess.min(widths[*i].saturating_sub(LEAST));
            widths[*i] -= less;
            excess -= less;
        }
    }
    let line = |row: &[String; N]| {
        let cells = shown.iter().map(|i| cell(&row[*i], widths[*i], *i < columns.left));
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    all().map(line).collect()
}

fn cell(text: &str, width: usize, is_left: bool) -> String {
    let text = console::truncate_str(text, width, "..");
    let gap = " ".repeat(width.saturating_sub(measure(&text)));
    if is_left { format!("{text}{gap}") } else { format!("{gap}{text}") }
}

/// Returns the columns that a text takes on a terminal.
fn measure(text: &str) -> usize {
    console::measure_text_width(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: Columns<3> = Columns { head: ["Paths", "Note", "Size"], left: 2, shortened: &[0], optional: &[1] };

    fn rows(note: &str) -> [[String; 3]; 2] {
        let row = |path: &str, note: &str, size: &str| [path.into(), note.into(), size.into()];
        [row("/home/me/documents/letters", note, "1.0 MiB"), row("/写真", "", "12 B")]
    }

    #[test]
    fn columns_are_aligned_and_wide_characters_count_twice() {
        let lines = lines(&COLUMNS, &rows("a note"), None);
        assert_eq!(lines[0], "Paths                       Note       Size");
        assert_eq!(lines[1], "/home/me/documents/letters  a note  1.0 MiB");
        assert_eq!(lines[2], "/写真                                  12 B");
    }

    #[test]
    fn a_narrow_terminal_shortens_paths_and_empty_columns_are_left_out() {
        let lines = lines(&COLUMNS, &rows(""), Some(24));
        assert_eq!(
            lines,
            [
                "Paths               Size",
                "/home/me/docum..  1.0 MiB".replace("um..", "u..").as_str(),
                "/写真               12 B"
            ]
        );
        assert!(lines.iter().all(|line| measure(line) <= 24), "{lines:?}");
    }
}
