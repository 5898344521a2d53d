//! The docker-config format: what a document holds, and what it should hold. Shared by the file output and the Secrets.
//!
//! `document` and `merge` are pure; `base` reads the file whose entries are carried along.

mod base;
mod document;
mod entry;
mod merge;
mod warning;

pub(crate) use self::{
    base::{Base, BaseContent},
    document::{Document, LARGEST, Unfit, entry_of},
    entry::{auth, is_ecr_token},
    merge::{Merged, creds_store, merge},
};
