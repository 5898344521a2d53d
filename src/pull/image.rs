//! Which image: `HOST/REPOSITORY[:TAG][@DIGEST]`.

use std::{fmt, str::FromStr};

use crate::{
    failure::shown_value::quoted,
    registry::{Invalid, RegistryHost},
};

/// The longest name of a repository that ECR has.
const LONGEST_REPOSITORY: usize = 256;
const LONGEST_TAG: usize = 128;

/// An image, or all images of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageRef {
    pub(crate) host: RegistryHost,
    pub(crate) repository: String,
    /// A tag or a digest.
    pub(crate) reference: Option<String>,
}

/// Why a text names no image. It is not shown whole: it may be a credential.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("{0} names no repository: expected HOST/REPOSITORY[:TAG]")]
    NoRepository(String),
    #[error(transparent)]
    Host(#[from] Invalid),
    #[error("{0} is not the name of a repository: {1}")]
    Repository(String, NoRepository),
    #[error("{0} is not a tag: {1}")]
    Tag(String, NoTag),
    #[error("{0} is not a digest: expected sha256: and 64 hexadecimal digits")]
    Digest(String),
}

/// The name of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository(String);

/// Displays as what a repository's name is.
#[derive(Debug, thiserror::Error)]
#[error("lower-case letters, digits, and . _ - / between them")]
pub(crate) struct NoRepository;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag(String);

/// Displays as what a tag is.
#[derive(Debug, thiserror::Error)]
#[error("up to 128 letters, digits, and _ . -, the last two not at the beginning")]
pub(crate) struct NoTag;

impl FromStr for Repository {
    type Err = NoRepository;

    fn from_str(text: &str) -> Result<Self, NoRepository> {
        is_repository(text).then(|| Self(text.to_owned())).ok_or(NoRepository)
    }
}

impl FromStr for Tag {
    type Err = NoTag;

    fn from_str(text: &str) -> Result<Self, NoTag> {
        is_tag(text).then(|| Self(text.to_owned())).ok_or(NoTag)
    }
}

impl ImageRef {
    pub(crate) fn new(host: RegistryHost, Repository(repository): Repository, tag: Option<Tag>) -> Self {
        Self { host, repository, reference: tag.map(|Tag(tag)| tag) }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, repository, reference } = self;
        write!(f, "{host}/{repository}")?;
        match reference {
            Some(digest) if is_digest(digest) => write!(f, "@{digest}"),
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

impl FromStr for ImageRef {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let bare = text.strip_prefix("oci://").unwrap_or(text);
        let (host, rest) = bare.split_once('/').ok_or_else(|| ImageError::NoRepository(quoted(text)))?;
        let host = host.parse()?;
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (rest, None),
        };
        let (repository, tag) = match name.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (name, None),
        };
        if !is_repository(repository) {
            return Err(ImageError::Repository(quoted(repository), NoRepository));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ImageError::Tag(quoted(tag), NoTag));
        }
        if let Some(digest) = digest.filter(|digest| !is_digest(digest)) {
            return Err(ImageError::Digest(quoted(digest)));
        }
        let reference = digest.or(tag).map(str::to_owned);
        Ok(Self { host, repository: repository.to_owned(), reference })
    }
}

/// As the distribution specification has it; a part is letters and digits with one separator between two of them.
fn is_repository(text: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        ends.iter().all(|end| end.is_some_and(|byte| is_alphanumeric(*byte)))
            && bytes.iter().all(|byte| is_alphanumeric(*byte) || b"._-".contains(byte))
            && !["..", "._", "_.", ".-", "-.", "_-", "-_", "___"].iter().any(|pair| part.contains(pair))
    };
    text.len() <= LONGEST_REPOSITORY && text.split('/').all(is_part)
}

pub(super) fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || b".-".contains(&byte))
}

/// Also what a manifest names: it goes into a path.
pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

    #[test]
    fn images_are_named_as_consumers_name_them() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, repository, reference) in [
            ("team/app", "team/app", None),
            ("app:v1.2-rc_1", "app", Some("v1.2-rc_1".to_owned())),
            (&*format!("a__b/c--d@{digest}"), "a__b/c--d", Some(digest.clone())),
            (&*format!("app:v1@{digest}"), "app", Some(digest.clone())),
        ] {
            for scheme in ["", "oci://"] {
                let image: ImageRef = format!("{scheme}{HOST}/{text}").parse().unwrap();
                assert_eq!(image.to_string().parse::<ImageRef>().unwrap(), image);
                assert_eq!(
                    (image.host.as_str(), &*image.repository, image.reference),
                    (HOST, repository, reference.clone())
                );
            }
        }
    }

    #[test]
    fn anything_else_is_an_error_with_what_is_expected() {
        for (text, expected) in [
            (HOST.to_owned(), "expected HOST/REPOSITORY"),
            (format!("{HOST}/"), "not the name of a repository"),
            (format!("{HOST}/Team/app"), "not the name of a repository"),
            (format!("{HOST}/a/../b"), "not the name of a repository"),
            (format!("{HOST}/a?b"), "not the name of a repository"),
            (format!("{HOST}/app:"), "not a tag"),
            (format!("{HOST}/app:-1"), "not a tag"),
            (format!("{HOST}/app@sha256:00"), "not a digest"),
            (format!("https://{HOST}/app"), "https"),
        ] {
            let error = text.parse::<ImageRef>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
