//! The kill points of docs/reliability.md, and the ways to go there.

use std::fmt;
use std::str::FromStr;

/// Where a process is ended or a step fails; the product asks at each of these places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    /// Its name in the product's code.
    pub(super) name: &'static str,
    /// Where that is.
    pub(super) place: &'static str,
    /// The hit that counts in the first life: late enough that something is committed already.
    pub(super) hit: u64,
    /// Whether files must be large enough to go up in parts.
    pub(super) in_parts: bool,
}

impl Point {
    /// Whether it lies in `init`; the others lie in `start`.
    pub(super) fn is_init(&self) -> bool {
        self.name.starts_with('i')
    }

    /// Whether it lies in compaction, which must be at work for it.
    pub(super) fn is_compaction(&self) -> bool {
        self.name.starts_with('c')
    }

    /// Whether what dies is the server: the daemon has no place of its own for that.
    pub(super) fn is_server(&self) -> bool {
        self.name == "s19"
    }
}

const fn point(name: &'static str, place: &'static str, hit: u64) -> Point {
    Point { name, place, hit, in_parts: false }
}

const fn in_parts(name: &'static str, place: &'static str, hit: u64) -> Point {
    Point { name, place, hit, in_parts: true }
}

/// All points.
pub(super) const POINTS: [Point; 36] = [
    point("i1", "publication made", 1),
    point("i2", "slot made", 1),
    point("i3", "before the record of the unfinished init", 1),
    point("i4", "in the middle of COPY of a table", 2),
    point("i5", "base file closed, not uploaded", 2),
    in_parts("i6", "in the middle of a multipart upload", 1),
    point("i7", "before the catalog create", 3),
    point("i8", "after a table was created", 3),
    point("i9", "before the manifest", 1),
    point("i10", "after the manifest, snapshot still held", 1),
    point("s1", "BEGIN", 5),
    point("s2", "inside a transaction", 9),
    point("s3", "COMMIT parsed", 5),
    point("s4", "transaction queued", 4),
    point("s5", "flush chosen", 2),
    point("s6", "chunk encoded", 3),
    in_parts("s7", "part of a delta file uploaded", 1),
    in_parts("s8", "upload completed, reply lost", 1),
    point("s9", "before a catalog commit", 4),
    point("s10", "metadata written, pointer not swapped", 3),
    point("s11", "pointer swapped, reply lost", 4),
    point("s12", "a table of several committed", 3),
    point("s13", "before the manifest's swap", 2),
    point("s14", "manifest swapped, reply lost", 3),
    point("s15", "before the refs", 2),
    point("s16", "refs swapped, reply lost", 2),
    point("s17", "before local state", 3),
    point("s18", "before the status update", 2),
    point("s19", "status sent, the server dies", 1),
    point("c1", "compaction: inputs chosen", 3),
    point("c2", "new files written", 2),
    point("c3", "before the replace commit", 2),
    point("c4", "replaced, reply lost", 2),
    point("c5", "before the manifest of a compaction", 2),
    point("c6", "in the middle of the sweep", 2),
    point("c7", "between a flush and the replace commit that follows it", 1),
];

/// The points that `--points` names: single ones and ranges, as in `i4,s9-s14`.
pub(super) fn chosen(text: &str) -> Result<Vec<Point>, String> {
    let index = |name: &str| {
        POINTS
            .iter()
            .position(|point| point.name == name.trim())
            .ok_or_else(|| format!("`{name}` is no kill point"))
    };
    let mut found = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = index(first)?..=index(last)?;
        found.extend(POINTS.get(range).unwrap_or_default());
    }
    Ok(found)
}

/// Where the lake of a trial is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Store {
    /// A directory.
    Filesystem,
    /// A bucket, behind a proxy that now and then refuses a call or loses an answer.
    S3,
}

impl Store {
    /// The word on the command line and in names.
    pub(super) fn word(self) -> &'static str {
        match self {
            Store::Filesystem => "filesystem",
            Store::S3 => "s3",
        }
    }
}

impl FromStr for Store {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = [Store::Filesystem, Store::S3].into_iter().find(|store| store.word() == text);
        found.ok_or_else(|| format!("`{text}` is neither filesystem nor s3"))
    }
}

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// SIGKILL.
    Kill,
    /// SIGKILL a moment later, while the step is held and all else goes on: what was confirmed too
    /// early has reached the server by then.
    Late,
    /// The process aborts itself.
    Abort,
    /// The step fails, or its reply is lost.
    Error,
    /// SIGSTOP, and SIGCONT after a successor has tried to take over.
    Stop,
}

impl Kind {
    /// All kinds.
    pub(super) const ALL: [Kind; 5] =
        [Kind::Kill, Kind::Late, Kind::Abort, Kind::Error, Kind::Stop];

    /// The word on the command line and in `PGCDC_FAILPOINT`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Late => "late",
            Kind::Abort => "abort",
            Kind::Error => "error",
            Kind::Stop => "stop",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Kind::ALL.into_iter().find(|kind| kind.word() == text);
        found.ok_or_else(|| format!("`{text}` is not one of kill, late, abort, error, stop"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_names_single_points_and_ranges() {
        let names = |text| chosen(text).map(|points| points.iter().map(|p| p.name).collect());
        assert_eq!(names("s2,i9-s1"), Ok(vec!["s2", "i9", "i10", "s1"]));
        assert_eq!(names("s19-c2"), Ok(vec!["s19", "c1", "c2"]));
        assert_eq!(names("s20"), Err("`s20` is no kill point".to_owned()));
    }
}
