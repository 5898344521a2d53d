//! The table of AWS partitions: which regions and which host suffixes belong together.
//!
//! The one place that has to change when AWS opens a partition. Until then a host of a new partition works
//! with its region configured. Taken from the partition tables of the AWS SDKs and the endpoint rules of ECR.

use std::fmt;

use super::Region;

/// An isolated part of AWS, with identities and endpoints of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Partition {
    Aws,
    /// AWS GovCloud (US).
    AwsUsGov,
    /// China.
    AwsCn,
    AwsEusc,
    /// ISO (US).
    AwsIso,
    /// ISOB (US).
    AwsIsoB,
    /// ISOE (Europe).
    AwsIsoE,
    /// ISOF.
    AwsIsoF,
}

impl Partition {
    /// The name that ARNs carry, such as `aws-us-gov`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::AwsUsGov => "aws-us-gov",
            Self::AwsCn => "aws-cn",
            Self::AwsEusc => "aws-eusc",
            Self::AwsIso => "aws-iso",
            Self::AwsIsoB => "aws-iso-b",
            Self::AwsIsoE => "aws-iso-e",
            Self::AwsIsoF => "aws-iso-f",
        }
    }

    /// The region that stands for the whole partition (`implicitGlobalRegion` of the SDKs' partition tables).
    pub fn first_region(self) -> Region {
        Region(
            match self {
                Self::Aws => "us-east-1",
                Self::AwsUsGov => "us-gov-west-1",
                Self::AwsCn => "cn-northwest-1",
                Self::AwsEusc => "eusc-de-east-1",
                Self::AwsIso => "us-iso-east-1",
                Self::AwsIsoB => "us-isob-east-1",
                Self::AwsIsoE => "eu-isoe-west-1",
                Self::AwsIsoF => "us-isof-south-1",
            }
            .into(),
        )
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The hosts of Amazon ECR Public: IPv4, then dual-stack.
pub(super) const PUBLIC_HOSTS: [&str; 2] = ["public.ecr.aws", "ecr-public.aws.com"];

pub(super) struct Row {
    pub(super) partition: Partition,
    /// What comes before `-WORD-NUMBER` in the names of its regions.
    pub(super) region_prefixes: &'static [&'static str],
    /// What follows the region in `ACCOUNT.dkr.ecr.REGION.…`.
    pub(super) ipv4_suffixes: &'static [&'static str],
    /// What follows the region in `ACCOUNT.dkr-ecr.REGION.…`.
    pub(super) dual_stack_suffixes: &'static [&'static str],
}

/// Every partition; a region belongs to one row at most.
pub(super) const TABLE: &[Row] = &[
    Row {
        partition: Partition::Aws,
        region_prefixes: &["us", "eu", "ap", "sa", "ca", "me", "af", "il", "mx"],
        ipv4_suffixes: &["amazonaws.com"],
        dual_stack_suffixes: &["on.aws"],
    },
    Row {
        partition: Partition::AwsUsGov,
        region_prefixes: &["us-gov"],
        ipv4_suffixes: &["amazonaws.com"],
        dual_stack_suffixes: &["on.aws"],
    },
    Row {
        partition: Partition::AwsCn,
        region_prefixes: &["cn"],
        ipv4_suffixes: &["amazonaws.com.cn"],
        dual_stack_suffixes: &["on.amazonwebservices.com.cn"],
    },
    Row {
        partition: Partition::AwsEusc,
        region_prefixes: &["eusc-de"],
        ipv4_suffixes: &["amazonaws.eu"],
        // Sources disagree on which of the two it is.
        dual_stack_suffixes: &["on.amazonwebservices.eu", "amazonwebservices.eu"],
    },
    Row {
        partition: Partition::AwsIso,
        region_prefixes: &["us-iso"],
        ipv4_suffixes: &["c2s.ic.gov"],
        dual_stack_suffixes: &["on.aws.ic.gov"],
    },
    Row {
        partition: Partition::AwsIsoB,
        region_prefixes: &["us-isob"],
        ipv4_suffixes: &["sc2s.sgov.gov"],
        dual_stack_suffixes: &["on.aws.scloud"],
    },
    Row {
        partition: Partition::AwsIsoE,
        region_prefixes: &["eu-isoe"],
        ipv4_suffixes: &["cloud.adc-e.uk"],
        dual_stack_suffixes: &["on.cloud-aws.adc-e.uk"],
    },
    Row {
        partition: Partition::AwsIsoF,
        region_prefixes: &["us-isof"],
        ipv4_suffixes: &["csp.hci.ic.gov"],
        dual_stack_suffixes: &["on.aws.hci.ic.gov"],
    },
];

impl Row {
    /// Whether the region is `PREFIX-WORD-NUMBER` with a prefix of this row.
    pub(super) fn has_region(&self, region: &Region) -> bool {
        let prefix = region.as_str().rsplitn(3, '-').nth(2);
        prefix.is_some_and(|prefix| self.region_prefixes.contains(&prefix))
    }

    /// The suffixes of the one form or of the other.
    pub(super) fn suffixes(&self, dual_stack: bool) -> &'static [&'static str] {
        if dual_stack { self.dual_stack_suffixes } else { self.ipv4_suffixes }
    }

    /// Whether the suffix is one of either form.
    pub(super) fn has_suffix(&self, suffix: &str) -> bool {
        self.ipv4_suffixes.contains(&suffix) || self.dual_stack_suffixes.contains(&suffix)
    }
}
