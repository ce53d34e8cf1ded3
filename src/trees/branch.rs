//! Pages that are still to be read, with the one check of each page against the row that names it. Every walk over pages
//! of directories and reference lists is made of these.

use crate::error::{Error, Result};
use crate::format::limits::LEVELS;
use crate::format::list::List;
use crate::format::page::{Page, Row};
use crate::format::reference::Ref;

/// A page of a directory that is still to be read, with the row of the page above.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Branch {
    /// The place of the page.
    pub page: Ref,
    /// The first name and the number of entries below it; `None` for a top page, which no row names.
    row: Option<(Vec<u8>, u64)>,
    /// The first name behind it in the directory.
    end: Option<Vec<u8>>,
    /// Upper pages above it in the directory.
    levels: u8,
}

impl Branch {
    /// Returns the branch of a directory's top page.
    pub fn top(page: Ref) -> Self {
        Branch { page, row: None, end: None, levels: 0 }
    }

    /// Returns the branch of row `i` of an upper page, which this branch names.
    pub fn child(&self, rows: &[Row], i: usize) -> Branch {
        let Row { first, count, page } = &rows[i];
        let end = rows.get(i + 1).map_or_else(|| self.end.clone(), |next| Some(next.first.clone()));
        Branch { page: *page, row: Some((first.clone(), *count)), end, levels: self.levels.saturating_add(1) }
    }

    /// Returns the branches of all rows of an upper page, which this branch names.
    pub fn children<'b>(&'b self, rows: &'b [Row]) -> impl DoubleEndedIterator<Item = Branch> + 'b {
        (0..rows.len()).map(|i| self.child(rows, i))
    }

    /// Returns the first name of the page; `None` if only the page itself knows.
    pub fn first(&self) -> Option<&[u8]> {
        self.row.as_ref().map(|(first, _)| first.as_slice())
    }

    /// Returns the entries below the page; `None` if only the page itself knows.
    pub fn count(&self) -> Option<u64> {
        self.row.as_ref().map(|(_, count)| *count)
    }

    /// Returns whether all names of the page come before `name`.
    pub fn is_before(&self, name: &[u8]) -> bool {
        self.end.as_ref().is_some_and(|end| end.as_slice() <= name)
    }

    /// Fails unless the page matches the row of the page above.
    pub fn check(&self, page: &Page) -> Result<()> {
        let row = self.row.as_ref().is_none_or(|(first, count)| first == page.first() && *count == page.count());
        let end = self.end.as_ref().is_none_or(|end| page.last() < end.as_slice());
        let levels = matches!(page, Page::Leaf(_)) || usize::from(self.levels) < LEVELS;
        if row && end && levels {
            Ok(())
        } else {
            Err(Error::damaged("a page of a directory is not the one that the page above names"))
        }
    }
}

/// A page of a reference list that is still to be read, with the row of the page above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListBranch {
    /// The place of the page.
    pub list: Ref,
    /// Bytes of the file that it covers.
    pub span: u64,
    /// Upper pages above it in the list.
    levels: u8,
}

impl ListBranch {
    /// Returns the branch of the top page of a file of `size` bytes.
    pub fn top(list: Ref, size: u64) -> Self {
        ListBranch { list, span: size, levels: 0 }
    }

    /// Returns the branch of a row of an upper page, which this branch names.
    pub fn child(&self, row: &(u64, Ref)) -> ListBranch {
        ListBranch { list: row.1, span: row.0, levels: self.levels.saturating_add(1) }
    }

    /// Fails unless the page covers as many bytes as the row of the page above.
    pub fn check(&self, list: &List) -> Result<()> {
        let levels = matches!(list, List::Leaf(_)) || usize::from(self.levels) < LEVELS;
        if levels && list.span() == self.span {
            Ok(())
        } else {
            Err(Error::damaged("a reference list does not cover what it is said to cover"))
        }
    }
}

/// A decoded page, as a reader keeps it.
pub trait HasPage {
    /// Returns the page.
    fn page(&self) -> &Page;
}

impl HasPage for Page {
    fn page(&self) -> &Page {
        self
    }
}

/// A node in the leaf that holds it.
pub struct Spot<P> {
    /// The leaf.
    pub leaf: P,
    /// The place of the node in the leaf.
    pub index: usize,
    /// Entries of the directory before the node.
    pub position: u64,
}

/// The entry of a directory to look for.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'n> {
    /// The entry of this name.
    Name(&'n [u8]),
    /// The entry with this number of entries before it.
    Position(u64),
}

impl Wanted<'_> {
    /// Returns the row of a page, with `before` entries before it, that leads to the entry; `None`: there is no such entry.
    fn row(&self, page: &Page, before: u64) -> Option<usize> {
        match (self, page) {
            (Wanted::Name(name), Page::Leaf(nodes)) => nodes.binary_search_by(|n| n.name.as_slice().cmp(name)).ok(),
            (Wanted::Name(name), Page::Upper(rows)) => {
                rows.partition_point(|row| row.first.as_slice() <= *name).checked_sub(1)
            }
            (Wanted::Position(at), Page::Leaf(nodes)) => {
                usize::try_from(at.checked_sub(before)?).ok().filter(|i| *i < nodes.len())
            }
            (Wanted::Position(at), Page::Upper(rows)) => {
                let mut end = before;
                rows.iter().position(|row| {
                    end = end.saturating_add(row.count);
                    *at < end
                })
            }
        }
    }
}

/// Goes from the top page of a directory down to one entry, with one page a level. `None`: there is no such entry.
pub fn descend<P: HasPage, E: From<Error>>(
    top: Ref,
    wanted: Wanted<'_>,
    read: impl Fn(&Branch) -> Result<P, E>,
) -> Result<Option<Spot<P>>, E> {
    let (mut branch, mut before) = (Branch::top(top), 0u64);
    loop {
        let leaf = read(&branch)?;
        branch.check(leaf.page())?;
        let Some(index) = wanted.row(leaf.page(), before) else { return Ok(None) };
        let rows = match leaf.page() {
            Page::Leaf(_) => return Ok(Some(Spot { leaf, index, position: before.saturating_add(index as u64) })),
            Page::Upper(rows) => rows,
        };
        before = rows[..index].iter().fold(before, |sum, row| sum.saturating_add(row.count));
        branch = branch.child(rows, index);
    }
}
