//! Keeps Amazon ECR credentials fresh in the place the main container reads them.
#![deny(rustdoc::broken_intra_doc_links)]

pub mod credentials;
pub mod output;
pub mod registry;
pub mod secret;
