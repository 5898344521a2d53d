//! What does a pull-through cache hold, and what does a pull that fills it need?
//!
//! Below a cache's prefix is what the registry holds without it, as the upstream. The first pull of an image imports
//! it, the first of a repository creates that too; until then the repository isn't there, and has no tags to list:
//! <https://docs.aws.amazon.com/AmazonECR/latest/userguide/pull-through-cache-iam.html>.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use super::permission::Target;
use crate::{locked, reply::Failure};

/// The caches of every registry, and what pulls have brought there.
#[derive(Default)]
pub(crate) struct PullThrough {
    prefixes: Mutex<BTreeSet<String>>,
    /// Tags and digests, by the ARN of the repository.
    imported: Mutex<BTreeMap<String, BTreeSet<String>>>,
    upstream_refuses: AtomicBool,
}

/// A repository below the prefix of a cache, as one request finds it.
pub(crate) struct Cached {
    /// What the upstream calls it.
    pub(crate) upstream: String,
    /// Its tags and digests; none: it isn't there yet.
    pub(crate) references: Option<BTreeSet<String>>,
}

impl PullThrough {
    pub(crate) fn add(&self, prefix: &str) {
        locked(&self.prefixes).insert(format!("{}/", prefix.trim_end_matches('/')));
    }

    /// None when the repository isn't below the prefix of a cache. It may have been created without any pull.
    pub(crate) fn find(&self, repository: &str, arn: &str, is_created: bool) -> Option<Cached> {
        let prefixes = locked(&self.prefixes);
        let upstream = prefixes.iter().find_map(|prefix| repository.strip_prefix(prefix))?.to_owned();
        let references = locked(&self.imported).get(arn).cloned();
        Some(Cached { upstream, references: references.or(is_created.then(BTreeSet::new)) })
    }

    pub(crate) fn refuse_upstream(&self, refuses: bool) {
        self.upstream_refuses.store(refuses, Relaxed);
    }

    /// What an import is answered with while the upstream refuses it, after `UnableToGetUpstreamImageException` of
    /// <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_BatchGetImage.html>: the API's status and
    /// message, in the registry's format.
    pub(crate) fn refusal(&self) -> Option<Failure> {
        self.upstream_refuses.load(Relaxed).then(|| {
            let message = "The image or images were unable to be pulled using the pull through cache rule. This is \
                           usually caused because of an issue with the Secrets Manager secret containing the \
                           credentials for the upstream registry.";
            Failure::new(400, "UNKNOWN", message)
        })
    }

    pub(crate) fn import(&self, arn: String, references: impl IntoIterator<Item = String>) {
        locked(&self.imported).entry(arn).or_default().extend(references);
    }
}

impl Cached {
    /// The actions that filling the cache takes, next to that of the request itself.
    pub(crate) fn actions(&self, target: &Target<'_>) -> &'static [&'static str] {
        match (&self.references, target.manifest) {
            (None, Some(_)) => &["ecr:CreateRepository", "ecr:BatchImportUpstreamImage"],
            (Some(held), Some(wanted)) if !held.contains(wanted) => &["ecr:BatchImportUpstreamImage"],
            _ => &[],
        }
    }
}
