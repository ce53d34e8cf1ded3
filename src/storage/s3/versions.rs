//! Deleted objects of a bucket with versions: a delete marker hides them, and the store keeps their versions.

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
use crate::storage::{Kept, MAX_ENTRIES};

/// Most bytes of an object that is brought back through this machine.
const MOST: u64 = 256 << 20;

/// The beginning of the next page of a listing of versions: the key and the version.
type Next = Option<(String, String)>;

/// The versions of a folder, as far as they were listed.
#[derive(Default)]
pub struct Versions {
    objects: BTreeMap<Name, Object>,
    names: usize,
    /// Pages without names.
    empty: usize,
    next: Next,
}

#[derive(Default)]
struct Object {
    /// Whether a delete marker is newer than all versions.
    is_hidden: bool,
    /// The delete markers.
    markers: Vec<String>,
    /// The id and the size of the newest version.
    version: Option<(String, u64)>,
}

impl Versions {
    /// Returns whether the listing is complete.
    pub fn is_complete(&self) -> bool {
        self.next.is_none()
    }

    /// Returns the deleted objects of which a version is kept.
    pub fn kept(self) -> Vec<Kept> {
        let hidden = self.objects.into_iter().filter(|(_, object)| object.is_hidden);
        let kept = hidden.filter_map(|(name, Object { markers, version, .. })| {
            let (version, size) = version?;
            Some(Kept { name, size, version, markers })
        });
        kept.collect()
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
            } else if object.version.is_none() {
                object.version = text(part, "Size").and_then(|size| Some((id, size.parse().ok()?)));
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

    /// Removes the delete markers of an object. Returns whether the object is there then.
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
            size => size.map(|size| size == kept.size),
        }
    }

    /// Reads a version.
    pub fn version(&self, ctx: &Context, kept: &Kept) -> Result<Bytes, Fault> {
        let Kept { name, size, version, .. } = kept;
        if *size > MOST {
            return Err(Fault::Final(Error::damaged(format!("{name} had {size} bytes, which no object has"))));
        }
        let mut options = GetOptions { version: Some(version.clone()), ..GetOptions::default() };
        options.extensions.insert(Arc::new(Call::new(*size as usize)));
        let path = self.path(name)?;
        let read = async { self.store.get_opts(&path, options).await?.bytes().await };
        let bytes = self.engine.wait(ctx, || {}, read)?.map_err(|e| fault(&e, "read the version of", &name.path()))?;
        if bytes.len() as u64 != *size {
            return Err(Fault::Final(Error::damaged(format!("the version of {name} has {} bytes", bytes.len()))));
        }
        Ok(bytes)
    }
}
