//! What the refreshers publish and the outputs read.
//!
//! A [`Token`] is one answer of AWS; a [`CredentialSet`] binds tokens to registry hosts. One token serves
//! many hosts and is shared, never copied, so that 1,000 registries cost one password in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use crate::{registry::RegistryHost, secret::Secret};

/// What `GetAuthorizationToken` returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Padded base64 of `AWS:<password>`: already the `auth` value of a docker config.
    pub auth: Secret<String>,
    /// When we asked for it.
    pub obtained_at: SystemTime,
    /// When AWS says it ends.
    pub expires_at: SystemTime,
}

/// The newest token of every registry that has had one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialSet {
    /// Registries that have a token. It stays here after its expiry, until a newer one exists.
    pub current: BTreeMap<RegistryHost, Arc<Token>>,
    /// Registries that a configuration of this process once named and the running one does not: their
    /// entries leave the outputs.
    pub retired: BTreeSet<RegistryHost>,
}
