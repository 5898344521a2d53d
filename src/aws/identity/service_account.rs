//! A pod's ServiceAccount as an identity: its token, and the role that it is exchanged for.
//!
//! What is derived from an identity, such as the name of its cached token, is derived from its `Debug` form. That of a
//! [`ServiceAccount`] has the role and whose the token is, and not the token, which is another one for each pod:
//! `accounts_and_roles_are_told_apart_and_tokens_are_not`.
//!
//! The token's signature is not checked here: it comes from the kubelet, and STS checks it before it counts for anything.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{aws::variables::is_role_arn, failure::shown_value::quoted, secret::Secret};

/// A ServiceAccount with a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    role_arn: String,
    claims: Claims,
    token: Secret<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum InvalidServiceAccount {
    #[error("the role is {0}, expected a role's ARN such as arn:aws:iam::123456789012:role/NAME")]
    Role(String),
    #[error("the ServiceAccount's token is not a JSON web token with an issuer and a subject")]
    Token,
}

/// Whose the token is. The uid is another one when an account of the same name is created again.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    #[serde(rename = "kubernetes.io", default)]
    kubernetes: Kubernetes,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Kubernetes {
    #[serde(default)]
    serviceaccount: Object,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Object {
    #[serde(default)]
    uid: String,
}

impl ServiceAccount {
    /// The account that `token` was issued for, in the role `role_arn`, which whoever may annotate the account chose.
    pub fn new(role_arn: &str, token: Secret<String>) -> Result<Self, InvalidServiceAccount> {
        if !is_role_arn(role_arn) {
            return Err(InvalidServiceAccount::Role(quoted(role_arn)));
        }
        let claims = claims(token.expose()).ok_or(InvalidServiceAccount::Token)?;
        Ok(Self { role_arn: role_arn.to_owned(), claims, token })
    }

    pub(super) fn role_arn(&self) -> &str {
        &self.role_arn
    }

    pub(super) fn token(&self) -> &Secret<String> {
        &self.token
    }
}

fn claims(token: &str) -> Option<Claims> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).map(Zeroizing::new).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    (!claims.iss.is_empty() && !claims.sub.is_empty()).then_some(claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "arn:aws:iam::123456789012:role/team-a";

    fn token(claims: &str, signature: &str) -> Secret<String> {
        Secret::new(format!("e30.{}.{signature}", URL_SAFE_NO_PAD.encode(claims)))
    }

    fn account(role: &str, claims: &str) -> String {
        format!("{:?}", ServiceAccount::new(role, token(claims, "c2ln")).unwrap())
    }

    #[test]
    fn accounts_and_roles_are_told_apart_and_tokens_are_not() {
        let claims = r#"{"iss":"https://i","sub":"system:serviceaccount:a:b","kubernetes.io":{"pod":{"name":"p"},"serviceaccount":{"name":"b","uid":"1"}}}"#;
        let usual = account(ROLE, claims);
        let renewed = ServiceAccount::new(ROLE, token(&claims.replace("\"p\"", "\"q\""), "YWJj")).unwrap();
        assert_eq!(usual, format!("{renewed:?}"));
        assert_ne!(usual, account("arn:aws:iam::123456789012:role/team-b", claims));
        for (claim, other) in [("https://i", "https://j"), (":a:b", ":a:c"), ("\"1\"", "\"2\"")] {
            assert_ne!(usual, account(ROLE, &claims.replace(claim, other)), "{claim}");
        }
        // A name cannot end early and go on as another part.
        assert_ne!(
            account(ROLE, r#"{"iss":"a","sub":"b\", sub: \"c"}"#),
            account(ROLE, r#"{"iss":"a\", sub: \"b","sub":"c"}"#)
        );
    }

    #[test]
    fn a_role_or_token_of_another_form_is_rejected_and_not_repeated() {
        let good = r#"{"iss":"https://i","sub":"system:serviceaccount:a:b"}"#;
        for role in [
            "",
            "ecr-pull",
            "arn:aws:iam::123456789012:user/me",
            "arn:aws:iam::1:role/x",
            &format!("{ROLE} "),
        ] {
            let error = ServiceAccount::new(role, token(good, "c2ln")).unwrap_err();
            assert!(matches!(error, InvalidServiceAccount::Role(_)), "{role}");
        }
        for text in ["", "hunter2", "e30.hunter2.x", "e30.e30.x"] {
            let error = ServiceAccount::new(ROLE, Secret::new(text.to_owned())).unwrap_err();
            assert!(matches!(error, InvalidServiceAccount::Token), "{text}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        for claims in [r#"{"iss":"","sub":"a"}"#, r#"{"iss":"a","sub":""}"#, r#"{"sub":"a"}"#] {
            assert!(ServiceAccount::new(ROLE, token(claims, "c2ln")).is_err(), "{claims}");
        }
        let shown = ServiceAccount::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", token(good, "c2ln"));
        assert!(shown.unwrap_err().to_string().contains("not shown"));
    }
}
