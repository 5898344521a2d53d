//! Profiles of IAM Identity Center.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    thread,
};

use ecr_emulator::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
use test_support::{Harness, Signal, harness::DEADLINE};

use crate::BINARY;

/// The emulator has no SSO portal: what is held here is that a profile with `sso_session` is understood, that
/// the portal of its region is asked with the cached token, and what is said without one.
#[test]
fn an_sso_profile_asks_the_portal_of_its_region_and_names_the_login_when_there_is_none() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write(
        ".aws/config",
        "[profile sso]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = pull\n\
         [sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.example/start\n",
    );
    let once = harness.once(|command| {
        command.env("AWS_PROFILE", "sso");
    });
    once.failed_with(&["profile `sso`", "aws sso login"]);
    assert_eq!(harness.emulator.connects().len(), 0);

    // The cache's name is the SHA-1 of the session's name.
    harness.write(
        ".aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json",
        "{\"accessToken\": \"cached\", \"expiresAt\": \"2099-01-01T00:00:00Z\"}",
    );
    let once = harness.once(|command| {
        command.env("AWS_PROFILE", "sso").env_remove("AWS_ENDPOINT_URL").args(["--timeout", "2s"]);
    });
    once.failed_with(&["profile `sso`"]);
    let hosts: Vec<_> = harness.emulator.connects().into_keys().collect();
    assert_eq!(hosts, ["portal.sso.eu-west-1.amazonaws.com"], "{}", once.stderr);
}

/// The portal of IAM Identity Center and its OIDC API: a login is renewed to the token `renewed`, which has been revoked;
/// any other token gets the emulator's keys.
fn sso_portal() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = String::new();
            let mut reader = BufReader::new(&stream);
            while reader.read_line(&mut request).unwrap() > 2 {}
            let length = request
                .to_lowercase()
                .split_once("content-length: ")
                .map_or(0, |(_, rest)| rest.lines().next().unwrap().trim().parse().unwrap());
            reader.read_exact(&mut vec![0; length]).unwrap();
            let (status, body) = if request.starts_with("POST /token ") {
                ("200 OK", r#"{"accessToken":"renewed","refreshToken":"again","expiresIn":28800}"#.to_owned())
            } else if request.contains("x-amz-sso_bearer_token: renewed") {
                (
                    "401 Unauthorized",
                    r#"{"__type":"UnauthorizedException","message":"Session token not found"}"#.into(),
                )
            } else {
                let keys = format!(
                    r#"{{"roleCredentials":{{"accessKeyId":"{ACCESS_KEY_ID}","secretAccessKey":"{SECRET_ACCESS_KEY}","expiration":4102444800000}}}}"#
                );
                ("200 OK", keys)
            };
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n");
            write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    url
}

/// A login that was renewed in memory and is denied gives way to one that `aws sso login` has put there since.
#[test]
fn a_new_login_takes_the_place_of_one_that_was_revoked() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write(
        ".aws/config",
        "[profile sso]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = pull\n\
         [sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.example/start\n",
    );
    let login = ".aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json";
    harness.write(
        login,
        r#"{"accessToken":"old","expiresAt":"2020-01-01T00:00:00Z","refreshToken":"r","clientId":"c","clientSecret":"s"}"#,
    );
    let portal = sso_portal();
    let running = harness.run(|command| {
        command.env("AWS_PROFILE", "sso").env("AWS_ENDPOINT_URL_SSO", &portal);
        command.env("AWS_ENDPOINT_URL_SSO_OIDC", &portal);
    });
    running.wait_log("Session token not found", DEADLINE);
    harness.write(login, r#"{"accessToken":"new","expiresAt":"2099-01-01T00:00:00Z"}"#);
    running.signal(Signal::HUP);
    running.wait_ready();
}
