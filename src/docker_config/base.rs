//! The docker config whose entries are carried along: the one file that this layer reads.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{
    document::{Document, LARGEST, Unfit},
    merge::BaseKeys,
    warning::Warning,
};
use crate::fs::read::{ReadError, read_now};

/// A docker config that is an input: links to it are followed, as kubelet makes them.
fn read_input(path: &Path) -> Result<Zeroizing<String>, String> {
    match read_now(path, LARGEST) {
        Ok(mut content) => String::from_utf8(std::mem::take(&mut *content))
            .map(Zeroizing::new)
            .map_err(|_| Unfit::NotText.to_string()),
        Err(error) if error.is_not_found() => Err("it does not exist".to_owned()),
        Err(ReadError::TooLarge { limit }) => Err(Unfit::TooLarge { limit: limit as u64 }.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

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

    /// Reads it again; when it is not usable, what it said last still stands.
    pub(crate) fn refresh(&mut self) -> Option<Warning> {
        let reason = match read_input(&self.path) {
            Ok(text) => match Document::parse(&text) {
                Ok(_) => {
                    self.text = Some(text);
                    return None;
                }
                Err(unfit) => unfit.to_string(),
            },
            Err(reason) => reason,
        };
        Some(Warning::Base { path: self.path.clone(), reason })
    }

    pub(crate) fn document(&self) -> Option<Document<'_>> {
        Document::parse(self.text.as_deref()?).ok()
    }

    /// The keys that it has supplied up to now.
    pub(crate) fn supplied(&self) -> &BaseKeys {
        &self.supplied
    }

    /// Notes that the output now has what it said last, and nothing more of what it said before.
    pub(crate) fn note_supplied(&mut self) {
        if let Some(keys) = self.document().map(|base| BaseKeys::of(&base)) {
            self.supplied = keys;
        }
    }
}
