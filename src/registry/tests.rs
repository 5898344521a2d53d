use proptest::prelude::*;

use super::*;

const H: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn host(text: &str) -> RegistryHost {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn rejections() {
    let cases = [
        ("", "the registry host is empty"),
        (":5000", "the registry host is empty"),
        ("https://", "the registry host is empty"),
        (
            "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "`https://123456789012.dkr.ecr.eu-west-1.amazonaws.com` has a scheme: \
             write only `123456789012.dkr.ecr.eu-west-1.amazonaws.com`",
        ),
        ("oci://h.example/charts", "`oci://h.example/charts` has a scheme: write only `h.example`"),
        ("https://H.example./v2/", "has a scheme: write only `h.example`"),
        ("h.example/", "`h.example/` has a path: write only `h.example`"),
        ("h.example/team/app:1", "has a path: write only `h.example`"),
        ("h.example/app@sha256:0123", "has a path: write only `h.example`"),
        ("h.example?x", "has a path: write only `h.example`"),
        ("h.example#x", "has a path: write only `h.example`"),
        ("h.example\\x", "has a path: write only `h.example`"),
        ("h.example.", "`h.example.` has a trailing dot: write only `h.example`"),
        ("h.example.:5000", "has a trailing dot: write only `h.example`"),
        (" h.example", "white space"),
        ("h.example ", "white space"),
        ("h.example\n", "white space"),
        ("h.example,\tg.example", "white space"),
        ("h\0.example", "white space or a control character"),
        ("123456789012.dkr.ecr.eu-west-1.аmazonaws.com", "the character `а` (U+0430), which is not ASCII"),
        ("h\u{200b}.example", "(U+200B), which is not ASCII"),
        ("123456789012.dkr.ecr.*.amazonaws.com", "is a pattern"),
        (".h.example", "empty part between its dots"),
        ("h..example", "empty part between its dots"),
        ("h.example..", "empty part between its dots"),
        (".", "empty part between its dots"),
        ("-h.example", "`-h` in `-h.example` cannot be part of a host name"),
        ("h-.example", "`h-` in"),
        ("h_h.example", "`h_h` in"),
        ("h.example,g.example", "`example,g` in"),
        ("h!.example", "`h!` in"),
        ("h.example:", "has the port ``: write a number from 1 to 65535, or only `h.example`"),
        ("h.example:0", "has the port `0`"),
        ("h.example:65536", "has the port `65536`"),
        ("h.example:0443", "has the port `0443`"),
        ("h.example:+443", "has the port `+443`"),
        ("h.example:https", "has the port `https`"),
        ("h.example:443:443", "is not an IP address"),
        ("1.2.3.999", "is not an IP address"),
        ("1.2.3", "is not an IP address"),
        ("::1", "is not an IP address"),
        ("[::1", "is not an IP address"),
        ("[::1]x", "is not an IP address"),
        ("[::1%eth0]", "is not an IP address"),
        ("[h.example]", "is not an IP address"),
    ];
    for (text, sentence) in cases {
        let error = text.parse::<RegistryHost>().map(|host| host.to_string()).unwrap_err().to_string();
        assert!(error.contains(sentence), "{text:?}: {error}");
        assert!(!error.contains(['\n', '\0']), "{text:?}: {error}");
    }
    let long = format!("{}.example", "a".repeat(64));
    assert!(long.parse::<RegistryHost>().unwrap_err().to_string().contains("cannot be part of a host name"));
    let long = vec!["abcdefgh"; 29].join(".");
    assert!(long.parse::<RegistryHost>().unwrap_err().to_string().contains("has 260 characters"));
}

#[test]
fn userinfo_is_not_shown() {
    for text in [
        "AWS:hunter2@h.example",
        "https://AWS:hunter2@h.example",
        "https://AWS:hun/ter2@h.example/v2/",
        "AWS:hunter2@h!.example",
        "AWS:hunter2@",
    ] {
        let error = text.parse::<RegistryHost>().unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("ter2") && !shown.contains("AWS"), "{text}: {shown}");
    }
    let error = "https://AWS:hunter2@H.example/v2/".parse::<RegistryHost>().unwrap_err();
    assert_eq!(error.to_string(), "a user name stands before `@h.example`: write only `h.example`");
}

#[test]
fn hosts_that_are_no_ecr_are_taken() {
    for text in [
        "localhost",
        "localhost:5000",
        "h.example:65535",
        "10.0.0.1",
        "10.0.0.1:80",
        "[::1]",
        "[fd00::1]:5000",
    ] {
        assert_eq!(host(text).location(), Location::Other, "{text}");
        assert_eq!(host(text).looks_like_ecr(), None, "{text}");
    }
    assert_eq!(host("[FD00::A]:5000").as_str(), "[fd00::a]:5000");
    assert_eq!(host("xn--bcher-kva.example").as_str(), "xn--bcher-kva.example");
}

#[test]
fn evil_twins_are_other() {
    let twins = [
        format!("{H}.evil.example"),
        format!("{H}:443"),
        format!("x{H}"),
        format!("x.{H}"),
        format!("{H}.cn"),
        "12345678901.dkr.ecr.eu-west-1.amazonaws.com".into(),
        "1234567890123.dkr.ecr.eu-west-1.amazonaws.com".into(),
        "12345678901a.dkr.ecr.eu-west-1.amazonaws.com".into(),
        "123456789012.dkr.ecr.amazonaws.com".into(),
        "123456789012.dkr.ecr.eu-west-1.evil.amazonaws.com".into(),
        "123456789012.dkr.ecr.eu-west-1a.amazonaws.com".into(),
        "123456789012.dkr.ecr-fips-x.eu-west-1.amazonaws.com".into(),
        "123456789012.dkrxecr.eu-west-1.amazonaws.com".into(),
        "123456789012.ecr.eu-west-1.amazonaws.com".into(),
        "123456789012.dkr.ecr.eu-west-1.xamazonaws.com".into(),
        "123456789012.dkr.ecr.eu-west-1".into(),
        "123456789012.dkr.ecr".into(),
        // a form with the suffix of the other, a region with the suffix of another partition
        "123456789012.dkr.ecr.eu-west-1.on.aws".into(),
        "123456789012.dkr-ecr.eu-west-1.amazonaws.com".into(),
        "123456789012.dkr.ecr.cn-north-1.amazonaws.com".into(),
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com.cn".into(),
        "123456789012.dkr.ecr.us-iso-east-1.amazonaws.com".into(),
        "123456789012.dkr.ecr.us-foo-east-1.amazonaws.com".into(),
        "api.ecr.eu-west-1.amazonaws.com".into(),
        "vpce-0abc.dkr.ecr.eu-west-1.vpce.amazonaws.com".into(),
        "public.ecr.aws.evil.example".into(),
        "x.public.ecr.aws".into(),
        "public.ecr.aws:443".into(),
    ];
    for twin in twins {
        assert_eq!(host(&twin).location(), Location::Other, "{twin}");
    }
}

#[test]
fn a_lookalike_is_distinguished_from_an_unknown_host() {
    let cases = [
        (H, None),
        ("ghcr.io", None),
        ("api.ecr.eu-west-1.amazonaws.com", None),
        (
            "123456789012.dkr.ecr.eu-west-1.amazonaws.new",
            Some(
                "looks like an ECR host in `eu-west-1`, but the suffix `amazonaws.new` is not known: set its region",
            ),
        ),
        (
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com:443",
            Some(
                "looks like the ECR host `123456789012.dkr.ecr.eu-west-1.amazonaws.com`, but has a port: \
                 leave the port away, or set its region",
            ),
        ),
        (
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com",
            Some(
                "looks like an ECR host, but the suffix `amazonaws.com` does not belong to the region \
                 `cn-north-1`: fix the name, or set its region",
            ),
        ),
        (
            "12345.dkr.ecr.eu-west-1.amazonaws.com",
            Some(
                "looks like an ECR host, but the account `12345` is not twelve digits: fix the name, or set its region",
            ),
        ),
        (
            "123456789012.dkr.ecr.amazonaws.com",
            Some("looks like an ECR host, but `amazonaws` is not a region: fix the name, or set its region"),
        ),
    ];
    for (text, sentence) in cases {
        assert_eq!(host(text).looks_like_ecr().as_deref(), sentence, "{text}");
    }
}

/// Whole names, so that a slip in the table shows too.
#[test]
fn every_partition_has_its_names() {
    let cases = [
        ("dkr.ecr.us-east-1.amazonaws.com", "dkr-ecr.us-east-1.on.aws", Partition::Aws),
        ("dkr.ecr.mx-central-1.amazonaws.com", "dkr-ecr.il-central-1.on.aws", Partition::Aws),
        (
            "dkr.ecr-fips.us-gov-west-1.amazonaws.com",
            "dkr-ecr-fips.us-gov-east-1.on.aws",
            Partition::AwsUsGov,
        ),
        (
            "dkr.ecr.cn-north-1.amazonaws.com.cn",
            "dkr-ecr.cn-northwest-1.on.amazonwebservices.com.cn",
            Partition::AwsCn,
        ),
        (
            "dkr.ecr.eusc-de-east-1.amazonaws.eu",
            "dkr-ecr.eusc-de-east-1.on.amazonwebservices.eu",
            Partition::AwsEusc,
        ),
        (
            "dkr.ecr.eusc-de-east-1.amazonaws.eu",
            "dkr-ecr.eusc-de-east-1.amazonwebservices.eu",
            Partition::AwsEusc,
        ),
        ("dkr.ecr.us-iso-east-1.c2s.ic.gov", "dkr-ecr.us-iso-west-1.on.aws.ic.gov", Partition::AwsIso),
        ("dkr.ecr.us-isob-east-1.sc2s.sgov.gov", "dkr-ecr.us-isob-east-1.on.aws.scloud", Partition::AwsIsoB),
        (
            "dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk",
            "dkr-ecr.eu-isoe-west-1.on.cloud-aws.adc-e.uk",
            Partition::AwsIsoE,
        ),
        (
            "dkr.ecr.us-isof-east-1.csp.hci.ic.gov",
            "dkr-ecr.us-isof-south-1.on.aws.hci.ic.gov",
            Partition::AwsIsoF,
        ),
    ];
    for (ipv4, dual_stack, partition) in cases {
        for (name, is_dual_stack) in [(ipv4, false), (dual_stack, true)] {
            let Location::Private(registry) = host(&format!("012345678901.{name}")).location() else {
                panic!("{name}");
            };
            assert_eq!(registry.account.as_str(), "012345678901");
            assert_eq!((registry.partition, registry.dual_stack), (partition, is_dual_stack), "{name}");
            assert_eq!(registry.fips, name.contains("-fips."), "{name}");
        }
    }
}

#[test]
fn public_has_two_names() {
    assert_eq!(host("public.ecr.aws").location(), Location::Public);
    assert_eq!(host("ECR-Public.aws.com").location(), Location::Public);
}

#[test]
fn regions_and_accounts_parse() {
    for text in
        ["us-east-1", "ap-southeast-12", "us-gov-west-1", "eusc-de-east-1", "us-isob-east-1", "mx-central-1"]
    {
        assert_eq!(text.parse::<Region>().unwrap().as_str(), text);
    }
    for text in [
        "",
        "us",
        "us-1",
        "us-east",
        "us-east-1a",
        "US-EAST-1",
        "u-east-1",
        "us--1",
        "us-east-",
        "us-e1-1",
        " us-east-1",
    ] {
        assert!(text.parse::<Region>().is_err(), "{text}");
    }
    assert_eq!("000000000001".parse::<AccountId>().unwrap().as_str(), "000000000001");
    for text in ["", "1", "12345678901", "1234567890123", "12345678901x", "１23456789012", " 12345678901"] {
        assert!(text.parse::<AccountId>().is_err(), "{text}");
    }
    for (region, partition) in [
        ("us-east-1", Some(Partition::Aws)),
        ("us-gov-east-1", Some(Partition::AwsUsGov)),
        ("eu-isoe-west-1", Some(Partition::AwsIsoE)),
        ("xx-new-1", None),
    ] {
        assert_eq!(region.parse::<Region>().unwrap().partition(), partition);
    }
}

/// A row, one of its regions, and a host of it.
fn any_private() -> impl Strategy<Value = (String, PrivateRegistry)> {
    let rows: Vec<_> = partition::TABLE
        .iter()
        .flat_map(|row| {
            let forms =
                [false, true].into_iter().flat_map(|dual| row.suffixes(dual).iter().map(move |s| (dual, *s)));
            forms.flat_map(move |form| {
                row.region_prefixes.iter().map(move |prefix| (row.partition, *prefix, form))
            })
        })
        .collect();
    (
        proptest::sample::select(rows),
        "[0-9]{12}",
        "(north|south|east|west|central|southeast)",
        1..99u8,
        any::<bool>(),
    )
        .prop_map(|((partition, prefix, (dual_stack, suffix)), account, word, number, fips)| {
            let region = format!("{prefix}-{word}-{number}");
            let form = if dual_stack { "dkr-ecr" } else { "dkr.ecr" };
            let fips_mark = if fips { "-fips" } else { "" };
            let text = format!("{account}.{form}{fips_mark}.{region}.{suffix}");
            let (account, region) = (account.parse().unwrap(), region.parse().unwrap());
            (text, PrivateRegistry { account, region, partition, fips, dual_stack })
        })
}

proptest! {
    #[test]
    fn every_row_is_recognised((text, expected) in any_private()) {
        prop_assert_eq!(host(&text).location(), Location::Private(expected));
    }

    #[test]
    fn a_foreign_suffix_is_never_private((text, _) in any_private(), suffix in "(\\.[a-z]{1,9}){1,3}") {
        let twin = host(&format!("{text}{suffix}"));
        // `….amazonaws.com` + `.cn` is a suffix of the table, and belongs to other regions.
        prop_assert_eq!(twin.location(), Location::Other);
    }

    #[test]
    fn a_foreign_prefix_is_never_private((text, _) in any_private(), prefix in "[a-z0-9]{1,9}\\.?") {
        let twin = host(&format!("{prefix}{text}"));
        prop_assert_eq!(twin.location(), Location::Other);
    }

    #[test]
    fn case_is_folded((text, _) in any_private(), upper in proptest::collection::vec(any::<bool>(), 100)) {
        let mixed: String =
            text.chars().zip(&upper).map(|(c, up)| if *up { c.to_ascii_uppercase() } else { c }).collect();
        prop_assert_eq!(host(&mixed), host(&text));
        prop_assert_eq!(host(&mixed).to_string(), text);
    }

    #[test]
    fn display_parses_back(text in "\\PC{0,40}|([A-Za-z0-9-]{1,10}\\.){0,4}[A-Za-z0-9-]{1,10}(:[0-9]{1,6})?") {
        match text.parse::<RegistryHost>() {
            Ok(host) => prop_assert_eq!(host.to_string().parse::<RegistryHost>(), Ok(host)),
            // the sentence can be made for anything, in one line
            Err(error) => prop_assert!(!error.to_string().contains('\n')),
        }
    }

    #[test]
    fn a_host_that_a_rejection_names_is_taken(text in "(https?://)?[a-z]{1,5}@?(\\.[a-z]{1,5}){0,2}\\.?(/[a-z]{0,5}){0,2}") {
        if let Err(error) = text.parse::<RegistryHost>()
            && let Some((_, bare)) = error.to_string().split_once("write only `")
        {
            let bare = bare.trim_end_matches('`');
            prop_assert_eq!(host(bare).to_string(), bare);
        }
    }
}
