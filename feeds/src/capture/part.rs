//! The part of a capture that is played: from one time up to another, which is excluded. Times are the recorder's, those that
//! its lines begin with.

use std::fmt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::market::Time;
use crate::spec::Spec;

/// How a time is written in a spec.
const EXPECTED: &str = "a time such as 2026-11-20T09:15:00+07:00, or nanoseconds since 1970";

/// A part of a capture whose lines' times ascend; where they do not, that of a plain file may begin too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// It begins with the first line of this time or a later one.
    pub start: Time,
    /// It ends before the first line of this time or a later one; `None`: with the last.
    pub end: Option<Time>,
}

impl Part {
    /// All of it.
    pub const WHOLE: Self = Self { start: Time(0), end: None };

    /// What the options `start` and `end` say.
    pub(super) fn from_spec(spec: &Spec) -> Result<Self, String> {
        let start = spec.read("start", Self::WHOLE.start, EXPECTED, parse)?;
        let end = spec.read("end", None, EXPECTED, |text| parse(text).map(Some))?;
        if let Some(end) = end.filter(|end| *end <= start) {
            return Err(format!(
                "option end of {}: {} is not after start, {}",
                spec.kind,
                show(end),
                show(start)
            ));
        }
        Ok(Self { start, end })
    }

    /// Refuses a start in seconds, milliseconds or microseconds: of a line's time it would be a thousandth or less.
    pub(super) fn check(&self, line: Time) -> Result<(), String> {
        let start = self.start;
        if start > Self::WHOLE.start && line.0 / start.0 >= 900 {
            let (number, start, line) = (start.0, show(start), show(line));
            return Err(format!(
                "option start of capture: {number} is {start}, long before its lines of {line}; expected {EXPECTED}"
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end } = *self;
        match end {
            None => write!(f, "from {} on", show(start)),
            Some(end) if start == Self::WHOLE.start => write!(f, "before {}", show(end)),
            Some(end) => write!(f, "from {} on and before {}", show(start), show(end)),
        }
    }
}

/// Reads RFC 3339 or nanoseconds, from 1970 on.
fn parse(text: &str) -> Option<Time> {
    let ns = match text.parse() {
        Ok(ns) => ns,
        Err(_) => OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos().try_into().ok()?,
    };
    (ns >= 0).then_some(Time(ns))
}

/// The time as RFC 3339 in UTC.
pub(super) fn show(time: Time) -> String {
    let date = OffsetDateTime::from_unix_timestamp_nanos(time.0.into()).ok();
    date.and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| time.0.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(options: &str) -> Result<(i64, Option<i64>), String> {
        let part = Part::from_spec(&Spec::parse(&format!("capture:x?{options}")).expect(options))?;
        Ok((part.start.0, part.end.map(|end| end.0)))
    }

    #[test]
    fn times_are_read_with_their_zone_or_as_nanoseconds() {
        let nine = 1_723_194_900_000_000_000; // 9:15 in UTC
        assert_eq!(part(""), Ok((0, None)));
        assert_eq!(part("start=2024-08-09T09:15:00Z"), Ok((nine, None)));
        assert_eq!(part("start=2024-08-09T16:15:00.000000001+07:00"), Ok((nine + 1, None)));
        assert_eq!(part("start=1723194900000000000&end=1723194900000000001"), Ok((nine, Some(nine + 1))));
        for wrong in [
            "yesterday",
            "",
            "2024-08-09",
            "2024-08-09T09:15:00",
            "-1",
            "1960-01-01T00:00:00Z",
            "9999999999999999999",
        ] {
            let error = part(&format!("start={wrong}")).expect_err(wrong);
            assert!(
                error.contains(&format!("start={wrong:?} of capture: expected a time such as")),
                "{error}"
            );
        }
        let error =
            part("start=2024-08-09T09:15:00Z&end=2024-08-09T16:15:00%2B07:00").expect_err("no percent signs");
        assert!(error.contains("option end="), "{error}");
        let error =
            part("start=2024-08-09T09:15:00Z&end=2024-08-09T16:15:00+07:00").expect_err("nothing between");
        assert_eq!(
            error,
            "option end of capture: 2024-08-09T09:15:00Z is not after start, 2024-08-09T09:15:00Z"
        );
    }
}
