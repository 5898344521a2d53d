use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::{aws::identity::Source, registry::Region};

fn key() -> TokenKey {
    TokenKey::from_host(&"123456789012.dkr.ecr.eu-west-1.amazonaws.com".parse().unwrap(), "default").unwrap()
}

fn spec() -> IdentitySpec {
    IdentitySpec {
        name: "default".into(),
        source: Source::Auto,
        assume_roles: Vec::new(),
        sts_region: Region::us_east_1(),
        expect_account: None,
    }
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn token() -> Token {
    Token { auth: Secret::new("QVdTOng=".into()), obtained_at: at(100), expires_at: at(200) }
}

fn slot(env: &[(&str, &str)]) -> Result<Slot, CacheError> {
    Slot::open(&key(), &spec(), &Environment::from_pairs(env.iter().copied()))
}

fn home() -> (TempDir, String) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().to_str().unwrap().to_owned();
    (home, path)
}

#[test]
fn a_token_is_kept_for_its_owner_alone() {
    let (_home, path) = home();
    let slot = slot(&[("HOME", &path)]).unwrap();
    assert_eq!(slot.token(at(100)), None);
    slot.keep(&token(), at(100)).unwrap();
    assert_eq!(slot.token(at(100)), Some(token()));
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&slot.path()), mode(&slot.folder)), (0o600, 0o700));
    assert!(slot.path().starts_with(format!("{path}/.cache/ecr-sidecar")));
}

#[test]
fn the_runtime_folder_goes_before_the_cache_and_that_before_the_home() {
    let (_a, runtime) = home();
    let (_b, cache) = home();
    let (_c, home) = home();
    let variables = [("XDG_RUNTIME_DIR", &*runtime), ("XDG_CACHE_HOME", &*cache), ("HOME", &*home)];
    for (skipped, folder) in [&runtime, &cache, &format!("{home}/.cache")].into_iter().enumerate() {
        assert_eq!(slot(&variables[skipped..]).unwrap().folder, Path::new(folder).join("ecr-sidecar"));
    }
    let relative = [("XDG_RUNTIME_DIR", "run"), ("HOME", &*home)];
    assert!(slot(&relative).unwrap().folder.starts_with(&home));
    assert!(matches!(slot(&[]), Err(CacheError::Nowhere)));
}

#[test]
fn an_open_cache_is_not_used() {
    let (_home, path) = home();
    let env = [("HOME", path.as_str())];
    let kept = slot(&env).unwrap();
    kept.keep(&token(), at(100)).unwrap();

    fs::set_permissions(kept.path(), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(kept.token(at(100)), None);
    fs::set_permissions(kept.path(), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(kept.token(at(100)).is_some());

    for mode in [0o750, 0o705, 0o720] {
        fs::set_permissions(&kept.folder, fs::Permissions::from_mode(mode)).unwrap();
        assert!(matches!(slot(&env), Err(CacheError::Open { .. })), "{mode:o}");
    }
    fs::set_permissions(&kept.folder, fs::Permissions::from_mode(0o700)).unwrap();
    slot(&env).unwrap();

    let elsewhere = format!("{path}/elsewhere");
    fs::rename(&kept.folder, &elsewhere).unwrap();
    symlink(&elsewhere, &kept.folder).unwrap();
    assert!(slot(&env).is_err(), "a link to a folder");
}

#[test]
fn another_users_folder_is_not_used() {
    if !rustix::process::geteuid().is_root() {
        return; // it takes root to give a folder away
    }
    let (home, path) = home();
    std::os::unix::fs::chown(home.path(), Some(12_345), None).unwrap();
    assert!(matches!(slot(&[("HOME", &path)]), Err(CacheError::Open { owner: 12_345, .. })));
    assert!(!home.path().join(".cache").exists(), "nothing is left in another's home");
}

#[test]
fn garbage_is_no_token() {
    let (_home, path) = home();
    let slot = slot(&[("HOME", &path)]).unwrap();
    slot.keep(&token(), at(100)).unwrap();
    for text in [
        "",
        "{",
        "[]",
        r#"{"auth":1}"#,
        r#"{"auth":"a","obtained_at":0,"expires_at":253402300799}"#, // the year 9999
        &format!(r#"{{"auth":"a","obtained_at":0,"expires_at":{}}}"#, u64::MAX),
    ] {
        let mut file = OpenOptions::new().write(true).truncate(true).open(slot.path()).unwrap();
        io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        assert_eq!(slot.token(at(100)), None, "{text}");
    }
}

#[test]
fn what_decides_the_principal_decides_the_place() {
    let (home, path) = home();
    fs::create_dir(home.path().join(".aws")).unwrap();
    let config = |text: &str| {
        let mut file = File::create(home.path().join(".aws/config")).unwrap();
        io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    };
    let name = |further: &[(&str, &str)]| slot(&[&[("HOME", &*path)], further].concat()).unwrap().name;
    let usual = name(&[]);
    assert_eq!(usual, name(&[("AWS_SESSION_TOKEN", "a"), ("PATH", "b")]));
    for variable in
        ["AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", "AWS_ENDPOINT_URL", "AWS_CONFIG_FILE"]
    {
        assert_ne!(usual, name(&[(variable, "x")]), "{variable}");
    }
    config("[default]\nrole_arn = one");
    let one = name(&[]);
    config("[default]\nrole_arn = two");
    assert_ne!(one, name(&[]), "the profile's content");

    let env = Environment::from_pairs([("HOME", &*path)]);
    let named = |key: &TokenKey, spec: &IdentitySpec| super::name(key, spec, &env);
    let other_key = TokenKey { region: Region::us_east_1(), ..key() };
    let other_spec = IdentitySpec { source: Source::Imds, ..spec() };
    assert_ne!(named(&key(), &spec()), named(&other_key, &spec()));
    assert_ne!(named(&key(), &spec()), named(&key(), &other_spec));
}

#[test]
fn one_fetches_at_a_time_and_old_tokens_go() {
    let (_home, path) = home();
    let slot = slot(&[("HOME", &path)]).unwrap();
    let fetching = slot.fetching().unwrap();
    assert!(slot.try_fetching().is_none());
    drop(fetching);
    assert!(slot.try_fetching().is_some());

    slot.keep(&token(), at(100)).unwrap();
    let old = slot.folder.join("old.token");
    fs::copy(slot.path(), &old).unwrap();
    let written_at = fs::metadata(&old).unwrap().modified().unwrap();
    slot.keep(&token(), written_at + KEPT / 2).unwrap();
    assert!(old.exists());
    slot.keep(&token(), written_at + KEPT * 2).unwrap();
    assert!(!old.exists() && slot.token(at(100)).is_some());

    for number in 0..MOST {
        File::create(slot.folder.join(format!("{number}.token"))).unwrap().set_modified(written_at).unwrap();
    }
    slot.keep(&token(), written_at).unwrap();
    assert_eq!(fs::read_dir(&slot.folder).unwrap().count(), MOST + 1, "and the lock");
    assert!(slot.token(at(100)).is_some(), "the newest stays");
}
