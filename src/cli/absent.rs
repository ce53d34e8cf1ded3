//! Names the mount point of a repository whose disk seems not to be mounted.

use super::escape;
use crate::error::{Error, Kind};
use crate::mounts::{self, AbsentDisk};
use crate::storage::Storage;

/// Returns an error without a hint if the folder of the repository is below a mount point at which nothing is mounted.
pub fn absent_disk(storage: &dyn Storage) -> Option<Error> {
    let why = match storage.local_path().and_then(mounts::absent_disk)? {
        AbsentDisk::Named { place, file } => {
            let [place, file] = [place, file].map(|path| escape::path(&path));
            format!("{file} names the mount point {place}, and nothing is mounted there")
        }
        AbsentDisk::Removable => "no disk is mounted at it or above it".to_owned(),
    };
    let text = format!("the disk of {} seems not to be mounted: {why}", escape::text(storage.address().as_bytes()));
    Some(Error::new(Kind::NoRepository, text))
}
