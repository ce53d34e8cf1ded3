//! Objects of a bucket with versions that were deleted (a delete marker hides them) or overwritten (a newer version does), while
//! the store keeps their versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use object_store::{GetOptions, ObjectStore};

use super::EMPTY_PAGES;
use super::body::Call;
use super::client::Client;
use super::errors::fault;
use super::signed::{Ask, encoded};
use super::xml::{either, is_whole, text};
use crate::context::Context;
use crate::error::{Error, Kind};
use crate::name::{Folder, Name};
use crate::storage::net::Fault;
use crate::storage::{Kept, MAX_ENTRIES, Version};

/// Most bytes of an object that is brought back through this machine.
const MOST: u64 = 256 << 20;
/// Most versions of an object that are remembered: the newest one, and the oldest ones, which are the right ones.
const REMEMBERED: usize = 16;

/// The beginning of the next page of a listing of versions: the key and the version.
type Next = Option<(String, String)>;

/// The versions of a folder, as far as they were listed.
#[derive(Default)]
pub struct Versions {
    objects: BTreeMap<Name, Object>,
    names: usize,
    /// Pages without names.
    empty: usize,
    /// A version has an id, which it has only in a bucket that keeps versions.
    pub is_versioned: bool,
    next: Next,
}

#[derive(Default)]
struct Object {
    /// Whether a delete marker is newer than all versions.
    is_hidden: bool,
    /// The delete markers.
    markers: Vec<String>,
    /// The versions, the newest first.
    versions: Vec<Version>,
}

impl Object {
    fn add(&mut self, version: Version) {
        if self.versions.len() == REMEMBERED {
            self.versions.remove(1);
        }
        self.versions.push(version);
    }

    fn kept(mut self, name: Name) -> Option<Kept> {
        self.versions.reverse();
        let kept = Kept { name, is_hidden: self.is_hidden, versions: self.versions, markers: self.markers };
        (!kept.versions.is_empty() && (kept.is_hidden || kept.is_overwritten())).then_some(kept)
    }
}

impl Versions {
    /// Returns whether the listing is complete.
    pub fn is_complete(&self) -> bool {
        self.next.is_none()
    }

    /// Returns the objects that were deleted or overwritten.
    pub fn kept(self) -> Vec<Kept> {
        self.objects.into_iter().filter_map(|(name, object)| object.kept(name)).collect()
    }

    /// Takes a page of a listing. The newest version of an object comes first. The markers may stand elsewhere.
    fn take(&mut self, folder: Folder, start: &str, page: &str) -> Result<(), Error> {
        let before = self.names;
        for (kind, part) in either(page, ["Version", "DeleteMarker"]) {
            self.names += 1;
            let file = text(part, "Key").and_then(|key| Some(key.strip_prefix(start)?.to_owned()));
            let (Some(name), Some(id)) = (file.and_then(|file| folder.parse(&file)), text(part, "VersionId")) else {
                continue;
            };
            let object = self.objects.entry(name).or_default();
            if kind == "DeleteMarker" {
                object.is_hidden |= text(part, "IsLatest").as_deref() == Some("true");
                object.markers.push(id);
            } else if let Some(size) = text(part, "Size").and_then(|size| size.parse().ok()) {
                self.is_versioned |= id != "null";
                object.add(Version { id, size, tag: text(part, "ETag") });
            }
        }
        let next = (text(page, "IsTruncated").as_deref() == Some("true")).then(|| {
            (text(page, "NextKeyMarker").unwrap_or_default(), text(page, "NextVersionIdMarker").unwrap_or_default())
        });
        self.empty += usize::from(self.names == before);
        if next.is_some() && next == self.next || self.names > MAX_ENTRIES || self.empty > EMPTY_PAGES {
            let text = format!("{folder:?} holds more than {MAX_ENTRIES} versions, or their listing does not end");
            return Err(Error::failed(text));
        }
        self.next = next;
        Ok(())
    }
}

impl Client {
    /// Lists the next page of the versions in a folder. A store that does not list versions shows none.
    pub fn versions(&self, ctx: &Context, folder: Folder, so_far: &mut Versions) -> Result<(), Fault> {
        let mut start = self.key(&folder.path());
        if !start.is_empty() && !start.ends_with('/') {
            start.push('/');
        }
        let mut target = format!("?delimiter=%2F&max-keys=1000&prefix={}&versions=", encoded(&start));
        if let Some((key, version)) = &so_far.next {
            target += &format!("&key-marker={}&version-id-marker={}", encoded(key), encoded(version));
        }
        let answer = self.about_versions(ctx, Method::GET, target)?.unwrap_or_default();
        let page = String::from_utf8_lossy(&answer);
        // The name in the documents of AWS, and the one that some stores use.
        if !is_whole(&page, "ListVersionsResult") && !is_whole(&page, "ListVersionResult") {
            so_far.next = None;
            return Ok(());
        }
        so_far.take(folder, &start, &page).map_err(Fault::Final)
    }

    fn about_versions(&self, ctx: &Context, method: Method, target: String) -> Result<Option<Bytes>, Fault> {
        self.ask(ctx, Ask { method, target, body: Bytes::new() }, "look for versions", "of objects")
    }

    /// Removes the delete markers of an object. Returns whether its newest version is visible then.
    pub fn unhide(&self, ctx: &Context, kept: &Kept) -> Result<bool, Fault> {
        let key = encoded(&self.key(&kept.name.path()));
        for marker in &kept.markers {
            let target = format!("/{key}?versionId={}", encoded(marker));
            if self.about_versions(ctx, Method::DELETE, target)?.is_none() {
                return Ok(false);
            }
        }
        match self.size(ctx, &kept.name) {
            Err(Fault::Final(e)) if e.kind() == Kind::Missing => Ok(false),
            size => size.map(|size| kept.versions.last().is_some_and(|newest| newest.size == size)),
        }
    }

    /// Reads a version of an object.
    pub fn version(&self, ctx: &Context, name: &Name, version: &Version) -> Result<Vec<u8>, Fault> {
        let Version { id, size, .. } = version;
        if *size > MOST {
            return Err(Fault::Final(Error::damaged(format!("{name} had {size} bytes, which no object has"))));
        }
        let mut options = GetOptions { version: Some(id.clone()), ..GetOptions::default() };
        options.extensions.insert(Arc::new(Call::new(*size as usize)));
        let path = self.path(name)?;
        let read = async { self.store.get_opts(&path, options).await?.bytes().await };
        let bytes = self.engine.wait(ctx, || {}, read)?.map_err(|e| fault(&e, "read the version of", &name.path()))?;
        if bytes.len() as u64 != *size {
            return Err(Fault::Final(Error::damaged(format!("the version of {name} has {} bytes", bytes.len()))));
        }
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ObjectId;

    fn listed(parts: &[(&str, &str, &str)]) -> Vec<Kept> {
        let key = Name::Key(ObjectId([7; 32])).path();
        let parts = parts.iter().enumerate().map(|(i, (kind, tag, id))| {
            format!(
                "<{kind}><Key>repo/{key}</Key><VersionId>{id}</VersionId><IsLatest>{}</IsLatest><ETag>{tag}</ETag>\
                 <Size>5</Size></{kind}>",
                i == 0
            )
        });
        let mut versions = Versions::default();
        versions.take(Folder::Keys, "repo/keys/", &parts.collect::<String>()).unwrap();
        versions.kept()
    }

    #[test]
    fn deleted_and_overwritten_objects_are_kept_and_equal_versions_are_none() {
        assert!(listed(&[("Version", "a", "null")]).is_empty());
        assert!(listed(&[("Version", "a", "2"), ("Version", "a", "null")]).is_empty());
        assert!(listed(&[("Version", "a", "3"), ("Version", "b", "2"), ("Version", "a", "1")]).is_empty());
        assert!(listed(&[("DeleteMarker", "", "1")]).is_empty(), "no version is left");
        let kept = &listed(&[("Version", "b", "2"), ("DeleteMarker", "", "m"), ("Version", "a", "1")])[0];
        assert!(!kept.is_hidden && kept.is_overwritten() && kept.versions[0].id == "1" && kept.versions[1].id == "2");
        let kept = &listed(&[("DeleteMarker", "", "m"), ("Version", "a", "1")])[0];
        assert!(kept.is_hidden && !kept.is_overwritten() && kept.markers == ["m"]);
        let ids: Vec<String> = (0..40).rev().map(|i| i.to_string()).collect();
        let many: Vec<_> = ids.iter().map(|id| ("Version", &**id, &**id)).collect();
        let kept: Vec<_> = listed(&many)[0].versions.iter().map(|version| version.id.clone()).collect();
        let oldest_and_newest: Vec<String> = (0..15).chain([39]).map(|i| i.to_string()).collect();
        assert_eq!(kept, oldest_and_newest);
    }
}
