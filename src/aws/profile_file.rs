//! The AWS profile files, `~/.aws/config` and `~/.aws/credentials`, as the SDKs define them
//! (<https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>).
//!
//! Read and parsed here rather than by the SDK because that reads whatever the path names without a limit, takes a file
//! that it cannot read for an empty one, and logs lines that it does not understand.
//!
//! Invariants:
//! * A file that is there and cannot be used is an error with its path and the reason, never an empty file
//!   (`a_file_that_cannot_be_used_is_no_empty_file`).
//! * No error shows what stands in a file (`an_error_shows_the_line_number_alone`).
//! * An empty value is none (`an_empty_value_is_none`).

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{
    env::Environment,
    failure::shown_value::clean_path,
    fs::read::{ReadError, read_text},
};

const SIZE_LIMIT: usize = 1 << 20;
const WHITE_SPACE: [char; 2] = [' ', '\t'];

/// The two kinds of file: the section of a profile is `[profile NAME]` in the one and `[NAME]` in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Config,
    Credentials,
}

#[derive(Debug, Clone)]
struct Place {
    kind: Kind,
    path: PathBuf,
    /// The variable that names it; `None` for the usual path, where no file need be.
    variable: Option<&'static str>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProfileFileError {
    #[error("cannot read {}{}: {source}", clean_path(path), named_by(*variable))]
    Read { path: PathBuf, variable: Option<&'static str>, source: ReadError },
    #[error("{}{} is not an AWS profile file: line {line} {what}", clean_path(path), named_by(*variable))]
    Syntax { path: PathBuf, variable: Option<&'static str>, line: usize, what: &'static str },
}

fn named_by(variable: Option<&'static str>) -> String {
    variable.map_or_else(String::new, |variable| format!(" ({variable})"))
}

impl ProfileFileError {
    /// Whether it may be that there is no file at all: a directory of its path is closed to us, as another
    /// user's home is.
    pub fn may_be_absent(&self) -> bool {
        match self {
            Self::Read { path, variable: None, source } if source.is_permission_denied() => {
                path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            }
            _ => false,
        }
    }

    pub fn is_file_limit(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.is_file_limit())
    }

    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.is_not_found())
    }

    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Read { source: ReadError::TimedOut, .. })
    }
}

/// The properties of a section by their lower-case names. A value of several lines holds sub-properties.
#[derive(Clone, Default)]
pub(crate) struct Section(BTreeMap<String, Zeroizing<String>>);

/// Values may be secrets: only the names are shown.
impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Section {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The value of `name` among the sub-properties of `property`, unless it is empty.
    pub(crate) fn sub_property(&self, property: &str, name: &str) -> Option<&str> {
        let lines = self.0.get(property)?.lines();
        let values = lines.filter_map(|line| line.split_once('='));
        let mut of_name = values.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
        of_name.next_back().map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Profiles {
    profiles: BTreeMap<String, Section>,
    /// Sections that are no profiles, by kind and name, such as `sso-session` and `services`.
    others: BTreeMap<(String, String), Section>,
    found: bool,
}

impl Profiles {
    /// Reads both files. Neither has to be there, unless a variable names it.
    pub(crate) async fn read(env: &Environment) -> Result<Self, ProfileFileError> {
        match Self::read_usable(env).await {
            (profiles, None) => Ok(profiles),
            (_, Some(error)) => Err(error),
        }
    }

    /// What can be used of both files, and why the rest cannot. One that may be absent is, if the other is there.
    pub(crate) async fn read_usable(env: &Environment) -> (Self, Option<ProfileFileError>) {
        let mut profiles = Self::default();
        let mut errors = Vec::new();
        // One after the other: a second thread would cost more than what it saves.
        for place in places(env) {
            errors.extend(profiles.add_file(place).await.err());
        }
        errors.retain(|error| !(profiles.found && error.may_be_absent()));
        // The error about the one that certainly exists is more useful.
        errors.sort_by_key(ProfileFileError::may_be_absent);
        (profiles, errors.into_iter().next())
    }

    async fn add_file(&mut self, place: Place) -> Result<(), ProfileFileError> {
        let text = read(&place).await?;
        self.found |= text.is_some();
        let Place { kind, path, variable } = place;
        let syntax = |(line, what)| ProfileFileError::Syntax { path, variable, line, what };
        self.add(kind, &text.unwrap_or_default()).map_err(syntax)
    }

    pub(crate) fn profile(&self, name: &str) -> Option<&Section> {
        self.profiles.get(name)
    }

    pub(crate) fn section(&self, kind: &str, name: &str) -> Option<&Section> {
        self.others.get(&(kind.to_owned(), name.to_owned()))
    }

    #[cfg(test)]
    pub(crate) fn of_texts(config: &str, credentials: &str) -> Result<Self, (usize, &'static str)> {
        let mut profiles = Self::default();
        profiles.add(Kind::Config, config)?;
        profiles.add(Kind::Credentials, credentials)?;
        Ok(profiles)
    }

    /// Lays one file over the others; an error is the number of a line and what is wrong with it.
    fn add(&mut self, kind: Kind, text: &str) -> Result<(), (usize, &'static str)> {
        let mut current: Option<(String, Section)> = None;
        let mut property: Option<String> = None;
        let mut sections = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let invalid = |what| Err((index + 1, what));
            if line.trim().is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(header) = line.strip_prefix('[') {
                let header = header.split(['#', ';']).next().unwrap_or_default().trim();
                let Some(name) = header.strip_suffix(']') else {
                    return invalid("begins a section without `]`");
                };
                sections.extend(current.replace((name.trim().to_owned(), Section::default())));
                property = None;
                continue;
            }
            let Some((_, section)) = &mut current else { return invalid("stands before the first section") };
            if line.starts_with(WHITE_SPACE) {
                let Some(value) = property.as_ref().and_then(|name| section.0.get_mut(name)) else {
                    return invalid("continues no property");
                };
                value.push('\n');
                value.push_str(without_comment(line));
                continue;
            }
            let Some((name, value)) = without_comment(line).split_once('=') else {
                return invalid("has no `=`");
            };
            let name = name.trim().to_ascii_lowercase();
            section.0.insert(name.clone(), Zeroizing::new(value.trim().to_owned()));
            property = Some(name);
        }
        sections.extend(current);
        self.merge(kind, sections);
        Ok(())
    }

    fn merge(&mut self, kind: Kind, sections: Vec<(String, Section)>) {
        // Where there is a `[profile default]`, a `[default]` does not count.
        let is_prefixed_default =
            |name: &str| name.split_whitespace().eq(["profile", "default"]) && kind == Kind::Config;
        let has_prefixed_default = sections.iter().any(|(name, _)| is_prefixed_default(name));
        for (header, section) in sections {
            let target = match (kind, header.split_once(WHITE_SPACE)) {
                (Kind::Config, Some(("profile", name))) => self.profiles.entry(name.trim().to_owned()),
                (Kind::Config, Some((kind, name))) => {
                    let key = (kind.to_owned(), name.trim().to_owned());
                    self.others.entry(key).or_default().0.extend(section.0);
                    continue;
                }
                (Kind::Config, None) if header == "default" && !has_prefixed_default => {
                    self.profiles.entry(header)
                }
                (Kind::Credentials, None) => self.profiles.entry(header),
                _ => continue,
            };
            target.or_default().0.extend(section.0);
        }
    }
}

/// What became of the profile files when they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ProfileFiles {
    #[default]
    Absent,
    /// At least one.
    Read,
    /// At least one cannot be used.
    Unusable { why: String, may_be_absent: bool },
}

impl ProfileFiles {
    pub(crate) fn of((profiles, error): &(Profiles, Option<ProfileFileError>)) -> Self {
        match error {
            Some(error) => Self::Unusable { why: error.to_string(), may_be_absent: error.may_be_absent() },
            None if profiles.found => Self::Read,
            None => Self::Absent,
        }
    }

    /// Whether there are none, for all that can be seen.
    pub fn may_be_absent(&self) -> bool {
        matches!(self, Self::Absent | Self::Unusable { may_be_absent: true, .. })
    }
}

/// Whether the profile file `path`, if it is one, can be used.
pub(crate) async fn check(path: &Path, env: &Environment) -> Result<(), ProfileFileError> {
    match places(env).into_iter().find(|place| place.path == path) {
        Some(place) => Profiles::default().add_file(place).await,
        None => Ok(()),
    }
}

/// `line` without a comment that white space sets off, and without white space around it.
fn without_comment(line: &str) -> &str {
    let is_comment = |(index, _): &(usize, &str)| line[..*index].ends_with(char::is_whitespace);
    let comment = line.match_indices(['#', ';']).find(is_comment);
    comment.map_or(line, |(index, _)| &line[..index]).trim()
}

/// The paths of the files: `AWS_CONFIG_FILE` and `AWS_SHARED_CREDENTIALS_FILE`, else those in `~/.aws`.
pub(crate) fn paths(env: &Environment) -> Vec<PathBuf> {
    places(env).into_iter().map(|place| place.path).collect()
}

fn places(env: &Environment) -> Vec<Place> {
    let home = env.get("HOME").map(Path::new);
    let place = |kind, variable, name: &str| {
        if let Some(path) = env.get(variable) {
            let path = match (path.strip_prefix("~/"), home) {
                (Some(rest), Some(home)) => home.join(rest),
                _ => PathBuf::from(path),
            };
            return Some(Place { kind, path, variable: Some(variable) });
        }
        Some(Place { kind, path: home?.join(".aws").join(name), variable: None })
    };
    // The second one wins where both say something.
    [
        place(Kind::Config, "AWS_CONFIG_FILE", "config"),
        place(Kind::Credentials, "AWS_SHARED_CREDENTIALS_FILE", "credentials"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The text of a file; `None` where none has to be.
async fn read(place: &Place) -> Result<Option<Zeroizing<String>>, ProfileFileError> {
    if place.path == Path::new("/dev/null") {
        return Ok(None); // as one switches a file off
    }
    let source = match read_text(&place.path, SIZE_LIMIT).await {
        Ok(text) => return Ok(Some(text)),
        Err(error) => error,
    };
    let is_absent = matches!(&source, ReadError::Io(error)
        if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory));
    if is_absent && place.variable.is_none() {
        return Ok(None);
    }
    Err(ProfileFileError::Read { path: place.path.clone(), variable: place.variable, source })
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::PermissionsExt};

    use super::*;

    fn get<'a>(profiles: &'a Profiles, profile: &str, name: &str) -> Option<&'a str> {
        profiles.profile(profile)?.get(name)
    }

    #[test]
    fn both_files_are_laid_over_each_other() {
        let config = "# a comment\n[default]\nregion=eu-west-1 ; not this\n[profile  me]\r\nRegion = eu-west-2\r\n\
                      role_arn = a#b\n[profile me]\nx = 1\n[unprefixed]\nregion = r\n";
        let credentials = "[me]\naws_access_key_id = AK\nregion = eu-west-3\n[profile other]\nx = 1\n";
        let profiles = Profiles::of_texts(config, credentials).unwrap();
        assert_eq!(get(&profiles, "default", "region"), Some("eu-west-1"));
        assert_eq!(get(&profiles, "me", "region"), Some("eu-west-3"));
        assert_eq!(get(&profiles, "me", "role_arn"), Some("a#b"));
        assert_eq!(get(&profiles, "me", "x"), Some("1"));
        assert!(profiles.profile("unprefixed").is_none() && profiles.profile("other").is_none());
    }

    #[test]
    fn a_prefixed_default_hides_the_other_one() {
        let profiles = Profiles::of_texts("[default]\na = 1\n[profile default]\nb = 2\n", "").unwrap();
        assert_eq!((get(&profiles, "default", "a"), get(&profiles, "default", "b")), (None, Some("2")));
    }

    #[test]
    fn sections_of_other_kinds_and_sub_properties_are_found() {
        let config = "[sso-session corp]\nsso_region = eu-west-1\n\
                      [services dev]\necr =\n  endpoint_url = http://a\n  ENDPOINT_URL = http://b\nsts =\n  endpoint_url =\n";
        let profiles = Profiles::of_texts(config, "").unwrap();
        let corp = profiles.section("sso-session", "corp").unwrap();
        assert_eq!(corp.get("sso_region"), Some("eu-west-1"));
        let dev = profiles.section("services", "dev").unwrap();
        assert_eq!(dev.sub_property("ecr", "endpoint_url"), Some("http://b"));
        assert_eq!(dev.sub_property("sts", "endpoint_url"), None);
    }

    #[test]
    fn an_empty_value_is_none() {
        let profiles = Profiles::of_texts("", "[a]\naws_session_token =\naws_access_key_id = \t\n").unwrap();
        let section = profiles.profile("a").unwrap();
        assert_eq!((section.get("aws_session_token"), section.get("aws_access_key_id")), (None, None));
    }

    #[test]
    fn an_error_shows_the_line_number_alone() {
        for (text, line) in [
            ("{\"AccessKeyId\": \"hunter2\"}", 1), // another tool's format
            ("[a]\nhunter2", 2),                   // a bare key
            ("\n[hunter2\nx = 1", 2),
            ("[a]\n hunter2", 2),
        ] {
            let (found, what) = Profiles::of_texts("", text).unwrap_err();
            assert_eq!(found, line, "{text}");
            assert!(!what.contains("hunter2"));
        }
        let shown = format!("{:?}", Profiles::of_texts("", "[a]\nkey = hunter2").unwrap());
        assert!(shown.contains("key") && !shown.contains("hunter2"), "{shown}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(config in "(\\[|profile |a|=|#|;| |\t|\n|\\]|\\PC){0,60}", credentials in "[\\x00-\\x7f]{0,80}") {
            let _ = Profiles::of_texts(&config, &credentials);
        }
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_no_empty_file() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config");
        let home = folder.path().join("home").display().to_string();
        let env =
            Environment::from_pairs([("HOME", &*home), ("AWS_CONFIG_FILE", &config.display().to_string())]);
        let reason = async || Profiles::read(&env).await.map(drop).unwrap_err().to_string();
        let text = reason().await; // it is named, and not there
        assert!(text.contains("No such file") && text.contains("(AWS_CONFIG_FILE)"), "{text}");
        std::fs::create_dir(&config).unwrap();
        assert!(reason().await.contains("it is a directory"));
        std::fs::remove_dir(&config).unwrap();
        let put = |content: &[u8]| {
            use std::io::Write;
            std::fs::File::create(&config).unwrap().write_all(content).unwrap();
        };
        put(b"\xff\xfe[\0a\0]\0");
        assert!(reason().await.contains("UTF-16"));
        put(&vec![b'#'; SIZE_LIMIT + 1]);
        assert!(reason().await.contains("larger than the limit"));
        put(b"\xef\xbb\xbf[default]\nregion = eu-west-1\n"); // a byte order mark is none of the content
        let read = Profiles::read(&env).await.unwrap();
        assert_eq!(get(&read, "default", "region"), Some("eu-west-1"));
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o000)).unwrap();
        if !rustix::process::geteuid().is_root() {
            assert!(reason().await.contains("Permission denied"));
        }
    }

    #[tokio::test]
    async fn what_can_be_used_of_two_files_is() {
        let folder = tempfile::tempdir().unwrap();
        let (config, credentials) = (folder.path().join("config"), folder.path().join("credentials"));
        std::fs::File::create(&config).unwrap().write_all(b"[default]\nregion = eu-west-1\n").unwrap();
        let env = |credentials: &str| {
            let config = config.to_str().unwrap();
            let pairs = [("AWS_CONFIG_FILE", config), ("AWS_SHARED_CREDENTIALS_FILE", credentials)];
            Environment::from_pairs(pairs)
        };
        // As one switches a file off.
        let read = Profiles::read(&env("/dev/null")).await.unwrap();
        assert_eq!(get(&read, "default", "region"), Some("eu-west-1"));
        // The settings are those of the file that can be read; an identity that rests on the other one fails.
        std::fs::create_dir(&credentials).unwrap();
        let env = env(credentials.to_str().unwrap());
        let (usable, error) = Profiles::read_usable(&env).await;
        assert_eq!(get(&usable, "default", "region"), Some("eu-west-1"));
        assert!(error.unwrap().to_string().contains("a directory"));
        assert!(Profiles::read(&env).await.is_err());
        let settings = crate::aws::sdk::SdkSettings::load(&env).await.unwrap();
        assert_eq!(settings.region.unwrap().as_str(), "eu-west-1");
        assert!(matches!(settings.profile_files, ProfileFiles::Unusable { may_be_absent: false, .. }));
    }

    #[tokio::test]
    async fn without_files_there_are_no_profiles() {
        for home in ["/nowhere", "/dev/null"] {
            let profiles = Profiles::read(&Environment::from_pairs([("HOME", home)])).await.unwrap();
            assert!(profiles.profile("default").is_none());
        }
        assert!(Profiles::read(&Environment::default()).await.is_ok());
    }
}
