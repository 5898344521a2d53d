//! The docker config whose entries are carried along: the one file that this layer reads.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use zeroize::Zeroizing;

use super::document::{AUTHS, CRED_HELPERS, Document, LARGEST, MOST_ENTRIES, TOP, Unfit, hash};
use crate::{
    failure::{Warning, diagnosis::Diagnosis},
    fs::read::{ReadError, read_now, within},
};

/// A base is no larger than half of a docker config: with our credentials it still makes one.
const LARGEST_BASE: usize = LARGEST / 2;
const MOST_ENTRIES_OF_BASE: usize = MOST_ENTRIES / 2;

/// A docker config that is an input: links to it are followed, as kubelet makes them.
fn read_input(path: &Path) -> Result<Zeroizing<String>, String> {
    let mut content = read_now(path, LARGEST_BASE).map_err(|error| match error {
        ReadError::TooLarge { limit } => Unfit::TooLarge { limit }.to_string(),
        error if error.is_not_found() => "it does not exist".to_owned(),
        error => error.to_string(),
    })?;
    let text = String::from_utf8(std::mem::take(&mut *content)).map_err(|_| Unfit::NotText.to_string())?;
    let text = Zeroizing::new(text);
    let document = Document::parse(&text).map_err(|unfit| unfit.to_string())?;
    if document.count() > MOST_ENTRIES_OF_BASE {
        return Err(Unfit::TooManyEntries { limit: MOST_ENTRIES_OF_BASE }.to_string());
    }
    drop(document);
    Ok(text)
}

/// What was read of a base, or why it cannot be used; an error when its volume hangs.
pub(crate) type BaseContent = Result<Result<Zeroizing<String>, String>, ReadError>;

/// The file whose entries are carried along, as it was when it could be read last.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    path: PathBuf,
    text: Option<Zeroizing<String>>,
    /// The keys that it has supplied to the output and that may still be there.
    supplied: BaseKeys,
}

impl Base {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, text: None, supplied: BaseKeys::default() }
    }

    /// Reads the file, for at most `limit`.
    pub(crate) async fn read(&self, limit: Duration) -> BaseContent {
        let path = self.path.clone();
        within(limit, &self.path, move || Ok(read_input(&path))).await
    }

    /// Takes what was read; when it is not usable, its last content still counts.
    pub(crate) fn take(&mut self, content: BaseContent) -> Option<Warning> {
        match content.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(text) => self.text = Some(text),
            Err(reason) => return Some(self.unusable(&reason)),
        }
        None
    }

    #[cfg(test)]
    pub(crate) fn read_now(&self) -> BaseContent {
        Ok(read_input(&self.path))
    }

    pub(crate) fn unusable(&self, reason: &str) -> Warning {
        let path = self.path.display();
        let message =
            format!("the base `{path}` is not usable: {reason}; the entries that it had last are kept");
        Warning::new(message, Diagnosis::BaseUnusable)
    }

    pub(crate) fn document(&self) -> Option<Document<'_>> {
        Document::parse(self.text.as_deref()?).ok()
    }

    pub(super) fn supplied(&self) -> &BaseKeys {
        &self.supplied
    }

    #[cfg(test)]
    pub(super) fn of(text: &str, supplied: BaseKeys) -> Self {
        Self { path: PathBuf::new(), text: Some(Zeroizing::new(text.to_owned())), supplied }
    }

    /// Notes that the output now has its current entries, and none that only earlier versions had.
    pub(crate) fn note_supplied(&mut self) {
        if let Some(keys) = self.document().map(|base| BaseKeys::of(&base)) {
            self.supplied = keys;
        }
    }

    /// Notes that the output may have its current entries, and those that earlier versions had.
    pub(crate) fn note_supplied_too(&mut self) {
        if let Some(keys) = self.document().map(|base| BaseKeys::of(&base)) {
            self.supplied.extend(keys);
        }
    }

    /// A base without entries, by which those that it has supplied leave the output.
    pub(crate) fn retired(&self) -> Self {
        let mut retired = self.clone();
        retired.note_supplied_too();
        Self { text: None, ..retired }
    }
}

/// The keys that a base has supplied to the top level and to the two maps, by their hashes: there may be a hundred
/// thousand.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct BaseKeys(HashSet<u64>);

impl BaseKeys {
    pub(super) fn of(base: &Document<'_>) -> Self {
        let maps = [(TOP, &base.top), (AUTHS, &base.auths), (CRED_HELPERS, &base.helpers)];
        Self(
            maps.into_iter()
                .flat_map(|(map, keys)| keys.keys().map(move |key| hash((map, &**key))))
                .collect(),
        )
    }

    fn extend(&mut self, Self(more): Self) {
        self.0.extend(more);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, map: &str, key: &str) -> bool {
        self.0.contains(&hash((map, key)))
    }
}
