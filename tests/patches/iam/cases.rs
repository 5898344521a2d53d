//! Who the sidecar is, which files are attached where, and what the consumers of its token ask for.

use ecr_emulator::Attachment::{self, Identity as Of, Repository, Trust};

pub(super) const OURS: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const THEIRS: &str = "999999999999.dkr.ecr.eu-west-1.amazonaws.com";
/// That of `several-accounts/config.yaml`.
pub(super) const BY_ROLE: &str = "999999999999.dkr.ecr.us-east-1.amazonaws.com";

const USER: &str = "arn:aws:iam::123456789012:user/emulated";
pub(super) const ROLE: &str = "arn:aws:iam::123456789012:role/ecr-pull";
pub(super) const THEIR_ROLE: &str = "arn:aws:iam::999999999999:role/ecr-pull";
const THEIR_REPOSITORY: &str = "arn:aws:ecr:eu-west-1:999999999999:repository/app";

/// Method, what it asks the repository for, and the action that this takes.
pub(super) type Call = (&'static str, &'static str, &'static str);
const TAGS: Call = ("GET", "tags/list", "ecr:ListImages");
const RESOLVE: Call = ("HEAD", "manifests/1.0", "ecr:BatchGetImage");
const MANIFEST: Call = ("GET", "manifests/1.0", "ecr:BatchGetImage");
const LAYER_THERE: Call = ("HEAD", "blobs/LAYER", "ecr:BatchCheckLayerAvailability");
const LAYER: Call = ("GET", "blobs/LAYER", "ecr:GetDownloadUrlForLayer");

pub(super) const CONSUMERS: [(&str, &[Call]); 6] = [
    ("kubelet", &[RESOLVE, MANIFEST, LAYER]),
    ("docker, crane, skopeo", &[RESOLVE, MANIFEST, LAYER]),
    // It is in AWS's list of what a pull takes.
    ("a client that checks a layer first", &[MANIFEST, LAYER_THERE, LAYER]),
    ("helm, Argo CD: a version", &[RESOLVE, MANIFEST, LAYER]),
    ("helm, Argo CD: a range of versions", &[TAGS, RESOLVE, MANIFEST, LAYER]),
    ("Flux's image-reflector", &[TAGS, MANIFEST]),
];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    Keys,
    Irsa,
    Pod,
}

/// To what kind of thing, to which, and which files.
type Attached = (fn(String) -> Attachment, &'static str, &'static [&'static str]);

pub(super) struct Case {
    pub(super) identity: Identity,
    pub(super) host: &'static str,
    pub(super) repository: &'static str,
    pub(super) attached: &'static [Attached],
    /// The files among them whose every action is needed here.
    pub(super) exercised: &'static [&'static str],
}

pub(super) const CASES: [Case; 8] = [
    Case {
        identity: Identity::Keys,
        host: OURS,
        repository: "app",
        attached: &[(Of, USER, &["pull-policy.json"])],
        exercised: &["pull-policy.json"],
    },
    Case {
        identity: Identity::Irsa,
        host: OURS,
        repository: "app",
        attached: &[(Trust, ROLE, &["trust-irsa.json"]), (Of, ROLE, &["pull-policy.json"])],
        exercised: &["trust-irsa.json"],
    },
    Case {
        identity: Identity::Pod,
        host: OURS,
        repository: "app",
        attached: &[(Trust, ROLE, &["trust-pod-identity.json"]), (Of, ROLE, &["pull-policy.json"])],
        exercised: &["trust-pod-identity.json"],
    },
    Case {
        identity: Identity::Keys,
        host: OURS,
        repository: "docker-hub/app",
        attached: &[(Of, USER, &["pull-policy.json", "pull-through-cache-policy.json"])],
        exercised: &["pull-through-cache-policy.json"],
    },
    Case {
        identity: Identity::Irsa,
        host: THEIRS,
        repository: "app",
        attached: &[
            (Trust, ROLE, &["trust-irsa.json"]),
            (Of, ROLE, &["pull-policy.json", "cross-account/pull-policy.json"]),
            (Repository, THEIR_REPOSITORY, &["cross-account/repository-policy.json"]),
        ],
        exercised: &["cross-account/pull-policy.json", "cross-account/repository-policy.json"],
    },
    Case {
        identity: Identity::Irsa,
        host: BY_ROLE,
        repository: "app",
        attached: &[
            (Trust, ROLE, &["trust-irsa.json"]),
            (Of, ROLE, &["cross-account/assume-policy.json"]),
            (Trust, THEIR_ROLE, &["cross-account/trust.json"]),
            (Of, THEIR_ROLE, &["pull-policy.json"]),
        ],
        exercised: &[],
    },
    // Only the tags of its sessions need `sts:TagSession`.
    Case {
        identity: Identity::Pod,
        host: BY_ROLE,
        repository: "app",
        attached: &[
            (Trust, ROLE, &["trust-pod-identity.json"]),
            (Of, ROLE, &["cross-account/assume-policy.json"]),
            (Trust, THEIR_ROLE, &["cross-account/trust.json"]),
            (Of, THEIR_ROLE, &["pull-policy.json"]),
        ],
        exercised: &["cross-account/assume-policy.json", "cross-account/trust.json"],
    },
    Case {
        identity: Identity::Keys,
        host: "public.ecr.aws",
        repository: "app",
        attached: &[(Of, USER, &["public-policy.json"])],
        exercised: &["public-policy.json"],
    },
];
