//! `steadfast explain`: where a sector of the volume lives.

use super::Context;
use super::open::{self, close};
use crate::error::Failure;
use crate::exit::Outcome;
use serde_json::json;
use stack::{
    Candidate, Evidence, Explanation, FROM_HOME, FROM_JOURNAL, HexLine, LoggedPlace, Place,
    Reconstruction, TagPlace, TagVerdict, Whereabouts,
};
use std::rc::Rc;
use units::Sector;

/// Which sector.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    volume: open::Arguments,

    /// The sector of the volume (512 bytes)
    #[arg(long, value_name = "N")]
    sector: u64,
}

/// Shows it.
pub fn run(context: &Rc<Context>, arguments: Arguments) -> Result<Outcome, Failure> {
    let told = Rc::clone(context);
    context.block_on(async move {
        let volume = arguments.volume.open(&told, true).await?;
        let explained = stack::explain(&volume, Sector(arguments.sector)).await;
        let explained = close(volume, explained.map_err(Failure::from)).await?;
        let evidence = explained.evidence.as_ref().map_or_else(Vec::new, evidence_lines);
        for line in lines(&explained).into_iter().chain(evidence) {
            told.report.line(line);
        }
        let damaged = explained.places.iter().any(is_damaged);
        told.report.object(json!(explained));
        Ok(if damaged { Outcome::Warned } else { Outcome::Fine })
    })
}

/// Whether the block's tag and data disagree where they lie, or a write journal's block and its checksum. A
/// block that a journal is to bring home is not expected to agree there yet.
fn is_damaged(place: &Place) -> bool {
    let is_due = place.write_journal.iter().any(|logged| logged.lies == Whereabouts::Journal);
    let disagrees = |tag: &TagPlace| tag.stored != tag.computed && tag.journal.is_empty();
    place.tag.as_ref().is_some_and(|tag| disagrees(tag) && !is_due)
        || place.write_journal.iter().any(|logged| logged.agrees != Some(true))
}

/// The whole stripe or all copies: each as it lies, and what the others say of it.
fn evidence_lines(evidence: &Evidence) -> Vec<String> {
    let mut lines = vec![format!("the row of {} bytes:", evidence.block_bytes)];
    lines.extend(evidence.candidates.iter().map(candidate_line));
    let in_journal = |slot: Option<usize>| {
        let mut candidates = evidence.candidates.iter();
        candidates
            .any(|one| one.lies == Whereabouts::Journal && slot.is_none_or(|slot| slot == one.slot))
    };
    let data = if in_journal(None) { "as it is with the journal home" } else { "as it lies" };
    let agrees = [("P", evidence.p_agrees), ("Q", evidence.q_agrees)];
    for (name, agrees) in agrees.into_iter().filter_map(|(name, agrees)| Some((name, agrees?))) {
        let agrees = if agrees { "agrees" } else { "DISAGREES" };
        lines.push(format!("  {name} {agrees} with the data {data}"));
    }
    if let Some(slot) = evidence.named {
        lines.push(format!("  redundancy alone names slot {slot} as the wrong one"));
    }
    for Reconstruction { slot, from, vouched, differing_bytes, lines: hex } in
        &evidence.reconstructions
    {
        let logged = from == FROM_JOURNAL || from != FROM_HOME && in_journal(Some(*slot));
        let sum = if logged { "the journal's checksum" } else { "its own tag" };
        let vouched = match vouched {
            Some(true) => format!("{sum} agrees"),
            Some(false) => format!("{sum} does not agree"),
            None => "no tag to ask".to_owned(),
        };
        let differs = match differing_bytes {
            Some(0) => "what lies there".to_owned(),
            Some(count) => format!("{count} bytes differ from what lies there"),
            None => "what lies there cannot be read".to_owned(),
        };
        lines.push(format!("  slot {slot} by {from}: {differs}; {vouched}"));
        for HexLine { offset, lies, instead } in hex {
            lines.push(format!("    {offset:4}  - {lies}"));
            lines.push(format!("          + {instead}"));
        }
    }
    lines
}

fn candidate_line(candidate: &Candidate) -> String {
    let Candidate { part, slot, member, lies, verdict } = candidate;
    let part = format!("{part:?}").to_lowercase();
    let (place, sum) = match lies {
        Whereabouts::Home => (member.as_deref().unwrap_or("-"), "tag"),
        Whereabouts::Journal => ("in the write journal, with parity", "checksum"),
        Whereabouts::JournalAlone => ("in the write journal, without parity", "checksum"),
    };
    let verdict = match verdict {
        TagVerdict::Valid => format!("{sum} valid"),
        TagVerdict::Invalid => format!("{sum} INVALID"),
        TagVerdict::Unreadable => "UNREADABLE".to_owned(),
        TagVerdict::Untagged => "no tags".to_owned(),
        TagVerdict::Missing => "missing".to_owned(),
    };
    format!("  {part:<5} slot {slot} {place}: {verdict}")
}

/// What a write journal holds of a place, the newest first.
fn logged_lines(logged: &[LoggedPlace]) -> impl Iterator<Item = String> {
    logged.iter().zip(0..).map(|(LoggedPlace { member, byte, lies, agrees }, age)| {
        let byte = byte.map_or_else(|| "?".to_owned(), |byte| byte.to_string());
        let age = if age == 0 { "the newest" } else { "older" };
        let parity = match lies {
            Whereabouts::JournalAlone => "without parity (the member was not touched for it)",
            _ => "with parity (the member may have old, new or half of it)",
        };
        let sum = match agrees {
            Some(true) => "its checksum agrees",
            Some(false) => "its checksum DISAGREES",
            None => "UNREADABLE",
        };
        format!("        write journal {member}: byte {byte}: {age}, {parity}: {sum}")
    })
}

fn lines(explanation: &Explanation) -> Vec<String> {
    let stripe = match (explanation.stripe, explanation.data_index) {
        (Some(stripe), Some(index)) => format!(": stripe {stripe}, data strip {index}"),
        _ => String::new(),
    };
    let mut lines = vec![format!("sector {}{stripe}", explanation.sector)];
    for place in &explanation.places {
        let part = format!("{:?}", place.part).to_lowercase();
        let slot = place.slot.map_or_else(String::new, |slot| format!("slot {slot} "));
        let Some(member) = &place.member else {
            lines
                .push(format!("  {part:<5} {slot}missing (member sector {})", place.member_sector));
            lines.extend(logged_lines(&place.write_journal));
            continue;
        };
        let byte = place.data_byte.map_or_else(|| "?".to_owned(), |byte| byte.to_string());
        lines.push(format!(
            "  {part:<5} {slot}{}: byte {byte} (member sector {})",
            place.data_device.as_ref().unwrap_or(member),
            place.member_sector
        ));
        lines.extend(logged_lines(&place.write_journal));
        let Some(tag) = &place.tag else { continue };
        let (stored, computed) = (
            tag.stored.as_deref().unwrap_or("unreadable"),
            tag.computed.as_deref().unwrap_or("unreadable"),
        );
        let verdict = if stored == computed { "agree" } else { "DISAGREE" };
        let at = match tag.tag_byte {
            Some(byte) => format!("at byte {byte}"),
            None => "in the metadata of its block".to_owned(),
        };
        lines.push(format!(
            "        tag {at}{}: stored {stored}, the data says {computed}: {verdict}",
            place.data_device.as_ref().map_or_else(String::new, |_| format!(" of {member}")),
        ));
        for entry in &tag.journal {
            let lap = entry.sequence.map_or_else(|| "torn".to_owned(), |lap| format!("lap {lap}"));
            lines.push(format!(
                "        journal: section {}, entry {} ({lap})",
                entry.section, entry.entry
            ));
        }
    }
    lines
}
