//! Which raw tags stay. Pure: the tags' own times decide, not the time of day, so that a lake at rest
//! keeps what it has.

use std::collections::BTreeSet;

use chrono::{DateTime, SubsecRound, Timelike, Utc};

/// `refstore.retain_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRetention {
    /// Newest tags kept; `None` keeps all.
    pub newest: Option<usize>,
    /// Besides those, the first tag of this many hours, the newest that have one.
    pub hourly: usize,
    /// Besides those, the first tag of this many days, the newest that have one.
    pub daily: usize,
}

impl Default for RawRetention {
    fn default() -> Self {
        Self { newest: Some(100), hourly: 24, daily: 30 }
    }
}

impl RawRetention {
    /// Whether so many tags are kept whatever their times are.
    pub(super) fn keeps_all(&self, tags: u64) -> bool {
        self.newest.is_none_or(|newest| tags <= newest as u64)
    }

    /// The times out of `tags`, ascending, whose tags are not kept, ascending.
    pub fn expired(&self, tags: &[DateTime<Utc>]) -> Vec<DateTime<Utc>> {
        let Some(newest) = self.newest else { return Vec::new() };
        let mut kept: BTreeSet<DateTime<Utc>> = tags.iter().rev().take(newest).copied().collect();
        kept.extend(firsts(tags, hour, self.hourly));
        kept.extend(firsts(tags, day, self.daily));
        tags.iter().filter(|tag| !kept.contains(tag)).copied().collect()
    }
}

/// The first tag of each of the newest `count` periods that have one.
fn firsts(
    tags: &[DateTime<Utc>],
    period: fn(&DateTime<Utc>) -> Option<DateTime<Utc>>,
    count: usize,
) -> Vec<DateTime<Utc>> {
    let mut firsts: Vec<DateTime<Utc>> = Vec::new();
    let mut last = None;
    for tag in tags {
        let of = period(tag);
        if last != Some(of) {
            firsts.push(*tag);
            last = Some(of);
        }
    }
    firsts.split_off(firsts.len().saturating_sub(count))
}

fn hour(time: &DateTime<Utc>) -> Option<DateTime<Utc>> {
    time.trunc_subsecs(0).with_second(0)?.with_minute(0)
}

fn day(time: &DateTime<Utc>) -> Option<DateTime<Utc>> {
    hour(time)?.with_hour(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(texts: &[&str]) -> Vec<DateTime<Utc>> {
        texts.iter().map(|text| format!("2026-05-{text}Z").parse().unwrap()).collect()
    }

    fn kept(retention: RawRetention, tags: &[DateTime<Utc>]) -> Vec<String> {
        let expired = retention.expired(tags);
        let kept = tags.iter().filter(|tag| !expired.contains(tag));
        kept.map(|tag| tag.format("%dT%H:%M:%S").to_string()).collect()
    }

    const TAGS: &[&str] = &[
        "01T10:00:00.5",
        "01T23:59:59.999999999",
        "02T00:00:00",
        "02T00:30:00",
        "03T09:00:01",
        "03T09:00:02",
        "03T10:00:00",
        "03T10:59:59",
        "03T11:00:00",
    ];

    #[test]
    fn newest_hourly_and_daily_tags_are_kept() {
        let tags = times(TAGS);
        let of = |newest, hourly, daily| RawRetention { newest, hourly, daily };
        assert_eq!(kept(of(None, 0, 0), &tags).len(), TAGS.len());
        assert_eq!(kept(of(Some(2), 0, 0), &tags), ["03T10:59:59", "03T11:00:00"]);
        assert!(kept(of(Some(0), 0, 0), &tags).is_empty());
        let hours = ["02T00:00:00", "03T09:00:01", "03T10:00:00", "03T11:00:00"];
        assert_eq!(kept(of(Some(0), 4, 0), &tags), hours);
        let days = ["01T10:00:00", "02T00:00:00", "03T09:00:01"];
        assert_eq!(kept(of(Some(0), 0, 9), &tags), days);
        let all = ["02T00:00:00", "03T09:00:01", "03T10:00:00", "03T10:59:59", "03T11:00:00"];
        assert_eq!(kept(of(Some(2), 3, 2), &tags), all);
    }

    /// Flushes every 7 minutes for 40 days, thinned after each as the store does it.
    #[test]
    fn thinning_step_by_step_ends_where_thinning_at_once_would() {
        let retention = RawRetention { newest: Some(5), hourly: 24, daily: 30 };
        let first: DateTime<Utc> = "2026-05-01T00:03:00Z".parse().unwrap();
        let (mut all, mut left) = (Vec::new(), Vec::new());
        for step in 0..40 * 24 * 60 / 7 {
            let tag = first + chrono::TimeDelta::minutes(7 * step);
            all.push(tag);
            left.push(tag);
            let expired = retention.expired(&left);
            left.retain(|tag| !expired.contains(tag));
            assert!(left.len() <= 5 + 24 + 30);
        }
        let at_once = retention.expired(&all);
        all.retain(|tag| at_once.binary_search(tag).is_err());
        assert_eq!(left, all);
    }
}
