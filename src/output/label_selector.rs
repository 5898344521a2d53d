//! Label selectors, parsed as the API server does (`labels.Parse` of apimachinery), so that one that it would reject is
//! known before anything starts.

use std::str::FromStr;

/// A label selector such as `ecr=enabled,team in (a, b)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSelector {
    text: String,
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Missing,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error(
        "a label selector: requirements such as ecr=enabled, team in (a,b), tier!=test, ecr or !legacy, separated by commas"
    )]
    Syntax,
    #[error(
        "label keys of at most 63 letters, digits, `-`, `_` and `.`, with a DNS subdomain and `/` before them if needed"
    )]
    Key,
    #[error(
        "label values of at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends"
    )]
    Value,
}

impl LabelSelector {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Key, operator and values of each requirement, as `matchExpressions` has them; `None` if one compares numbers,
    /// for which it has no operator.
    pub(crate) fn match_expressions(&self) -> Option<Vec<(&str, &'static str, &[String])>> {
        let expression = |requirement| {
            let Requirement { key, test }: &Requirement = requirement;
            let (operator, values) = match test {
                Test::Exists => ("Exists", [].as_slice()),
                Test::Missing => ("DoesNotExist", [].as_slice()),
                Test::In(values) => ("In", values.as_slice()),
                Test::NotIn(values) => ("NotIn", values.as_slice()),
                Test::Above(_) | Test::Below(_) => return None,
            };
            Some((key.as_str(), operator, values))
        };
        self.requirements.iter().map(expression).collect()
    }

    /// Whether an object with these labels, and no others, is selected.
    pub fn matches(&self, labels: &[(&str, &str)]) -> bool {
        self.requirements.iter().all(|Requirement { key, test }| {
            let value = labels.iter().find(|(name, _)| name == key).map(|(_, value)| *value);
            let number = || value.and_then(|value| value.parse::<i64>().ok());
            match test {
                Test::Exists => value.is_some(),
                Test::Missing => value.is_none(),
                Test::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
                Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
                Test::Above(limit) => number().is_some_and(|number| number > *limit),
                Test::Below(limit) => number().is_some_and(|number| number < *limit),
            }
        })
    }
}

impl FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        // It goes into a URL.
        if text.len() > 1024 || text.contains(char::is_control) {
            return Err(SelectorError::Syntax);
        }
        let mut parser = Parser { tokens: tokens(text), next: 0 };
        let mut requirements = Vec::new();
        loop {
            requirements.push(parser.requirement()?);
            match parser.take() {
                None => return Ok(Self { text: text.to_owned(), requirements }),
                Some(",") => {}
                Some(_) => return Err(SelectorError::Syntax),
            }
        }
    }
}

/// Operators and what stands between them and white space.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' | ',' | '>' | '<' => 1,
            '=' | '!' if rest[1..].starts_with('=') => 2,
            '=' | '!' => 1,
            _ => rest.find(|c: char| c.is_whitespace() || "()=!<>,".contains(c)).unwrap_or(rest.len()),
        };
        let (token, behind) = rest.split_at(length);
        tokens.push(token);
        rest = behind.trim_start();
    }
    tokens
}

fn is_word(token: &str) -> bool {
    !token.starts_with(['(', ')', '=', '!', '<', '>', ','])
}

struct Parser<'a> {
    tokens: Vec<&'a str>,
    next: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.next).copied()
    }

    fn take(&mut self) -> Option<&'a str> {
        let token = self.peek()?;
        self.next += 1;
        Some(token)
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = self.peek() == Some("!");
        if negated {
            self.take();
        }
        let key = self.take().filter(|token| is_word(token)).ok_or(SelectorError::Syntax)?;
        if !is_key(key) {
            return Err(SelectorError::Key);
        }
        let ends = self.peek().is_none_or(|token| token == ",");
        let test = match (negated, ends) {
            (true, true) => Test::Missing,
            (false, true) => Test::Exists,
            (true, false) => return Err(SelectorError::Syntax),
            (false, false) => self.test()?,
        };
        Ok(Requirement { key: key.to_owned(), test })
    }

    fn test(&mut self) -> Result<Test, SelectorError> {
        match self.take() {
            Some("=" | "==") => Ok(Test::In(vec![self.value()?])),
            Some("!=") => Ok(Test::NotIn(vec![self.value()?])),
            Some("in") => Ok(Test::In(self.values()?)),
            Some("notin") => Ok(Test::NotIn(self.values()?)),
            Some(">") => Ok(Test::Above(self.number()?)),
            Some("<") => Ok(Test::Below(self.number()?)),
            _ => Err(SelectorError::Syntax),
        }
    }

    /// A value; none is the empty one.
    fn value(&mut self) -> Result<String, SelectorError> {
        let value = match self.peek() {
            Some(token) if is_word(token) => self.take().unwrap_or_default(),
            _ => "",
        };
        if is_value(value) { Ok(value.to_owned()) } else { Err(SelectorError::Value) }
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        if self.take() != Some("(") {
            return Err(SelectorError::Syntax);
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            match self.take() {
                Some(",") => {}
                Some(")") => return Ok(values),
                _ => return Err(SelectorError::Syntax),
            }
        }
    }

    fn number(&mut self) -> Result<i64, SelectorError> {
        self.value()?.parse().map_err(|_| SelectorError::Value)
    }
}

fn is_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let is_label = |label: &str| {
        is_value(label) && !label.is_empty() && !label.contains(|c: char| c.is_ascii_uppercase() || c == '_')
    };
    !name.is_empty()
        && is_value(name)
        && prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_label))
}

fn is_value(value: &str) -> bool {
    let is_inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let ends_well = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    bytes.len() <= 63
        && bytes.iter().copied().all(is_inner)
        && ends_well(bytes.first())
        && ends_well(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdicts of `labels.Parse` (apimachinery 1.33), which the API server calls.
    #[test]
    fn it_is_the_grammar_of_the_api_server() {
        for good in [
            "ecr=enabled",
            "ecr==enabled",
            " ecr = enabled ",
            "ecr=enabled,team in (a, b),!legacy",
            "argocd.argoproj.io/secret-type=repository",
            "a!=b",
            "a notin (b,c)",
            "a",
            "!a",
            "! a",
            "a=",
            "a in ()",
            "a in (,b)",
            "a in(b)",
            "in in (in)",
            "a>1",
            "a < 2",
            "a,b",
        ] {
            assert_eq!(good.parse::<LabelSelector>().map(|it| it.text), Ok(good.to_owned()));
        }
        let (long_key, long_value) = ("k".repeat(64), format!("k={}", "v".repeat(64)));
        for (bad, error) in [
            ("", SelectorError::Syntax),
            (" ", SelectorError::Syntax),
            (",", SelectorError::Syntax),
            ("a=b,", SelectorError::Syntax),
            (",a=b", SelectorError::Syntax),
            ("a=b c=d", SelectorError::Syntax),
            ("a=b=c", SelectorError::Syntax),
            ("a b", SelectorError::Syntax),
            ("=b", SelectorError::Syntax),
            ("a in b", SelectorError::Syntax),
            ("a in (b", SelectorError::Syntax),
            ("a in (b c)", SelectorError::Syntax),
            ("a in b)", SelectorError::Syntax),
            ("!a=b", SelectorError::Syntax),
            ("!!a", SelectorError::Syntax),
            ("(a)", SelectorError::Syntax),
            ("a=b\nc=d", SelectorError::Syntax),
            ("a === b", SelectorError::Syntax),
            ("-a", SelectorError::Key),
            ("A.B/c=d", SelectorError::Key),
            ("a/b/c", SelectorError::Key),
            ("/a", SelectorError::Key),
            ("a/=b", SelectorError::Key),
            ("a&limit", SelectorError::Key),
            (&long_key, SelectorError::Key),
            ("a=b&limit=1", SelectorError::Value),
            ("a=\"b\"", SelectorError::Value),
            ("a=-b", SelectorError::Value),
            ("a=b/c", SelectorError::Value),
            ("a>x", SelectorError::Value),
            ("a>", SelectorError::Value),
            (&long_value, SelectorError::Value),
        ] {
            assert_eq!(bad.parse::<LabelSelector>().err(), Some(error), "{bad}");
        }
    }

    #[test]
    fn it_selects_by_labels() {
        let labels = [("type", "repo-creds"), ("tier", "7")];
        for selecting in [
            "type",
            "type=repo-creds",
            "type in (a,repo-creds)",
            "type!=a",
            "x!=a",
            "!x",
            "x notin (a)",
            "tier>6",
            "tier<8,type",
        ] {
            assert!(selecting.parse::<LabelSelector>().unwrap().matches(&labels), "{selecting}");
        }
        for passing_over in
            ["!type", "type=a", "x", "type notin (repo-creds)", "tier>7", "type<1", "type,x=y"]
        {
            assert!(!passing_over.parse::<LabelSelector>().unwrap().matches(&labels), "{passing_over}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a-c=!<>(), \u{e4}\\-]{0,24}|\\PC{0,24}") {
            if let Ok(selector) = text.parse::<LabelSelector>() {
                selector.matches(&[("a", "b")]);
            }
        }
    }
}
