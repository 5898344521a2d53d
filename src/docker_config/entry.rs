//! One entry of `auths`: its user, and whether docker and go-containerregistry can take it.

use std::borrow::Cow;

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// The `auth` of an entry: none when it has none or an empty one.
pub(crate) fn auth(entry: &RawValue) -> Result<Option<Cow<'_, str>>, BadAuth> {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(borrow, default)]
        auth: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    if entry.get() == "null" {
        return Ok(None);
    }
    if !entry.get().starts_with('{') {
        return Err(BadAuth::NotAnEntry);
    }
    let entry: Entry<'_> = serde_json::from_str(entry.get()).map_err(|_| BadAuth::NotAnEntry)?;
    let Some(raw) = entry.auth else { return Ok(None) };
    let Text(auth) = serde_json::from_str(raw.get()).map_err(|_| BadAuth::NotText)?;
    Ok(Some(auth).filter(|auth| !auth.is_empty()))
}

/// What is wrong with an entry, such that docker and go-containerregistry reject the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadAuth {
    #[error("it is not an object")]
    NotAnEntry,
    #[error("its `auth` is not a string")]
    NotText,
    #[error("its `auth` is not padded base64")]
    NotBase64,
    #[error("its `auth` does not decode to USER:PASSWORD")]
    NoUser,
}

/// Whether docker and go-containerregistry can take the entry.
pub(super) fn check(entry: &RawValue) -> Result<(), BadAuth> {
    auth(entry)?.map_or(Ok(()), |auth| user(&auth).map(drop))
}

/// Whether the entry is a token of ECR, ours or another's.
pub(crate) fn is_ecr_token(entry: &RawValue) -> bool {
    auth(entry).ok().flatten().is_some_and(|auth| user(&auth).is_ok_and(|user| user.as_slice() == b"AWS"))
}

/// Whether the entry is one of the user `AWS`, however it is written: as `auth`, or as `username` without it.
pub(super) fn is_of_aws(entry: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(borrow, default)]
        username: Option<Cow<'a, str>>,
    }
    match auth(entry) {
        Ok(Some(auth)) => user(&auth).is_ok_and(|user| user.as_slice() == b"AWS"),
        Ok(None) => serde_json::from_str::<Entry<'_>>(entry.get())
            .is_ok_and(|entry| entry.username.as_deref() == Some("AWS")),
        Err(_) => false,
    }
}

/// The user in an `auth` value, as docker decodes it: line breaks are skipped, padding is not optional.
fn user(auth: &str) -> Result<Zeroizing<Vec<u8>>, BadAuth> {
    const AS_GO: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
    );
    let decoded = if auth.contains(['\r', '\n']) {
        AS_GO.decode(Zeroizing::new(auth.replace(['\r', '\n'], "")).as_bytes())
    } else {
        AS_GO.decode(auth)
    };
    let mut decoded = Zeroizing::new(decoded.map_err(|_| BadAuth::NotBase64)?);
    match decoded.iter().position(|&b| b == b':') {
        None | Some(0) => Err(BadAuth::NoUser),
        Some(colon) => {
            zeroize::Zeroize::zeroize(&mut decoded[colon..]);
            decoded.truncate(colon);
            Ok(decoded)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn an_auth_is_judged_as_docker_judges_it() {
        let cases = [
            ("{\"auth\":\"QVdTOng=\"}", Ok(())), // AWS:x
            ("{\"auth\":\"QVdT\\u004fng=\"}", Ok(())),
            ("{\"auth\":\"QVdT\\nOng=\"}", Ok(())),
            ("{\"auth\":\"\"}", Ok(())),
            ("{\"auth\":null}", Ok(())),
            ("{}", Ok(())),
            ("null", Ok(())),
            ("{\"username\":\"u\",\"password\":\"p\"}", Ok(())),
            ("{\"auth\":\"QVdTOng\"}", Err(BadAuth::NotBase64)),
            ("{\"auth\":\"QVdTO_g=\"}", Err(BadAuth::NotBase64)),
            ("{\"auth\":\"!\"}", Err(BadAuth::NotBase64)),
            ("{\"auth\":\"QVdT\"}", Err(BadAuth::NoUser)), // AWS
            ("{\"auth\":\"Ong=\"}", Err(BadAuth::NoUser)), // :x
            ("{\"auth\":7}", Err(BadAuth::NotText)),
            ("[]", Err(BadAuth::NotAnEntry)),
            ("\"QVdTOng=\"", Err(BadAuth::NotAnEntry)),
        ];
        for (entry, verdict) in cases {
            assert_eq!(check(raw(entry)), verdict, "{entry}");
        }
        assert!(is_ecr_token(raw("{\"auth\":\"QVdTOng=\"}")));
        assert!(!is_ecr_token(raw("{\"auth\":\"QVdTQTp4\"}"))); // AWSA:x
        assert!(!is_ecr_token(raw("{}")));
    }
}
