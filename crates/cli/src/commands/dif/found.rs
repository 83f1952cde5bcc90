//! What `steadfast dif` says: a line for each interval that nothing vouches for, and what it comes to.

use super::options::Options;
use crate::commands::Context;
use crate::exit::Outcome;
use serde_json::{Value, json};
use stack::dif_file::{Done, Finding, Source, Tally};
use std::ops::Range;
use std::rc::Rc;

/// Intervals that one object lists; all are counted.
const LISTED_MAX: usize = 10_000;

/// Tells findings as they come, and keeps them for programs.
pub struct Found {
    context: Rc<Context>,
    listed: Vec<Value>,
}

impl Found {
    pub fn new(context: &Rc<Context>) -> Self {
        Self { context: Rc::clone(context), listed: Vec::new() }
    }

    /// Tells one.
    pub fn tell(&mut self, finding: &Finding) {
        self.context.report.line(finding.to_string());
        if self.listed.len() < LISTED_MAX {
            self.listed.push(object(finding));
        }
    }

    /// Tells what it came to; of what only reads, also how to go on with it.
    pub fn end(
        self,
        options: &Options,
        source: &Source,
        (range, only_reads): (&Range<u64>, bool),
        done: &Done,
    ) -> Outcome {
        let report = &self.context.report;
        let Done { tally, writes, stopped_at } = done;
        let ragged = source.ragged().filter(|_| options.blocks(source).is_none());
        if let Some(ragged) = ragged {
            report.line(ragged.to_string());
        }
        for write in writes {
            report.line(format!("wrote {}", named(write)));
        }
        report.line(summary(tally));
        let mut result = options.object(range);
        result["intervals"] = json!(tally.intervals);
        result["checked"] = json!(tally.checked());
        result["escaped"] = json!(tally.escaped);
        result["unwritten"] = json!(tally.unwritten);
        result["bad_intervals"] = json!(tally.bad());
        result["bad_by"] = json!({"guard": tally.guard, "app": tally.application,
            "ref": tally.reference, "storage": tally.storage, "unreadable": tally.unreadable});
        result["bad"] = json!(self.listed);
        result["problem"] = json!(ragged.map(ToString::to_string));
        result["writes"] = writes_object(done);
        result["complete"] = json!(stopped_at.is_none());
        report.object(result);
        if let Some(block) = stopped_at {
            let further = match only_reads {
                true => format!("resume with {}", options.resume(range, *block)),
                false => super::NOTHING_WRITTEN.to_owned(),
            };
            report.warn(format!("interrupted at block {block}; {further}"));
            return Outcome::Interrupted;
        }
        if tally.bad() > 0 || ragged.is_some() { Outcome::DataLost } else { Outcome::Fine }
    }
}

/// `FILE, 5120 bytes`; without them where they are not known yet.
pub fn named(write: &stack::dif_file::Write) -> String {
    let path = write.path.display();
    write.bytes.map_or_else(|| path.to_string(), |bytes| format!("{path}, {bytes} bytes"))
}

/// The files that were written, or would be.
pub fn writes_object(done: &Done) -> Value {
    let each = |write: &stack::dif_file::Write| json!({"file": write.path, "bytes": write.bytes});
    done.writes.iter().map(each).collect()
}

fn object(finding: &Finding) -> Value {
    let mut object = json!({
        "block": finding.block, "interval": finding.interval, "address": finding.address,
        "data_byte": finding.data_byte, "tuple_byte": finding.tuple_byte,
        "tag": Value::Null, "stored": Value::Null, "expected": Value::Null,
    });
    if let Some(mismatch) = &finding.mismatch {
        object["tag"] = json!(tag_name(mismatch.tag));
        // As text: they have up to 64 bits.
        object["stored"] = json!(format!("0x{:x}", mismatch.stored));
        object["expected"] = json!(format!("0x{:x}", mismatch.expected));
    }
    object
}

const fn tag_name(tag: ::dif::Tag) -> &'static str {
    match tag {
        ::dif::Tag::Guard => "guard",
        ::dif::Tag::Application => "app",
        ::dif::Tag::Reference => "ref",
        ::dif::Tag::Storage => "storage",
    }
}

/// `8065 intervals: 510 checked, 2 escaped, 7553 never written; 2 bad: 1 guard, 1 ref`.
fn summary(tally: &Tally) -> String {
    let counts = |counts: &[(u64, &str)]| {
        let told: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        told.join(", ")
    };
    let seen = counts(&[
        (tally.checked(), "checked"),
        (tally.escaped, "escaped"),
        (tally.unwritten, "never written"),
    ]);
    let bad = counts(&[
        (tally.guard, "guard"),
        (tally.application, "app"),
        (tally.reference, "ref"),
        (tally.storage, "storage"),
        (tally.unreadable, "unreadable"),
    ]);
    let seen = if seen.is_empty() { String::new() } else { format!(": {seen}") };
    let bad = match tally.bad() {
        0 => "nothing wrong".to_owned(),
        count => format!("{count} bad: {bad}"),
    };
    format!("{} intervals{seen}; {bad}", tally.intervals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_what_there_is() {
        let tally = Tally { intervals: 10, ..Tally::default() };
        assert_eq!(summary(&tally), "10 intervals: 10 checked; nothing wrong");
        let tally =
            Tally { escaped: 2, unwritten: 3, guard: 1, reference: 1, unreadable: 1, ..tally };
        let expected = "10 intervals: 4 checked, 2 escaped, 3 never written; 3 bad: 1 guard, 1 ref, 1 \
            unreadable";
        assert_eq!(summary(&tally), expected);
    }
}
