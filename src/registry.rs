//! Which registry a host name means: its syntax, and the account, region and partition in it.
//!
//! A [`RegistryHost`] is the key of everything else: of tokens, of entries in outputs, of metrics. It is
//! parsed once, at the edge, and is then known to be bare and lower-case; [`RegistryHost::location`] reads
//! it against the one table of AWS partitions, in `partition`.
//!
//! Invariants:
//! * parsing what was displayed gives the same host: `display_parses_back`
//! * case is folded: `case_is_folded`
//! * everything but a bare host is rejected, each kind with its own sentence: `rejections`
//! * every row of the partition table is recognised: `every_row_is_recognised`
//! * no host with a foreign suffix is a private registry: `a_foreign_suffix_is_never_private`, `evil_twins_are_other`
//!
//! It does not resolve names, and does not guess a region that is not in the host.

mod error;
mod partition;
#[cfg(test)]
mod tests;

use std::{
    borrow::Borrow,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

pub(crate) use error::Invalid;
pub(crate) use partition::Partition;

/// A registry host as it appears in image references: lower-case, perhaps with a port, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryHost(Arc<str>);

impl RegistryHost {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the host names, by the partition table.
    ///
    /// A host with a port, a VPC endpoint, a proxied name and a suffix that the table does not have are
    /// [`Location::Other`]: their region has to be configured.
    pub fn location(&self) -> Location {
        if partition::PUBLIC_HOSTS.contains(&self.as_str()) {
            return Location::Public;
        }
        self.private().map_or(Location::Other, Location::Private)
    }

    /// Whether this is the host of Amazon ECR Public that answers on IPv6 as well as on IPv4.
    pub fn is_dual_stack_public(&self) -> bool {
        self.as_str() == partition::PUBLIC_HOSTS[1]
    }

    /// Why a [`Location::Other`] host is not taken for the ECR registry that it resembles; `None` when it
    /// resembles none, or is one.
    pub fn looks_like_ecr(&self) -> Option<String> {
        if self.location() != Location::Other {
            return None;
        }
        let (name, port) = split_port(self.as_str());
        if port.is_some() && Self(name.into()).location() != Location::Other {
            return Some(format!(
                "looks like the ECR host `{name}`, but has a port: leave the port away, or set its region"
            ));
        }
        let EcrShape { account, region: found, suffix, .. } = EcrShape::split(name)?;
        if account.parse::<AccountId>().is_err() {
            return Some(format!(
                "looks like an ECR host, but the account `{account}` is not twelve digits: \
                 fix the name, or set its region"
            ));
        }
        let Ok(region) = found.parse::<Region>() else {
            return Some(format!(
                "looks like an ECR host, but `{found}` is not a region: fix the name, or set its region"
            ));
        };
        Some(if partition::TABLE.iter().any(|row| row.has_suffix(suffix)) {
            format!(
                "looks like an ECR host, but the suffix `{suffix}` does not belong to the region `{region}`: \
                 fix the name, or set its region"
            )
        } else {
            format!(
                "looks like an ECR host in `{region}`, but the suffix `{suffix}` is not known: set its region"
            )
        })
    }

    fn private(&self) -> Option<PrivateRegistry> {
        let shape = EcrShape::split(&self.0)?;
        let account = shape.account.parse().ok()?;
        let region: Region = shape.region.parse().ok()?;
        let row = partition::TABLE
            .iter()
            .find(|row| row.has_region(&region) && row.suffixes(shape.dual_stack).contains(&shape.suffix))?;
        Some(PrivateRegistry {
            account,
            region,
            partition: row.partition,
            fips: shape.fips,
            dual_stack: shape.dual_stack,
        })
    }
}

impl FromStr for RegistryHost {
    type Err = Invalid;

    fn from_str(found: &str) -> Result<Self, Invalid> {
        error::reject_more_than_a_host(found)?;
        if found.len() > MAX_NAME + ":65535".len() {
            return Err(too_long(found));
        }
        let folded = found.to_ascii_lowercase();
        let (name, port) = split_port(&folded);
        if let Some(port) = port {
            check_port(&folded, name, port)?;
        }
        check_name(&folded, name)?;
        Ok(Self(folded.into()))
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Equality, order and hash are those of the text, so that a map can be asked by text.
impl Borrow<str> for RegistryHost {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A private registry, named in full by its host.
    Private(PrivateRegistry),
    /// Amazon ECR Public. Its API is in `us-east-1` of the partition `aws` alone.
    Public,
    /// Any other name: its region has to be configured.
    Other,
}

/// The parts of `ACCOUNT.dkr.ecr[-fips].REGION.SUFFIX`, or of its dual-stack form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateRegistry {
    pub account: AccountId,
    /// Where the registry is, and where its token has to come from.
    pub region: Region,
    pub partition: Partition,
    pub fips: bool,
    /// The host answers on IPv6 as well as on IPv4.
    pub dual_stack: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region(Arc<str>);

impl Region {
    /// The region of ECR Public's API, and of much else that AWS calls global.
    pub fn us_east_1() -> Self {
        Self("us-east-1".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn partition(&self) -> Option<Partition> {
        partition::TABLE.iter().find(|row| row.has_region(self)).map(|row| row.partition)
    }
}

impl FromStr for Region {
    type Err = Invalid;

    /// Takes `[a-z]{2,}(-[a-z]+)+-[0-9]+`, and no region by its name alone: new ones come every year.
    fn from_str(found: &str) -> Result<Self, Invalid> {
        let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
        let well_formed = found.len() <= 63
            && found.rsplit_once('-').is_some_and(|(words, number)| {
                let mut words = words.split('-');
                !number.is_empty()
                    && number.bytes().all(|b| b.is_ascii_digit())
                    && words.next().is_some_and(|first| first.len() >= 2 && word(first))
                    && words.next().is_some_and(word)
                    && words.all(word)
            });
        let reason =
            "is not an AWS region: write one like `eu-west-1`, in lower case and without a zone letter";
        if well_formed { Ok(Self(found.into())) } else { Err(Invalid::new(found, reason)) }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An AWS account: twelve digits, of which the first may be zero.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(Arc<str>);

impl AccountId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountId {
    type Err = Invalid;

    fn from_str(found: &str) -> Result<Self, Invalid> {
        let is_account = found.len() == 12 && found.bytes().all(|b| b.is_ascii_digit());
        let reason = "is not an AWS account: write its twelve digits, in quotes where a number would lose its leading zeros";
        if is_account { Ok(Self(found.into())) } else { Err(Invalid::new(found, reason)) }
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The longest DNS name in text (RFC 1035, 2.3.4: 255 octets on the wire).
const MAX_NAME: usize = 253;
/// The longest label of a DNS name (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// `ACCOUNT.dkr.ecr[-fips].REGION[.SUFFIX]` or `ACCOUNT.dkr-ecr[-fips].REGION[.SUFFIX]`, with nothing checked yet.
struct EcrShape<'a> {
    account: &'a str,
    fips: bool,
    dual_stack: bool,
    region: &'a str,
    suffix: &'a str,
}

impl<'a> EcrShape<'a> {
    fn split(host: &'a str) -> Option<Self> {
        const FORMS: [(&str, bool, bool); 4] = [
            ("dkr.ecr.", false, false),
            ("dkr.ecr-fips.", true, false),
            ("dkr-ecr.", false, true),
            ("dkr-ecr-fips.", true, true),
        ];
        let (account, after) = host.split_once('.')?;
        FORMS.iter().find_map(|&(form, fips, dual_stack)| {
            let rest = after.strip_prefix(form)?;
            let (region, suffix) = rest.split_once('.').unwrap_or((rest, ""));
            Some(Self { account, fips, dual_stack, region, suffix })
        })
    }
}

/// Splits `host[:port]` and `[v6][:port]`; a bare IPv6 address without brackets stays whole.
fn split_port(host: &str) -> (&str, Option<&str>) {
    if host.starts_with('[')
        && let Some(end) = host.find(']')
    {
        let (name, after) = host.split_at(end + 1);
        return (
            if after.is_empty() || after.starts_with(':') { name } else { host },
            after.strip_prefix(':'),
        );
    }
    match host.split_once(':') {
        Some((name, port)) if !port.contains(':') => (name, Some(port)),
        _ => (host, None),
    }
}

fn too_long(name: &str) -> Invalid {
    Invalid::host(format!("has {} characters: a host name has {MAX_NAME} at most", name.len()))
}

fn check_port(found: &str, name: &str, port: &str) -> Result<(), Invalid> {
    let digits = !port.is_empty() && !port.starts_with('0') && port.bytes().all(|b| b.is_ascii_digit());
    if digits && port.parse::<u16>().is_ok() {
        return Ok(());
    }
    let reason = format!("has the port `{port}`: write a number from 1 to 65535, or only `{name}`");
    Err(Invalid::new(found, reason))
}

fn check_name(found: &str, name: &str) -> Result<(), Invalid> {
    const NO_ADDRESS: &str = "is not an IP address: write four numbers up to 255 with dots, or IPv6 in brackets, as in `[::1]:5000`";
    if name.is_empty() {
        let reason = "is empty: write a host, such as `123456789012.dkr.ecr.eu-west-1.amazonaws.com`";
        return Err(Invalid::host(reason));
    }
    if name.contains(['[', ']', ':']) {
        let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_address = inner.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok());
        return if is_address { Ok(()) } else { Err(Invalid::new(found, NO_ADDRESS)) };
    }
    if name.len() > MAX_NAME {
        return Err(too_long(name));
    }
    if let Some(bare) = name.strip_suffix('.').filter(|bare| !bare.is_empty() && !bare.ends_with('.')) {
        return Err(Invalid::new(found, format!("has a trailing dot: write only `{bare}`")));
    }
    for label in name.split('.') {
        check_label(found, label)?;
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    let numeric = last.bytes().all(|b| b.is_ascii_digit());
    if numeric && name.parse::<Ipv4Addr>().is_err() {
        return Err(Invalid::new(found, NO_ADDRESS));
    }
    Ok(())
}

fn check_label(found: &str, label: &str) -> Result<(), Invalid> {
    if label.is_empty() {
        return Err(Invalid::new(found, "has an empty part between its dots: take the surplus dot away"));
    }
    if label.contains('*') {
        return Err(Invalid::new(found, "is a pattern: name each registry host in full"));
    }
    let allowed = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if allowed && label.len() <= MAX_LABEL && !label.starts_with('-') && !label.ends_with('-') {
        return Ok(());
    }
    let reason = format!(
        "in `{found}` cannot be part of a host name: \
         it takes 1 to 63 letters, digits and hyphens, and no hyphen at either end"
    );
    Err(Invalid::new(label, reason))
}
