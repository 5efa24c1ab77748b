//! The trading calendar: which phase a market is in at a time, and which day's trading it belongs to.
//!
//! Pure functions of a time and a caller-given set of holidays; no clock and no time-zone data are read.
//! Bound kept here: a search for a trading day looks at most [`SEARCH_DAYS`] days away.

use std::collections::BTreeSet;

use crate::market::{Phase, Time};

const NS_PER_SECOND: i64 = 1_000_000_000;
const NS_PER_DAY: i64 = 86_400 * NS_PER_SECOND;

/// Vietnam has kept UTC+7 without daylight saving since 1975, so a constant is exact.
const VIETNAM_OFFSET: i64 = 7 * 3_600 * NS_PER_SECOND;

/// How far a search for a trading day goes; Tết, the longest closure, takes about nine days.
pub const SEARCH_DAYS: i32 = 400;

/// A civil (proleptic Gregorian) date, held as days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(i32);

impl Date {
    /// The date of that year, month and day; `None` where the calendar has no such day.
    pub fn from_ymd(year: i32, month: u32, day: u32) -> Option<Self> {
        if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let date = Self(days_from_civil(year, month as i32, day as i32));
        // The 31st of a shorter month runs over into the next one and so comes back as another date.
        (date.ymd() == (year, month, day)).then_some(date)
    }

    /// The date that many days after 1970-01-01.
    pub const fn from_days(days: i32) -> Self {
        Self(days)
    }

    /// Days since 1970-01-01.
    pub const fn days(self) -> i32 {
        self.0
    }

    /// Year, month (1 to 12) and day (1 to 31).
    pub const fn ymd(self) -> (i32, u32, u32) {
        // Eras of 400 years that begin on 1 March put the leap day last, where it disturbs no month.
        let shifted = self.0 + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
        (year, month as u32, day as u32)
    }

    /// The number yyyymmdd: how an image holds a date.
    pub const fn yyyymmdd(self) -> u32 {
        let (year, month, day) = self.ymd();
        year as u32 * 10_000 + month * 100 + day
    }

    /// The day after.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Whether it is a Saturday or a Sunday.
    pub const fn is_weekend(self) -> bool {
        // Day 0 was a Thursday, so Monday is 0 after three more days.
        (self.0 + 3).rem_euclid(7) >= 5
    }
}

const fn days_from_civil(year: i32, month: i32, day: i32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * march_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

/// When a market trades.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Calendar {
    /// Ho Chi Minh City: Monday to Friday but for these holidays, sessions in UTC+7.
    Hose(BTreeSet<Date>),
    /// 24 hours on 7 days, days counted in UTC.
    AlwaysOpen,
}

const fn hm(hour: i64, minute: i64) -> i64 {
    (hour * 60 + minute) * 60 * NS_PER_SECOND
}

/// Where each phase of a HOSE trading day begins, in local time of day.
const HOSE_DAY: [(i64, Phase); 8] = [
    (hm(0, 0), Phase::PreOpen),
    (hm(9, 0), Phase::Ato),
    (hm(9, 15), Phase::Continuous),
    (hm(11, 30), Phase::Break),
    (hm(13, 0), Phase::Continuous),
    (hm(14, 30), Phase::Atc),
    // The closing match is stamped 14:45:00, the first instant of this phase.
    (hm(14, 45), Phase::PutThrough),
    (hm(15, 0), Phase::Closed),
];

impl Calendar {
    /// The phase at `time`; a phase holds its first instant and not its last.
    pub fn phase(&self, time: Time) -> Phase {
        match self {
            Self::AlwaysOpen => Phase::Continuous,
            Self::Hose(_) => {
                let (date, time_of_day) = hose_local(time);
                if !self.is_trading_day(date) {
                    return Phase::Closed;
                }
                HOSE_DAY
                    .iter()
                    .rfind(|(begin, _)| *begin <= time_of_day)
                    .map_or(Phase::Closed, |&(_, phase)| phase)
            }
        }
    }

    /// The day whose trading a message of this time belongs to: today's from midnight on where there is trading today,
    /// else the last trading day's.
    pub fn trading_date(&self, time: Time) -> Date {
        match self {
            Self::AlwaysOpen => self.civil_date(time),
            Self::Hose(_) => {
                let today = self.civil_date(time);
                let back = (0..SEARCH_DAYS).map(|days| Date(today.0 - days));
                back.into_iter().find(|&date| self.is_trading_day(date)).unwrap_or(today)
            }
        }
    }

    /// The date on the wall at the venue.
    pub fn civil_date(&self, time: Time) -> Date {
        match self {
            Self::AlwaysOpen => Date(time.0.div_euclid(NS_PER_DAY) as i32),
            Self::Hose(_) => hose_local(time).0,
        }
    }

    /// Whether there is trading on that date.
    pub fn is_trading_day(&self, date: Date) -> bool {
        match self {
            Self::AlwaysOpen => true,
            Self::Hose(holidays) => !date.is_weekend() && !holidays.contains(&date),
        }
    }

    /// The first trading day after `date`; `None` when the holidays leave none in sight.
    pub fn next_trading_day(&self, date: Date) -> Option<Date> {
        (1..=SEARCH_DAYS).map(|days| Date(date.0 + days)).find(|&date| self.is_trading_day(date))
    }
}

/// Date and time of day (in nanoseconds) in Vietnam.
fn hose_local(time: Time) -> (Date, i64) {
    let local = time.0.saturating_add(VIETNAM_OFFSET);
    (Date(local.div_euclid(NS_PER_DAY) as i32), local.rem_euclid(NS_PER_DAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(year: i32, month: u32, day: u32) -> Date {
        Date::from_ymd(year, month, day).expect("a date of the test")
    }

    fn at(date: Date, hour: i64, minute: i64) -> Time {
        Time(i64::from(date.days()) * NS_PER_DAY + hm(hour, minute) - VIETNAM_OFFSET)
    }

    fn hose(holidays: &[Date]) -> Calendar {
        Calendar::Hose(holidays.iter().copied().collect())
    }

    #[test]
    fn dates_go_there_and_back_for_two_centuries() {
        assert_eq!(date(1970, 1, 1).days(), 0);
        assert_eq!(date(2000, 3, 1).days(), 11_017);
        assert_eq!(date(2026, 11, 22).yyyymmdd(), 20_261_122);
        let mut expected = (1970, 1, 1);
        for days in 0..73_049 {
            let found = Date::from_days(days);
            assert_eq!(found.ymd(), expected);
            assert_eq!(Date::from_ymd(expected.0, expected.1, expected.2), Some(found));
            expected = the_day_after(expected);
        }
    }

    fn the_day_after((year, month, day): (i32, u32, u32)) -> (i32, u32, u32) {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let last =
            [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month as usize - 1];
        match (month, day) {
            (12, 31) => (year + 1, 1, 1),
            (_, day) if day == last => (year, month + 1, 1),
            _ => (year, month, day + 1),
        }
    }

    #[test]
    fn days_that_are_not_in_the_calendar_are_refused() {
        for (year, month, day) in
            [(2025, 2, 29), (2100, 2, 29), (2026, 4, 31), (2026, 13, 1), (2026, 0, 1), (2026, 1, 0)]
        {
            assert_eq!(Date::from_ymd(year, month, day), None);
        }
        assert!(Date::from_ymd(2024, 2, 29).is_some() && Date::from_ymd(2000, 2, 29).is_some());
    }

    #[test]
    fn every_boundary_of_a_hose_day_is_exact_to_the_nanosecond() {
        let (calendar, friday) = (hose(&[]), date(2026, 11, 20));
        let day = [
            (0, 0, Phase::PreOpen),
            (9, 0, Phase::Ato),
            (9, 15, Phase::Continuous),
            (11, 30, Phase::Break),
            (13, 0, Phase::Continuous),
            (14, 30, Phase::Atc),
            (14, 45, Phase::PutThrough),
            (15, 0, Phase::Closed),
        ];
        let mut before = Phase::Closed;
        for (hour, minute, phase) in day {
            let begin = at(friday, hour, minute);
            assert_eq!(calendar.phase(Time(begin.0 - 1)), before, "just before {hour}:{minute}");
            assert_eq!(calendar.phase(begin), phase, "at {hour}:{minute}");
            before = phase;
        }
        // 09:00 in Vietnam is 02:00 UTC: 2026-11-20T02:00:00Z.
        assert_eq!(at(friday, 9, 0), Time(1_795_140_000 * NS_PER_SECOND));
    }

    #[test]
    fn weekends_and_holidays_are_closed_and_belong_to_the_last_trading_day() {
        let friday = date(2026, 11, 20);
        let (saturday, sunday, monday, tuesday) =
            (friday.next(), date(2026, 11, 22), date(2026, 11, 23), date(2026, 11, 24));
        let plain = hose(&[]);
        for day in [saturday, sunday] {
            assert!(day.is_weekend());
            assert_eq!(plain.phase(at(day, 10, 0)), Phase::Closed);
            assert_eq!(plain.trading_date(at(day, 10, 0)), friday);
        }
        assert_eq!(plain.next_trading_day(friday), Some(monday));
        assert_eq!(plain.trading_date(at(monday, 0, 0)), monday);
        assert_eq!(plain.trading_date(Time(at(monday, 0, 0).0 - 1)), friday);

        let holiday = hose(&[monday]);
        assert_eq!(holiday.phase(at(monday, 10, 0)), Phase::Closed);
        assert_eq!(holiday.trading_date(at(monday, 10, 0)), friday);
        assert_eq!(holiday.next_trading_day(friday), Some(tuesday));
    }

    #[test]
    fn each_trading_day_of_a_year_has_eight_phases() {
        let calendar = hose(&[date(2026, 1, 1), date(2026, 4, 30), date(2026, 5, 1), date(2026, 9, 2)]);
        let minute = 60 * NS_PER_SECOND;
        let minutes = (at(date(2026, 1, 1), 0, 0).0..at(date(2027, 1, 1), 0, 0).0).step_by(minute as usize);
        let changes = minutes.filter(|&ns| calendar.phase(Time(ns)) != calendar.phase(Time(ns - minute)));
        // 261 weekdays, four of them holidays here.
        assert_eq!(changes.count(), 8 * 257);
    }

    #[test]
    fn a_market_that_never_closes_counts_days_in_utc() {
        let (calendar, time) = (Calendar::AlwaysOpen, at(date(2026, 11, 22), 3, 0));
        assert_eq!(calendar.phase(time), Phase::Continuous);
        assert_eq!(
            calendar.trading_date(time),
            date(2026, 11, 21),
            "03:00 in Vietnam is 20:00 UTC of the day before"
        );
    }

    #[test]
    fn holidays_without_end_do_not_loop() {
        let first = date(2026, 1, 1);
        let all: Vec<_> = (-500..500).map(|days| Date::from_days(first.days() + days)).collect();
        let calendar = hose(&all);
        assert_eq!(calendar.next_trading_day(first), None);
        assert_eq!(calendar.trading_date(at(first, 9, 0)), first);
    }
}
