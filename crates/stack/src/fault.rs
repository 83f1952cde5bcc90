//! The words after `fault(...,` in a stack: faults to inject, for tests and drills.
//!
//! ```text
//!   rule    = request ":" sectors ":" effect [ ":" count ]
//!   request = "read" | "write" | "zero" | "flush" | "any"
//!   sectors = FIRST "-" END | "all"                       END excluded
//!   effect  = "medium" | "protection" | "unavailable" | "nospace"     it fails
//!           | "corrupt=" BYTE "/" MASK                    one byte of the first sector, by xor
//!           | "misdirect=" SECTORS | "tear=" SECTORS | "swap" | "lose" | "delay=" MILLISECONDS
//!   count   = how many requests, all if not given
//! ```

use bio::IoErrorKind;
use layers::fault::{Effect, Kind, Rule};
use std::time::Duration;

/// A word that is no rule.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("fault rule '{rule}': found '{found}', expected {expected}")]
pub struct RuleError {
    /// The whole word.
    pub rule: String,
    /// The part that makes no sense.
    pub found: String,
    /// What would.
    pub expected: &'static str,
}

/// The rule that a word stands for.
///
/// # Errors
/// [`RuleError`], naming the part that makes no sense.
pub fn parse_rule(rule: &str) -> Result<Rule, RuleError> {
    let wrong = |found: &str, expected| RuleError {
        rule: rule.to_owned(),
        found: found.to_owned(),
        expected,
    };
    let parts: Vec<&str> = rule.split(':').collect();
    let (request, sectors, effect, count) = match parts[..] {
        [request, sectors, effect] => (request, sectors, effect, None),
        [request, sectors, effect, count] => (request, sectors, effect, Some(count)),
        _ => return Err(wrong(rule, "REQUEST:SECTORS:EFFECT, perhaps :COUNT")),
    };
    let kind = match request {
        "read" => Kind::Read,
        "write" => Kind::Write,
        "zero" => Kind::Zero,
        "flush" => Kind::Flush,
        "any" => Kind::Any,
        _ => return Err(wrong(request, "read, write, zero, flush or any")),
    };
    let range = parse_range(sectors).ok_or_else(|| wrong(sectors, "FIRST-END or all"))?;
    let effect = parse_effect(effect).ok_or_else(|| {
        wrong(
            effect,
            "medium, protection, unavailable, nospace, corrupt=BYTE/MASK, misdirect=SECTORS, \
             tear=SECTORS, swap, lose or delay=MILLISECONDS",
        )
    })?;
    let times = match count {
        None => u64::MAX,
        Some(count) => count.parse().map_err(|_| wrong(count, "a number of requests"))?,
    };
    Ok(Rule { times, ..Rule::always(kind, range, effect) })
}

fn parse_range(text: &str) -> Option<std::ops::Range<u64>> {
    if text == "all" {
        return Some(0..u64::MAX);
    }
    let (first, end) = text.split_once('-')?;
    let range = first.parse().ok()?..end.parse().ok()?;
    (range.start < range.end).then_some(range)
}

fn parse_effect(text: &str) -> Option<Effect> {
    if let Some((name, value)) = text.split_once('=') {
        return match name {
            "corrupt" => {
                let (byte, mask) = value.split_once('/')?;
                let byte = byte.parse().ok().filter(|&byte: &usize| byte < units::SECTOR_BYTES)?;
                Some(Effect::Corrupt { byte, mask: mask.parse().ok()? })
            }
            "misdirect" => Some(Effect::Misdirect { sectors: value.parse().ok()? }),
            "tear" => Some(Effect::Tear { sectors: value.parse().ok()? }),
            "delay" => Some(Effect::Delay(Duration::from_millis(value.parse().ok()?))),
            _ => None,
        };
    }
    Some(match text {
        "medium" => Effect::Fail(IoErrorKind::Medium),
        "protection" => Effect::Fail(IoErrorKind::Protection),
        "unavailable" => Effect::Fail(IoErrorKind::Unavailable),
        "nospace" => Effect::Fail(IoErrorKind::NoSpace),
        "swap" => Effect::Swap,
        "lose" => Effect::Lose,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_mean_what_they_say() {
        let rule = parse_rule("read:100-108:medium:3").unwrap();
        assert_eq!((rule.kind, rule.range.clone(), rule.times), (Kind::Read, 100..108, 3));
        assert_eq!(rule.effect, Effect::Fail(IoErrorKind::Medium));
        let rule = parse_rule("any:all:corrupt=17/128").unwrap();
        assert_eq!(rule.effect, Effect::Corrupt { byte: 17, mask: 128 });
        assert_eq!(rule.times, u64::MAX);
        let rule = parse_rule("write:0-8:delay=250").unwrap();
        assert_eq!(rule.effect, Effect::Delay(Duration::from_millis(250)));
    }

    #[test]
    fn what_is_no_rule_is_quoted() {
        for (rule, found) in [
            ("", ""),
            ("read:all", "read:all"),
            ("reed:all:lose", "reed"),
            ("read:8-8:lose", "8-8"),
            ("read:all:explode", "explode"),
            ("read:all:corrupt=512/1", "corrupt=512/1"),
            ("read:all:lose:x", "x"),
        ] {
            assert_eq!(parse_rule(rule).unwrap_err().found, found, "{rule}");
        }
    }
}
