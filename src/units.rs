//! Values that a configuration has as text: percentages and durations.

use std::{fmt, str::FromStr, time::Duration};

/// A part of a whole, written `50%`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

impl Percent {
    pub fn as_fraction(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let number = text.strip_suffix('%').and_then(|number| number.parse::<u8>().ok());
        match number {
            Some(number @ 0..=100) => Ok(Self(number)),
            _ => Err(UnitError::Percent),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("a whole percentage such as 50%")]
    Percent,
    #[error("a duration such as 500ms, 60s, 5m or 1h")]
    Duration,
}

/// So that a time from now is always one that the system can express.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// A duration of one number and one unit: `500ms`, `60s`, `5m`, `1h`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(UnitError::Duration)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| UnitError::Duration)?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    millis.map(Duration::from_millis).filter(|duration| *duration <= LONGEST).ok_or(UnitError::Duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        assert_eq!("50%".parse::<Percent>().unwrap().as_fraction(), 0.5);
        for bad in ["50", "101%", "-1%", "5.5%", "%", "", "50 %", "50%%"] {
            assert_eq!(bad.parse::<Percent>(), Err(UnitError::Percent), "{bad}");
        }
    }

    #[test]
    fn durations() {
        let table = [("500ms", 500), ("60s", 60_000), ("5m", 300_000), ("1h", 3_600_000), ("0s", 0)];
        for (text, millis) in table {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["60", "", "s", "1d", "-1s", "1.5s", "1m30s", "99999999999h", "99999999999999ms", "1 s"] {
            assert_eq!(parse_duration(bad), Err(UnitError::Duration), "{bad}");
        }
    }
}
