//! The environment, read once; tests pass their own.
//!
//! Nothing else in the program reads the process's environment, but for where the API server is (`kubernetes::access`,
//! whose paths need not be Unicode), and the AWS SDK is given what was parsed from here (`aws::sdk`). The exceptions, which
//! the SDK cannot be kept from reading, are checked as they are ([`Environment::raw`]).

use std::{collections::BTreeMap, ffi::OsString};

/// Environment variables. White space around a value does not belong to it, and an empty one counts as unset, as
/// with every AWS tool.
#[derive(Clone, Default)]
pub struct Environment {
    values: BTreeMap<String, String>,
    not_unicode: Vec<String>,
}

impl Environment {
    pub fn of_process() -> Self {
        Self::from_os(std::env::vars_os())
    }

    fn from_os(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            let Ok(name) = name.into_string() else { continue }; // no name that we or the SDK read
            match value.into_string() {
                Ok(value) => drop(environment.values.insert(name, value)),
                Err(_) => environment.not_unicode.push(name),
            }
        }
        environment
    }

    /// For tests.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let values = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { values, not_unicode: Vec::new() }
    }

    /// The value of `name` without the white space around it, unless unset or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.raw(name).map(str::trim).filter(|value| !value.is_empty())
    }

    /// The value of `name` as it is, if it is set at all: what a library sees that reads the variable directly.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The variables that [`get`](Self::get) cannot return: their values are not Unicode.
    pub fn not_unicode(&self) -> &[String] {
        &self.not_unicode
    }

    /// The same with `value` for `name`, as if it were set.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.values.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Whether this process runs in a pod: kubelet sets the variable in each.
    pub fn is_in_a_cluster(&self) -> bool {
        self.get("KUBERNETES_SERVICE_HOST").is_some()
    }

    pub fn names_with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let names = self.values.keys().map(String::as_str);
        names.filter(move |name| name.starts_with(prefix) && self.get(name).is_some())
    }
}

/// Values may be secrets: only the names are shown.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn white_space_around_a_value_is_not_part_of_it_and_empty_is_unset() {
        let env = Environment::from_pairs([("A", " a b \r\n"), ("B", ""), ("C", " \n\t")]);
        assert_eq!(["A", "B", "C", "D"].map(|name| env.get(name)), [Some("a b"), None, None, None]);
        assert_eq!(["B", "D"].map(|name| env.raw(name)), [Some(""), None]);
        assert_eq!(env.names_with_prefix("").collect::<Vec<_>>(), ["A"]);
    }

    #[test]
    fn values_that_are_not_unicode_are_known_by_name() {
        let variables = [("AWS_REGION", b"eu\xff".to_vec()), ("HOME", b"/root".to_vec())];
        let env = Environment::from_os(variables.into_iter().map(|(k, v)| (k.into(), OsString::from_vec(v))));
        assert_eq!(env.not_unicode(), ["AWS_REGION"]);
        assert_eq!([env.get("AWS_REGION"), env.get("HOME")], [None, Some("/root")]);
    }
}
