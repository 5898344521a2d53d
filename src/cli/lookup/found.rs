//! What the docker configs hold for a registry. Pure.

use std::{path::PathBuf, time::SystemTime};

use super::{Credential, SPARE};
use crate::{
    aws::token::LONGEST_LIFE,
    clock::rfc3339,
    failure::shown_value::clean_path,
    output::file::lookup::{End, Held},
};

#[derive(Default)]
pub(super) struct Found {
    /// Known to be valid, and until when.
    pub(super) living: Option<(Credential, SystemTime)>,
    /// Of near or unknown expiry, and where it is.
    pub(super) last_resort: Option<(Credential, PathBuf)>,
    /// Why the others are of no use.
    pub(super) notes: Vec<String>,
}

impl Found {
    pub(super) fn judge(&mut self, Held { auth, end }: Held, path: PathBuf, now: SystemTime) {
        let Some(credential) = Credential::of_auth(&auth) else {
            return self.notes.push(format!("that of `{}` is not base64", clean_path(&path)));
        };
        match end {
            End::Known(end) if end > now + SPARE => self.living = Some((credential, end)),
            End::Known(end) if end <= now => {
                self.notes.push(format!("that of `{}` expired at {}", clean_path(&path), rfc3339(end)));
            }
            // The age of a file from the future is unknown.
            End::Unknown { changed_at }
                if now.duration_since(changed_at).is_ok_and(|age| age >= LONGEST_LIFE) =>
            {
                self.notes.push(format!("that of `{}` is older than 12 hours", clean_path(&path)));
            }
            End::Known(_) | End::Unknown { .. } => {
                self.last_resort = self.last_resort.take().or(Some((credential, path)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;
    use crate::secret::Secret;

    /// Any process that may write to the volume may set these times.
    #[test]
    fn an_absurd_time_of_a_file_is_taken() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(i64::MAX.unsigned_abs());
        let held = |end| Held { auth: Secret::new(STANDARD.encode("AWS:x")), end };
        for (changed_at, is_last_resort) in [
            (latest, true),
            (now + LONGEST_LIFE, true),
            (now - LONGEST_LIFE, false),
            (SystemTime::UNIX_EPOCH - Duration::from_secs(1 << 40), false),
        ] {
            let mut found = Found::default();
            found.judge(held(End::Unknown { changed_at }), PathBuf::from("/x"), now);
            assert_eq!(found.last_resort.is_some(), is_last_resort, "{changed_at:?}");
            assert!(found.living.is_none());
        }
    }
}
