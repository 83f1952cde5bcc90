//! What happens to a volume, step by step, as a list that can be printed, edited and replayed.
//!
//! A history is a chain of *lives*: the volume is opened, some steps are taken, and it is closed or
//! the power is cut. The next life starts with what was left. The text form has one item per line:
//!
//! ```text
//! scenario integrity-512
//! seed 2a                      what the blocks hold
//! honest                       errors are allowed, wrong bytes are not
//! life 4                       at most four requests at once
//! as bitmap                    opened in bitmap mode
//! write 3 2                    blocks 3 and 4
//! fua 9 1
//! flush
//! flip 0 812 17 40             disk, sector, byte, bits
//! cut 14 mask:3                at boundary 14; these unsettled writes survive
//! life 1
//! read 0 16
//! close
//! ```

use crate::disk::Trick;
use crate::opening::Opening;
use crate::power::Survival;
use std::fmt;
use std::str::FromStr;

/// One step of a life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Write new content; with `fua` durably.
    Write {
        /// The first block.
        block: u64,
        /// How many.
        blocks: u64,
        /// Durable at completion.
        fua: bool,
    },
    /// Write zeroes.
    Zeroes {
        /// The first block.
        block: u64,
        /// How many.
        blocks: u64,
        /// Space may be given back.
        unmap: bool,
    },
    /// Discard, where the device can.
    Discard {
        /// The first block.
        block: u64,
        /// How many.
        blocks: u64,
    },
    /// Read and compare.
    Read {
        /// The first block.
        block: u64,
        /// How many.
        blocks: u64,
    },
    /// Flush.
    Flush,
    /// Let this many microseconds pass.
    Wait(u64),
    /// Wait until every request so far is complete.
    Settle,
    /// Read the whole volume past every cache, healing what can be.
    Scrub,
    /// Flip bits of one byte on one disk.
    Flip {
        /// The disk.
        disk: usize,
        /// Its sector.
        sector: u64,
        /// The byte in the sector; from 512 on, in the metadata of its block.
        byte: usize,
        /// The bits.
        mask: u8,
    },
    /// Make a sector of a disk unreadable until it is written.
    Spoil {
        /// The disk.
        disk: usize,
        /// Its sector.
        sector: u64,
    },
    /// Make writes to sectors of a disk fail.
    Refuse {
        /// The disk.
        disk: usize,
        /// The first sector.
        sector: u64,
        /// How many.
        sectors: u64,
    },
    /// Make all writes to a disk succeed again.
    Accept {
        /// The disk.
        disk: usize,
    },
    /// Exchange what lies in two sectors of a disk.
    Swap {
        /// The disk.
        disk: usize,
        /// One sector.
        one: u64,
        /// Another.
        other: u64,
    },
    /// Take a disk away.
    Gone {
        /// The disk.
        disk: usize,
    },
    /// Play a trick on a write of a disk.
    Trick {
        /// The disk.
        disk: usize,
        /// Which write from now, the next being 0.
        nth: u64,
        /// What happens to it.
        trick: Trick,
    },
    /// Let a disk acknowledge a flush and do nothing.
    Lie {
        /// The disk.
        disk: usize,
        /// Which flush from now, the next being 0.
        nth: u64,
    },
    /// Let a disk answer a read with what it held at this step.
    Stale {
        /// The disk.
        disk: usize,
        /// Which read from now, the next being 0.
        nth: u64,
    },
    /// Make a disk a thousand times slower.
    Slow {
        /// The disk.
        disk: usize,
    },
}

/// How a life ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// It is closed cleanly.
    Close,
    /// The power is cut at the n-th boundary, and some of the unsettled writes survive.
    Cut {
        /// Which boundary, from 1.
        boundary: u64,
        /// What survives.
        survival: Survival,
    },
}

/// From opening to closing, or to a power cut.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Life {
    /// How the volume is opened.
    pub opening: Opening,
    /// Requests at once.
    pub window: usize,
    /// Members that are not there when it is opened.
    pub missing: Vec<usize>,
    /// What happens.
    pub steps: Vec<Step>,
    /// How it ends.
    pub end: End,
}

impl Life {
    /// One in which nothing happens.
    #[must_use]
    pub fn idle() -> Self {
        Self {
            opening: Opening::Usual,
            window: 1,
            missing: Vec::new(),
            steps: Vec::new(),
            end: End::Close,
        }
    }
}

/// A chain of lives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct History {
    /// The volume's kind.
    pub scenario: String,
    /// Determines content and schedules.
    pub seed: u64,
    /// Damage may exceed what the volume survives: errors are allowed, wrong bytes are not.
    pub honest: bool,
    /// In order.
    pub lives: Vec<Life>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Write { block, blocks, fua: false } => write!(f, "write {block} {blocks}"),
            Self::Write { block, blocks, fua: true } => write!(f, "fua {block} {blocks}"),
            Self::Zeroes { block, blocks, unmap: false } => write!(f, "zero {block} {blocks}"),
            Self::Zeroes { block, blocks, unmap: true } => write!(f, "unmap {block} {blocks}"),
            Self::Discard { block, blocks } => write!(f, "discard {block} {blocks}"),
            Self::Read { block, blocks } => write!(f, "read {block} {blocks}"),
            Self::Flush => f.write_str("flush"),
            Self::Wait(micros) => write!(f, "wait {micros}"),
            Self::Settle => f.write_str("settle"),
            Self::Scrub => f.write_str("scrub"),
            Self::Flip { disk, sector, byte, mask } => {
                write!(f, "flip {disk} {sector} {byte} {mask}")
            }
            Self::Spoil { disk, sector } => write!(f, "spoil {disk} {sector}"),
            Self::Refuse { disk, sector, sectors } => write!(f, "refuse {disk} {sector} {sectors}"),
            Self::Accept { disk } => write!(f, "accept {disk}"),
            Self::Swap { disk, one, other } => write!(f, "swap {disk} {one} {other}"),
            Self::Gone { disk } => write!(f, "gone {disk}"),
            Self::Lie { disk, nth } => write!(f, "lie {disk} {nth}"),
            Self::Stale { disk, nth } => write!(f, "stale {disk} {nth}"),
            Self::Slow { disk } => write!(f, "slow {disk}"),
            Self::Trick { disk, nth, trick: Trick::Lose } => write!(f, "lose {disk} {nth}"),
            Self::Trick { disk, nth, trick: Trick::Misdirect(by) } => {
                write!(f, "misdirect {disk} {nth} {by}")
            }
            Self::Trick { disk, nth, trick: Trick::Tear(kept) } => {
                write!(f, "tear {disk} {nth} {kept}")
            }
        }
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "scenario {}\nseed {:x}", self.scenario, self.seed)?;
        if self.honest {
            writeln!(f, "honest")?;
        }
        for life in &self.lives {
            writeln!(f, "life {}", life.window)?;
            if life.opening != Opening::Usual {
                writeln!(f, "as {}", life.opening)?;
            }
            for disk in &life.missing {
                writeln!(f, "missing {disk}")?;
            }
            for step in &life.steps {
                writeln!(f, "{step}")?;
            }
            match life.end {
                End::Close => writeln!(f, "close")?,
                End::Cut { boundary, survival } => writeln!(f, "cut {boundary} {survival}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for History {
    type Err = String;

    /// Reads what `Display` wrote; empty lines and those that start with `#` are passed over.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut history =
            Self { scenario: String::new(), seed: 0, honest: false, lives: Vec::new() };
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                history.line(line).map_err(|why| format!("line {}: {why}", number + 1))?;
            }
        }
        Ok(history)
    }
}

impl History {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let rest: Vec<&str> = words.collect();
        match (verb, rest.as_slice()) {
            ("scenario", [name]) => self.scenario = (*name).into(),
            ("seed", [seed]) => {
                self.seed = u64::from_str_radix(seed, 16).map_err(|error| error.to_string())?;
            }
            ("honest", []) => self.honest = true,
            ("life", [window]) => {
                self.lives.push(Life { window: number(window)?, ..Life::idle() });
            }
            _ => {
                let life = self.lives.last_mut().ok_or("a step before the first life")?;
                match (verb, rest.as_slice()) {
                    ("as", [opening]) => life.opening = opening.parse()?,
                    ("missing", [disk]) => life.missing.push(number(disk)?),
                    ("close", []) => life.end = End::Close,
                    ("cut", [boundary, survival]) => {
                        let (boundary, survival) = (number(boundary)?, survival.parse()?);
                        life.end = End::Cut { boundary, survival };
                    }
                    _ => life.steps.push(step(verb, &rest)?),
                }
            }
        }
        Ok(())
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is not a number that fits"))
}

fn step(verb: &str, rest: &[&str]) -> Result<Step, String> {
    Ok(match (verb, rest) {
        ("flush", []) => Step::Flush,
        ("settle", []) => Step::Settle,
        ("scrub", []) => Step::Scrub,
        ("wait", [micros]) => Step::Wait(number(micros)?),
        ("gone", [disk]) => Step::Gone { disk: number(disk)? },
        ("accept", [disk]) => Step::Accept { disk: number(disk)? },
        ("refuse", [disk, sector, sectors]) => {
            Step::Refuse { disk: number(disk)?, sector: number(sector)?, sectors: number(sectors)? }
        }
        ("swap", [disk, one, other]) => {
            Step::Swap { disk: number(disk)?, one: number(one)?, other: number(other)? }
        }
        ("lie", [disk, nth]) => Step::Lie { disk: number(disk)?, nth: number(nth)? },
        ("stale", [disk, nth]) => Step::Stale { disk: number(disk)?, nth: number(nth)? },
        ("slow", [disk]) => Step::Slow { disk: number(disk)? },
        ("spoil", [disk, sector]) => Step::Spoil { disk: number(disk)?, sector: number(sector)? },
        ("flip", [disk, sector, byte, mask]) => Step::Flip {
            disk: number(disk)?,
            sector: number(sector)?,
            byte: number(byte)?,
            mask: number(mask)?,
        },
        ("lose", [disk, nth]) => {
            Step::Trick { disk: number(disk)?, nth: number(nth)?, trick: Trick::Lose }
        }
        ("misdirect" | "tear", [disk, nth, sectors]) => {
            let sectors = number(sectors)?;
            let trick =
                if verb == "tear" { Trick::Tear(sectors) } else { Trick::Misdirect(sectors) };
            Step::Trick { disk: number(disk)?, nth: number(nth)?, trick }
        }
        (verb, [block, blocks]) => {
            let (block, blocks) = (number(block)?, number(blocks)?);
            match verb {
                "write" => Step::Write { block, blocks, fua: false },
                "fua" => Step::Write { block, blocks, fua: true },
                "zero" => Step::Zeroes { block, blocks, unmap: false },
                "unmap" => Step::Zeroes { block, blocks, unmap: true },
                "discard" => Step::Discard { block, blocks },
                "read" => Step::Read { block, blocks },
                _ => return Err(format!("unknown step {verb}")),
            }
        }
        _ => return Err(format!("unknown step {verb}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_survives_being_written_down() {
        let text = "scenario x\nseed 2a\nhonest\nlife 4\nas read-only\nmissing 1\nwrite 3 2\nfua 9 1\nzero 1 1\n\
                    unmap 1 1\ndiscard 0 4\nread 0 16\nflush\nwait 50\nsettle\nscrub\n\
                    flip 0 812 17 40\nspoil 1 3\nrefuse 0 7 2\naccept 0\nswap 1 4 5\ngone 1\nslow 0\nlose 0 1\n\
                    misdirect 0 1 8\ntear 1 0 3\nlie 0 2\nstale 1 4\ncut 14 mask:3\nlife 1\nclose\n";
        let history: History = text.parse().unwrap();
        assert_eq!(history.to_string(), text);
        assert_eq!((history.lives.len(), history.lives[0].steps.len()), (2, 22));
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = "scenario x\nseed 0\nlife 1\nwrite three 2".parse::<History>().unwrap_err();
        assert_eq!(error, "line 4: three is not a number that fits");
    }
}
