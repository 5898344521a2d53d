//! No answer in the place of AWS's makes the program panic, and none makes it repeat a credential of the request.
//!
//! Whatever stands in between (a proxy, a load balancer, an emulator, whoever answers for a name) chooses status,
//! headers and body, and has seen the request that it answers.

use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig};
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use ecr_sidecar::{
    aws::{
        identity::{AssumeRole, Identity, IdentitySpec, Source},
        token::{Service, TokenKey, TokenSource},
    },
    clock::Clock,
    env::Environment,
    failure::Diagnose,
};
use proptest::prelude::*;

const KEY_ID: &str = "AKIDCANARYCANARY0001";
const SECRET_KEY: &str = "secretCanary/secretCanary+secretCanary40";
const SESSION_TOKEN: &str = "sessionCanary";
const WEB_IDENTITY_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.webIdentityCanary.c2lnbmF0dXJl";
const EXTERNAL_ID: &str = "externalCanary";
/// What may be shown of none of them.
const CANARIES: [&str; 4] = ["ecretCanary", "essionCanary", "webIdentityCanary", "externalCanary"];

/// An answer, in which `{authorization}`, `{session}` and `{body}` stand for what the request has there.
#[derive(Debug, Clone)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl HttpConnector for Answer {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let header = |name| request.headers().get(name).unwrap_or_default();
        let sent = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
        let fill = |text: &str| {
            text.replace("{authorization}", header("authorization"))
                .replace("{session}", header("x-amz-security-token"))
                .replace("{body}", &sent)
        };
        let body = match std::str::from_utf8(&self.body) {
            Ok(text) => fill(text).into_bytes(),
            Err(_) => self.body.clone(),
        };
        let mut response = HttpResponse::new(self.status.try_into().unwrap(), SdkBody::from(body));
        for (name, value) in &self.headers {
            let _ = response.headers_mut().try_append(*name, fill(value));
        }
        HttpConnectorFuture::ready(Ok(response))
    }
}

impl HttpClient for Answer {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

/// Both services, and STS by a web identity and by a chain of roles: each call gets the same answer.
fn outcomes(answer: &Answer) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sdk = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .retry_config(RetryConfig::disabled())
        .http_client(SharedHttpClient::new(answer.clone()))
        .build();
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    #[expect(clippy::disallowed_methods, reason = "a test's own file")]
    std::fs::write(&token_file, WEB_IDENTITY_TOKEN).unwrap();
    let role = |name: &str| format!("arn:aws:iam::123456789012:role/{name}");
    let assumed = AssumeRole {
        role_arn: role("b"),
        external_id: Some(EXTERNAL_ID.into()),
        session_name: "ecr-sidecar".into(),
    };
    let web_identity = Source::WebIdentity { role_arn: Some(role("a")), token_file: Some(token_file) };
    let cases = [
        (Source::Environment, Vec::new(), Service::Ecr),
        (Source::Environment, Vec::new(), Service::EcrPublic),
        (Source::Environment, vec![assumed], Service::Ecr),
        (web_identity, Vec::new(), Service::Ecr),
    ];
    cases
        .into_iter()
        .map(|(source, assume_roles, service)| runtime.block_on(outcome(&sdk, source, assume_roles, service)))
        .collect()
}

async fn outcome(sdk: &SdkConfig, source: Source, assume_roles: Vec<AssumeRole>, service: Service) -> String {
    let env = Environment::from_pairs([
        ("AWS_ACCESS_KEY_ID", KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_SESSION_TOKEN", SESSION_TOKEN),
    ]);
    let spec = IdentitySpec {
        name: "default".into(),
        source,
        assume_roles,
        sts_region: "eu-west-1".parse().unwrap(),
        expect_account: None,
    };
    let identity = Arc::new(Identity::new(spec, env, sdk.clone(), Clock::System));
    let key = TokenKey {
        identity: "default".into(),
        service,
        region: "eu-west-1".parse().unwrap(),
        endpoint: None,
        fips: None,
        dual_stack: None,
    };
    match TokenSource::new(key, identity, sdk, Clock::System).fetch().await {
        Ok(fetched) => format!("{fetched:?}"),
        Err(error) => {
            let problem = error.problem();
            format!("{error} {problem} {problem:?}")
        }
    }
}

fn check(answer: &Answer) -> Result<(), TestCaseError> {
    for shown in outcomes(answer) {
        for canary in CANARIES {
            prop_assert!(!shown.contains(canary), "{canary} is in {shown}");
        }
        prop_assert!(
            !shown.chars().any(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)),
            "{shown:?}"
        );
        prop_assert!(shown.len() < 8_000, "{} bytes", shown.len());
    }
    Ok(())
}

/// What may stand in a message: words, what the request had, and what steers terminals.
fn message() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-zA-Z0-9 .,:]{0,40}",
        "\\PC{0,10}",
        prop::sample::select(vec![
            "{session}",
            "{authorization}",
            "{body}",
            "The Canonical String for this request should have been\n'POST\n/\n\nx-amz-security-token:{session}\n'",
            "Authorization header requires 'Signature' parameter. Authorization={authorization}",
            "\u{1b}[2K\r[+] all is well\u{202e}\u{9b}",
        ])
        .prop_map(str::to_owned),
        Just("x ".repeat(100_000)),
    ];
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
}

fn code() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "AccessDeniedException",
            "InvalidSignatureException",
            "IncompleteSignature",
            "ExpiredTokenException",
            "InvalidIdentityToken",
            "ThrottlingException",
        ])
        .prop_map(str::to_owned),
        message(),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let json = (code(), message()).prop_map(|(code, message)| {
        serde_json::json!({"__type": code, "message": message}).to_string().into_bytes()
    });
    let xml = (code(), message()).prop_map(|(code, message)| {
        format!(
            "<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
        )
        .into_bytes()
    });
    let good = (message(), any::<i64>(), message()).prop_map(|(token, expiry, host)| {
        let data =
            serde_json::json!({"authorizationToken": token, "expiresAt": expiry, "proxyEndpoint": host});
        serde_json::json!({"authorizationData": [data]}).to_string().into_bytes()
    });
    prop_oneof![
        json,
        xml,
        good,
        prop::collection::vec(any::<u8>(), 0..200),
        message().prop_map(String::into_bytes)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_answer_of_aws_panics_or_repeats_a_credential(
        status in prop::sample::select(vec![200u16, 204, 301, 400, 401, 403, 404, 429, 500, 503]),
        header in message(),
        date in prop_oneof![Just(String::new()), "\\PC{0,20}", Just("Thu, 01 Jan 9999 00:00:00 GMT".to_owned())],
        body in body(),
    ) {
        let headers = vec![("date", date), ("x-amzn-errortype", header.clone()), ("x-amzn-requestid", header)];
        check(&Answer { status, headers, body })?;
    }
}

#[test]
fn what_aws_echoes_is_not_shown() {
    for message in [
        "The request signature we calculated does not match the signature you provided.\n\nThe Canonical String for \
         this request should have been\n'POST\n/\n\nhost:h\nx-amz-security-token:{session}\n\nhost\nabc'\n\n\
         The String-to-Sign should have been\n'AWS4-HMAC-SHA256\n'",
        "Authorization header requires 'SignedHeaders' parameter. Authorization={authorization}",
        "the token {session} is not valid; sent: {body}",
    ] {
        let body = serde_json::json!({"__type": "InvalidSignatureException", "message": message});
        for body in [
            body.to_string(),
            format!(
                "<ErrorResponse><Error><Code>X</Code><Message>{message}</Message></Error></ErrorResponse>"
            ),
        ] {
            check(&Answer { status: 403, headers: Vec::new(), body: body.into_bytes() }).unwrap();
        }
    }
}
