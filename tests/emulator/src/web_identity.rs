//! Is that web-identity token one that STS would take?
//!
//! The emulator is an OIDC issuer of its own (ES256). A token that claims to be its own, and every token when a key
//! set is given, must carry a good signature; one of an unknown issuer is otherwise taken at its word, since a test's
//! cluster has no public issuer. Audience and time are always checked.

use std::io;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use crate::reply::Failure;

/// The audience that IAM's OIDC provider for a cluster expects.
pub(crate) const AUDIENCE: &str = "sts.amazonaws.com";
const ISSUER: &str = "https://oidc.emulator.invalid";
const KEY_ID: &str = "emulator";

/// The keys that web-identity tokens are checked against.
pub(crate) struct Issuers {
    own: EcdsaKeyPair,
    given: Option<Vec<PublicKey>>,
    /// The only other issuer.
    trusted: Option<String>,
}

/// The claims of a token.
#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) subject: String,
    pub(crate) audience: String,
    pub(crate) issuer: String,
}

struct PublicKey {
    id: Option<String>,
    material: Material,
}

enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256(Vec<u8>),
}

impl Issuers {
    /// With the keys of a JSON Web Key Set and the only issuer besides the emulator, when they are said.
    pub(crate) fn new(jwks_file: Option<&Path>, trusted: Option<String>) -> io::Result<Self> {
        let own = new_key().map_err(io::Error::other)?;
        let given = jwks_file.map(std::fs::read).transpose()?.map(|text| read_jwks(&text)).transpose()?;
        Ok(Self { own, given, trusted })
    }

    /// A token of the emulator's own.
    pub(crate) fn issue(&self, subject: &str, audience: &str, lifetime: Duration, now: i64) -> String {
        let header = json!({"alg": "ES256", "kid": KEY_ID, "typ": "JWT"});
        let expires = now.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
        let claims = json!({
            "iss": ISSUER, "sub": subject, "aud": [audience], "iat": now, "nbf": now, "exp": expires,
        });
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        #[expect(
            clippy::expect_used,
            reason = "signing fails only without random numbers, and then TLS would too"
        )]
        let signature = self.own.sign(&SystemRandom::new(), signed.as_bytes()).expect("ES256 signs");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// The claims of the token, if STS would believe it.
    pub(crate) fn verify(&self, token: &str, audience: &str, now: i64) -> Result<Claims, Failure> {
        let (signed, signature) = token.rsplit_once('.').ok_or_else(not_a_jwt)?;
        let (header, claims) = signed.split_once('.').ok_or_else(not_a_jwt)?;
        let (header, claims) = (part(header)?, part(claims)?);
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| not_a_jwt())?;
        let text = |name: &str| claims[name].as_str().map(str::to_owned).ok_or_else(not_a_jwt);
        let (subject, issuer) = (text("sub")?, text("iss")?);
        let expires = claims["exp"].as_i64().ok_or_else(not_a_jwt)?;
        if self.trusted.as_ref().is_some_and(|trusted| *trusted != issuer && issuer != ISSUER) {
            let message = format!("No OpenIDConnect provider found in your account for {issuer}");
            return Err(Failure::new(400, "InvalidIdentityToken", message));
        }
        if !self.signature_holds(&header, &issuer, signed.as_bytes(), &signature) {
            return Err(Failure::new(
                400,
                "InvalidIdentityToken",
                "Couldn't retrieve verification key from your identity provider, please reference AssumeRoleWithWebIdentity documentation for requirements",
            ));
        }
        if !audiences(&claims["aud"]).contains(&audience) {
            return Err(Failure::new(400, "InvalidIdentityToken", "Incorrect token audience"));
        }
        if expires <= now {
            let message = format!(
                "Token expired: current date/time {now} must be before the expiration date/time {expires}"
            );
            return Err(Failure::new(400, "ExpiredTokenException", message));
        }
        Ok(Claims { subject, audience: audience.to_owned(), issuer })
    }

    fn signature_holds(&self, header: &Value, issuer: &str, signed: &[u8], signature: &[u8]) -> bool {
        if issuer == ISSUER {
            let key = Material::P256(self.own.public_key().as_ref().to_vec());
            return key.verifies(&header["alg"], signed, signature);
        }
        let Some(keys) = &self.given else { return true };
        let id = header["kid"].as_str();
        let named = keys.iter().filter(|key| id.is_none() || key.id.is_none() || key.id.as_deref() == id);
        named.into_iter().any(|key| key.material.verifies(&header["alg"], signed, signature))
    }
}

impl Material {
    fn verifies(&self, algorithm: &Value, signed: &[u8], signature: &[u8]) -> bool {
        match (self, algorithm.as_str()) {
            (Self::Rsa { modulus, exponent }, Some("RS256")) => {
                let key = signature::RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(&signature::RSA_PKCS1_2048_8192_SHA256, signed, signature).is_ok()
            }
            (Self::P256(point), Some("ES256")) => {
                let key = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
                key.verify(signed, signature).is_ok()
            }
            _ => false,
        }
    }
}

fn new_key() -> Result<EcdsaKeyPair, String> {
    let (kind, random) = (&signature::ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).map_err(|error| error.to_string())?;
    EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).map_err(|error| error.to_string())
}

fn read_jwks(text: &[u8]) -> io::Result<Vec<PublicKey>> {
    let set: Value = serde_json::from_slice(text)?;
    let keys = set["keys"].as_array().ok_or_else(|| io::Error::other("a key set has `keys`"))?;
    let keys: Option<Vec<_>> = keys.iter().map(read_jwk).collect();
    keys.ok_or_else(|| io::Error::other("a key of the key set is neither RSA nor P-256"))
}

fn read_jwk(jwk: &Value) -> Option<PublicKey> {
    let number = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str()?).ok();
    let material = match jwk["kty"].as_str()? {
        "RSA" => Material::Rsa { modulus: number("n")?, exponent: number("e")? },
        "EC" if jwk["crv"] == "P-256" => Material::P256([vec![4], number("x")?, number("y")?].concat()),
        _ => return None,
    };
    Some(PublicKey { id: jwk["kid"].as_str().map(str::to_owned), material })
}

fn part(text: &str) -> Result<Value, Failure> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| not_a_jwt())?;
    serde_json::from_slice(&bytes).map_err(|_| not_a_jwt())
}

fn audiences(claim: &Value) -> Vec<&str> {
    match claim {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().into_iter().collect(),
    }
}

fn not_a_jwt() -> Failure {
    let message =
        "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)";
    Failure::new(400, "InvalidIdentityToken", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_323_045;
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_is_taken_for_its_audience_until_it_expires() {
        let issuers = Issuers::new(None, None).unwrap();
        let token = issuers.issue("system:serviceaccount:a:b", AUDIENCE, HOUR, NOW);
        assert_eq!(issuers.verify(&token, AUDIENCE, NOW).unwrap().subject, "system:serviceaccount:a:b");
        let code = |token: &str, audience: &str, now| issuers.verify(token, audience, now).unwrap_err().code;
        assert_eq!(code(&token, "other", NOW), "InvalidIdentityToken");
        assert_eq!(code(&token, AUDIENCE, NOW + 3600), "ExpiredTokenException");
        assert_eq!(code("no.jwt.here", AUDIENCE, NOW), "InvalidIdentityToken");
        assert_eq!(code("", AUDIENCE, NOW), "InvalidIdentityToken");
    }

    #[test]
    fn an_altered_token_of_the_emulators_own_is_refused() {
        let issuers = Issuers::new(None, None).unwrap();
        let token = Issuers::new(None, None).unwrap().issue("someone", AUDIENCE, HOUR, NOW);
        assert_eq!(issuers.verify(&token, AUDIENCE, NOW).unwrap_err().code, "InvalidIdentityToken");
    }

    #[test]
    fn with_a_key_set_only_its_keys_count() {
        let signer = Issuers::new(None, None).unwrap();
        let point = signer.own.public_key().as_ref().to_vec();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "k", "x": part(&point[1..33]), "y": part(&point[33..])});
        let sign = |key_id: &str| {
            let header = json!({"alg": "ES256", "kid": key_id}).to_string();
            let claims =
                json!({"iss": "https://cluster", "sub": "s", "aud": AUDIENCE, "exp": NOW + 60}).to_string();
            let signed = format!("{}.{}", part(header.as_bytes()), part(claims.as_bytes()));
            let signature = signer.own.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            format!("{signed}.{}", part(signature.as_ref()))
        };
        let keys = read_jwks(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
        let issuers = Issuers { own: new_key().unwrap(), given: Some(keys), trusted: None };
        assert_eq!(issuers.verify(&sign("k"), AUDIENCE, NOW).unwrap().issuer, "https://cluster");
        assert!(issuers.verify(&sign("another"), AUDIENCE, NOW).is_err());
        let issuers = Issuers { trusted: Some("https://other".to_owned()), ..issuers };
        assert!(issuers.verify(&sign("k"), AUDIENCE, NOW).is_err());
        let issuers = Issuers { trusted: Some("https://cluster".to_owned()), ..issuers };
        assert!(issuers.verify(&sign("k"), AUDIENCE, NOW).is_ok());
        let issuers = Issuers { own: new_key().unwrap(), given: Some(Vec::new()), trusted: None };
        assert!(issuers.verify(&sign("k"), AUDIENCE, NOW).is_err());
    }
}
