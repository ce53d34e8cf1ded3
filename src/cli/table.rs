//! A table of text: columns as wide as their widest cell, the first ones to the left, the others to the right.

use super::output::Output;
use crate::error::Result;

/// Prints rows below a head; the first `left` columns are aligned to the left.
pub fn print<const N: usize>(out: &mut Output, head: [&str; N], rows: &[[String; N]], left: usize) -> Result<()> {
    let head = head.map(String::from);
    let all = || std::iter::once(&head).chain(rows);
    let widths: Vec<usize> = (0..N).map(|i| all().map(|r| width(&r[i])).max().unwrap_or(0)).collect();
    for row in all() {
        let cells = row.iter().zip(&widths).enumerate().map(|(i, (cell, most))| {
            let gap = " ".repeat(most - width(cell));
            if i < left { format!("{cell}{gap}") } else { format!("{gap}{cell}") }
        });
        out.line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn width(text: &str) -> usize {
    text.chars().count()
}
