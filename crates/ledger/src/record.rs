//! One line of a ledger: what happened, when, where.
//!
//! A line is one JSON object of at most [`LINE_BYTES_MAX`] bytes. Fields that mean nothing for a
//! kind are left out. Whoever reads a file must expect lines of later versions, torn lines and
//! lines that nobody should have written: each is skipped and counted, none ends the reading.

use bio::{Event, EventKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The version of the lines that are written here.
const VERSION: u32 = 1;
/// The longest line, its end included. Texts are cut so that none is longer, whatever has to be
/// escaped in them.
pub const LINE_BYTES_MAX: usize = 8192;

const NAME_BYTES_MAX: usize = 512;
const DEVICE_BYTES_MAX: usize = 128;
const DETAIL_BYTES_MAX: usize = 256;
const TAG_BYTES_MAX: usize = 1024;

/// A moment, in milliseconds since 1970 UTC; as text in RFC 3339.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Time(u64);

/// The last moment of the year 9999, which RFC 3339 can say.
const TIME_MAX: u64 = 253_402_300_799_999;

impl Time {
    /// The present, by the machine's clock.
    #[must_use]
    pub fn now() -> Self {
        Self::of(SystemTime::now())
    }

    /// From the system's own; what lies before 1970 or after 9999 becomes the nearest that can be
    /// said.
    #[must_use]
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(TIME_MAX).min(TIME_MAX))
    }

    /// From text in RFC 3339, UTC.
    ///
    /// # Errors
    /// [`LineError::Time`].
    pub fn parse(text: &str) -> Result<Self, LineError> {
        humantime::parse_rfc3339(text).map(Self::of).map_err(|_| LineError::Time)
    }

    /// From what a person says: a moment in RFC 3339 (its time, and the `Z`, may be left out), or
    /// how long before `self` (`36h`, `2days`).
    ///
    /// # Errors
    /// [`LineError::Time`].
    pub fn parse_since(self, text: &str) -> Result<Self, LineError> {
        if let Ok(ago) = humantime::parse_duration(text) {
            let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
            return Ok(Self(self.0.saturating_sub(ago)));
        }
        let midnight = format!("{text}T00:00:00");
        let moment = humantime::parse_rfc3339_weak(text)
            .or_else(|_| humantime::parse_rfc3339_weak(&midnight));
        moment.map(Self::of).map_err(|_| LineError::Time)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_millis(self.0);
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// What a line says.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A block is not what its tag vouches for.
    Mismatch,
    /// The device could not read it.
    MediumError,
    /// Rebuilt, written back, read again.
    Healed,
    /// Damaged, redundancy has it, nothing was written.
    Healable,
    /// Nothing can give it back.
    Lost,
    /// All tags are valid, and the redundancy disagrees.
    Inconsistent,
    /// Redundancy was made true again.
    Resynced,
    /// Read again and found fine: somebody wrote it anew, or it was mended elsewhere.
    Resolved,
    /// A member stopped answering.
    MemberFailed,
    /// Somebody cleared the counters and the open entries: of one member, or all.
    Cleared,
    /// Written when the oldest lines are dropped: what they had counted for one member.
    Counted,
    /// Written when the oldest lines are dropped: an entry of theirs that is still open.
    Carried,
    /// Events came faster than they could be written; so many were not (`sectors` counts them).
    Dropped,
    /// Of a later version. Means nothing here.
    #[serde(other)]
    Unknown,
}

/// Which sectors a place counts.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// Those that the member's users see, or the volume's.
    #[default]
    Data,
    /// Those of the device below: the dm-integrity superblock.
    Superblock,
}

impl Area {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
    fn is_data(&self) -> bool {
        *self == Self::Data
    }
}

/// What happened, before it has a number: all of a line that whoever saw it knows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Draft {
    /// When.
    pub time: Time,
    /// What.
    pub kind: Kind,
    /// The member as it was named; none: the volume.
    pub member: Option<String>,
    /// The member's lasting identity; none: the volume.
    pub device: Option<String>,
    /// What `sector` counts.
    pub area: Area,
    /// The first sector.
    pub sector: u64,
    /// How many; 0: no place is meant.
    pub sectors: u64,
    /// The tag on the member, in hexadecimal.
    pub stored: Option<String>,
    /// The tag of the bytes that were read.
    pub computed: Option<String>,
    /// Where healed bytes came from.
    pub source: Option<String>,
    /// A sentence more, or empty.
    pub detail: String,
}

impl Draft {
    /// Something that has no place.
    #[must_use]
    pub const fn new(kind: Kind, time: Time) -> Self {
        Self {
            time,
            kind,
            member: None,
            device: None,
            area: Area::Data,
            sector: 0,
            sectors: 0,
            stored: None,
            computed: None,
            source: None,
            detail: String::new(),
        }
    }

    /// What `event` is for a ledger, on the member whose lasting identity is `device`; none if it
    /// is nothing to be kept.
    #[must_use]
    pub fn of(event: &Event, time: Time, device: Option<&str>, area: Area) -> Option<Self> {
        let kind = match &event.kind {
            EventKind::Mismatch { .. } => Kind::Mismatch,
            EventKind::MediumError => Kind::MediumError,
            EventKind::Healed { .. } => Kind::Healed,
            EventKind::Healable => Kind::Healable,
            EventKind::Lost => Kind::Lost,
            EventKind::Inconsistent => Kind::Inconsistent,
            EventKind::Resynced => Kind::Resynced,
            EventKind::MemberFailed => Kind::MemberFailed,
            // These are how it was found this time, which 'status' finds again.
            EventKind::Unverified
            | EventKind::MemberMissing
            | EventKind::MemberStale
            | EventKind::Dirty
            | EventKind::RebuildStarted
            | EventKind::Rebuilt
            | EventKind::JournalReplayed
            | EventKind::Note => return None,
        };
        let mut draft = Self {
            member: event.member.as_deref().map(|name| clip(name, NAME_BYTES_MAX)),
            device: device.map(|name| clip(name, DEVICE_BYTES_MAX)),
            area,
            sector: event.sector.0,
            sectors: event.sectors,
            detail: clip(&event.detail, DETAIL_BYTES_MAX),
            ..Self::new(kind, time)
        };
        match &event.kind {
            EventKind::Mismatch { stored, computed } => {
                draft.stored = Some(clip(stored, TAG_BYTES_MAX));
                draft.computed = Some(clip(computed, TAG_BYTES_MAX));
            }
            EventKind::Healed { source, .. } => draft.source = Some(clip(source, TAG_BYTES_MAX)),
            _ => {}
        }
        Some(draft)
    }
}

/// As much of the text as there is room for.
fn clip(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The text without what a terminal takes for orders: a file may hold anything.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// One line. Only [`Self::decode`] makes one from bytes.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Record {
    pub(crate) v: u32,
    /// Its number, which grows; what was carried over keeps its own.
    pub seq: u64,
    /// When.
    pub time: Time,
    /// What.
    pub kind: Kind,
    /// The member as it was named then; none: the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// The member's lasting identity; none: the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What `sector` counts.
    #[serde(default, skip_serializing_if = "Area::is_data")]
    pub area: Area,
    /// The first sector.
    #[serde(default)]
    pub sector: u64,
    /// How many; 0: no place is meant.
    #[serde(default)]
    pub sectors: u64,
    /// The tag on the member, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<String>,
    /// The tag of the bytes that were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub computed: Option<String>,
    /// Where healed bytes came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// A sentence more, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// [`Kind::Carried`]: what it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Kind>,
    /// [`Kind::Carried`]: how it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<crate::State>,
    /// [`Kind::Counted`]: the counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<crate::Counters>,
}

/// Why some bytes are no line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LineError {
    /// Longer than [`LINE_BYTES_MAX`].
    #[error("a line of {bytes} bytes, the longest allowed has {LINE_BYTES_MAX}")]
    Long {
        /// Its length.
        bytes: usize,
    },
    /// No JSON object with the fields of a line.
    #[error("not a line of a ledger: {0}")]
    Syntax(String),
    /// Another format.
    #[error("version {found}, expected {VERSION}")]
    Version {
        /// The version.
        found: u32,
    },
    /// A place beyond what 64 bits can count.
    #[error("{sectors} sectors from sector {sector} on end beyond the largest sector number")]
    Place {
        /// The first sector.
        sector: u64,
        /// How many.
        sectors: u64,
    },
    /// No time in RFC 3339, UTC.
    #[error("not a time like 2026-01-31T12:00:00Z (UTC), nor a span like 36h")]
    Time,
}

impl Record {
    /// The line without its end.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn decode(line: &[u8]) -> Result<Self, LineError> {
        if line.len() >= LINE_BYTES_MAX {
            return Err(LineError::Long { bytes: line.len() });
        }
        let record: Self =
            serde_json::from_slice(line).map_err(|error| LineError::Syntax(error.to_string()))?;
        let Self { v: found, sector, sectors, .. } = record;
        if found != VERSION {
            return Err(LineError::Version { found });
        }
        if sector.checked_add(sectors).is_none() {
            return Err(LineError::Place { sector, sectors });
        }
        Ok(record)
    }

    /// The line with its end.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("a record has only fields JSON can say");
        line.push(b'\n');
        line
    }

    /// `draft` as line number `seq`.
    #[must_use]
    pub fn new(draft: Draft, seq: u64) -> Self {
        let Draft { time, kind, member, device, area, sector, sectors, .. } = draft;
        let Draft { stored, computed, source, detail, .. } = draft;
        Self {
            v: VERSION,
            seq,
            time,
            kind,
            member,
            device,
            area,
            sector,
            sectors: sectors.min(u64::MAX - sector),
            stored,
            computed,
            source,
            detail,
            was: None,
            state: None,
            counters: None,
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.member.as_deref().or(self.device.as_deref()).unwrap_or("volume");
        let who = printable(who);
        let what = match self.kind {
            Kind::Mismatch => "mismatch",
            Kind::MediumError => "medium error",
            Kind::Healed => "healed",
            Kind::Healable => "healable",
            Kind::Lost => "lost",
            Kind::Inconsistent => "inconsistent",
            Kind::Resynced => "resynced",
            Kind::Resolved => "resolved",
            Kind::MemberFailed => "member failed",
            Kind::Cleared => "cleared",
            Kind::Counted => "older lines dropped, their counters kept",
            Kind::Carried => "from an older line, unresolved",
            Kind::Dropped => "events that were too many to be written",
            Kind::Unknown => "of a later version",
        };
        write!(f, "{}  {who}: {what}", self.time)?;
        if self.kind == Kind::Dropped {
            return write!(f, ": {}", self.sectors);
        }
        if self.sectors > 0 {
            write!(f, ", sectors {}-{}", self.sector, self.sector + self.sectors)?;
        }
        if let (Some(stored), Some(computed)) = (&self.stored, &self.computed) {
            let (stored, computed) = (printable(stored), printable(computed));
            write!(f, ", stored {stored}, the data says {computed}")?;
        }
        if let Some(source) = &self.source {
            write!(f, ", from {}", printable(source))?;
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", printable(&self.detail)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::Sector;

    #[test]
    fn a_line_is_what_the_documentation_says() {
        let kind = EventKind::Mismatch { stored: "00ff".into(), computed: "1234".into() };
        let event = Event {
            kind,
            member: Some("a.img".into()),
            sector: Sector(8),
            sectors: 8,
            detail: String::new(),
        };
        let time = Time::parse("2026-01-31T12:00:00.250Z").unwrap();
        let draft = Draft::of(&event, time, Some("d0"), Area::Data).unwrap();
        let line = Record::new(draft, 7).encode();
        let expected = r#"{"v":1,"seq":7,"time":"2026-01-31T12:00:00.250Z","kind":"mismatch","member":"a.img","device":"d0","sector":8,"sectors":8,"stored":"00ff","computed":"1234"}"#;
        assert_eq!(std::str::from_utf8(&line).unwrap(), format!("{expected}\n"));
        let record = Record::decode(expected.as_bytes()).unwrap();
        assert_eq!(record.encode(), line);
    }

    #[test]
    fn the_longest_texts_fit_into_a_line() {
        let nasty = "\u{1}".repeat(9000);
        let kind = EventKind::Mismatch { stored: "f".repeat(9000), computed: "f".repeat(9000) };
        let event = Event {
            kind,
            member: Some(nasty.as_str().into()),
            sector: Sector(u64::MAX),
            sectors: u64::MAX,
            detail: nasty.clone(),
        };
        let draft = Draft::of(&event, Time(TIME_MAX), Some(&nasty), Area::Superblock).unwrap();
        let line = Record::new(draft, u64::MAX).encode();
        assert!(line.len() <= LINE_BYTES_MAX, "{}", line.len());
        assert!(Record::decode(&line[..line.len() - 1]).is_ok());
    }

    #[test]
    fn what_is_no_line_is_refused_with_the_reason() {
        let line = r#"{"v":1,"seq":1,"time":"2026-01-31T12:00:00Z","kind":"lost","sector":1,"sectors":18446744073709551615}"#;
        assert!(matches!(Record::decode(line.as_bytes()), Err(LineError::Place { .. })));
        let later = line.replace("\"v\":1", "\"v\":2");
        assert_eq!(Record::decode(later.as_bytes()), Err(LineError::Version { found: 2 }));
        let nonsense = [&b""[..], b"{", b"[]", b"\0\0\0", b"\xff", &line.as_bytes()[..40]];
        for nonsense in nonsense {
            assert!(matches!(Record::decode(nonsense), Err(LineError::Syntax(_))), "{nonsense:?}");
        }
        let long = vec![b' '; LINE_BYTES_MAX];
        assert!(matches!(Record::decode(&long), Err(LineError::Long { .. })));
    }

    #[test]
    fn a_kind_of_a_later_version_is_read_and_means_nothing() {
        let line = r#"{"v":1,"seq":1,"time":"2026-01-31T12:00:00Z","kind":"levitated"}"#;
        assert_eq!(Record::decode(line.as_bytes()).unwrap().kind, Kind::Unknown);
    }

    #[test]
    fn what_is_shown_gives_no_orders_to_a_terminal() {
        let line = r#"{"v":1,"seq":1,"time":"2026-01-31T12:00:00Z","kind":"lost","member":"\u001b[2J","detail":"\u0007"}"#;
        let shown = Record::decode(line.as_bytes()).unwrap().to_string();
        assert!(!shown.contains(char::is_control), "{shown:?}");
    }

    #[test]
    fn people_say_since_when_in_several_ways() {
        let now = Time::parse("2026-02-01T12:00:00Z").unwrap();
        let noon = Time::parse("2026-01-31T12:00:00Z");
        for text in ["2026-01-31T12:00:00Z", "2026-01-31 12:00:00", "24h", "1day"] {
            assert_eq!(now.parse_since(text), noon, "{text}");
        }
        assert_eq!(now.parse_since("2026-01-31"), Time::parse("2026-01-31T00:00:00Z"));
        for text in ["", "yesterday", "2026-13-01", "-1h"] {
            assert_eq!(now.parse_since(text), Err(LineError::Time), "{text}");
        }
    }

    #[test]
    fn times_that_cannot_be_said_become_the_nearest() {
        assert_eq!(Time::of(UNIX_EPOCH - Duration::from_secs(1)), Time(0));
        assert_eq!(Time(TIME_MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
