//! How long a credential can be used, as far as that is known. Pure.

use std::time::{Duration, SystemTime};

use super::SPARE;
use crate::aws::token::{LONGEST_LIFE, Token};

/// A credential that could be replaced by a newer one is kept no longer than this.
const RECHECK: Duration = Duration::from_secs(300);

/// What is known of the life of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Until then no newer one is requested.
    Fresh {
        until: SystemTime,
    },
    /// It is valid, and a newer one may be available by now: AWS is asked, or a sidecar asks it.
    Known {
        expires_at: SystemTime,
    },
    Unknown,
}

impl Life {
    pub(super) fn of(token: &Token, now: SystemTime) -> Self {
        match is_fresh(token, now) {
            true => Self::Fresh { until: half_over_at(token) },
            false => Self::Known { expires_at: token.expires_at },
        }
    }

    /// How long another program may keep it without asking again. Never beyond its expiry, and no longer than half of
    /// the longest life, whatever a token claims.
    pub fn may_be_kept_for(self, now: SystemTime) -> Duration {
        let left = |end: SystemTime| end.duration_since(now).unwrap_or_default();
        match self {
            Self::Fresh { until } => left(until).min(LONGEST_LIFE / 2),
            Self::Known { expires_at } => left(expires_at).saturating_sub(SPARE).min(RECHECK),
            Self::Unknown => Duration::ZERO,
        }
    }
}

/// Less than half of its life is over: after that, a newer one is requested, as the sidecar does.
pub(super) fn is_fresh(token: &Token, now: SystemTime) -> bool {
    let left = token.expires_at.duration_since(now).unwrap_or_default();
    left > SPARE && left > life(token) / 2
}

fn half_over_at(token: &Token) -> SystemTime {
    token.expires_at.checked_sub(life(token) / 2).unwrap_or(token.obtained_at)
}

fn life(token: &Token) -> Duration {
    token.expires_at.duration_since(token.obtained_at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn at(hours: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(1_800_000_000.0 + hours * 3600.0)
    }

    fn kept_for(expires_at: f64, now: f64) -> u64 {
        let token =
            Token { auth: Secret::new(String::new()), obtained_at: at(0.0), expires_at: at(expires_at) };
        Life::of(&token, at(now)).may_be_kept_for(at(now)).as_secs()
    }

    #[test]
    fn a_token_is_kept_to_the_half_of_its_life_then_for_minutes_and_never_beyond_its_end() {
        assert_eq!(kept_for(12.0, 0.0), 6 * 3600);
        assert_eq!(kept_for(12.0, 5.0), 3600);
        assert_eq!(kept_for(12.0, 6.0), 300);
        assert_eq!(kept_for(12.0, 11.0), 300);
        assert_eq!(kept_for(12.0, 12.0 - 40.0 / 3600.0), 30);
        assert_eq!([kept_for(12.0, 12.0), kept_for(12.0, 13.0)], [0, 0]);
        assert_eq!(Life::Unknown.may_be_kept_for(at(0.0)), Duration::ZERO);
    }

    #[test]
    fn absurd_dates_keep_nothing_for_long() {
        assert_eq!(kept_for(876_000.0, 0.0), 6 * 3600);
        assert_eq!(kept_for(-1.0, 0.0), 0);
        assert_eq!(kept_for(10.0 / 3600.0, 0.0), 0);
        assert!(kept_for(12.0, -1000.0) <= 6 * 3600, "the clock was set back");
    }
}
