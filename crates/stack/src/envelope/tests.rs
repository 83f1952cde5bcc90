use super::*;
use runtime::block_on;

fn rows() -> Vec<Row> {
    block_on(experiment(|_| {})).unwrap()
}

#[test]
fn what_goes_wrong_between_application_and_volume_is_refused_while_its_owner_has_the_data() {
    for row in rows() {
        let refusable =
            matches!(row.harm, Harm::CorruptWrite | Harm::SwapWrite | Harm::MisdirectWrite);
        if row.joint == Joint::Application && refusable {
            assert_eq!(row.outcomes[0], Outcome::Refused(Hop::Volume), "{:?}", row.harm);
            assert_eq!(row.outcomes[1], Outcome::Silent, "{:?}", row.harm);
            assert_eq!(row.outcomes[2], Outcome::Silent, "{:?}", row.harm);
        }
    }
}

#[test]
fn end_to_end_nothing_is_ever_silently_wrong() {
    for row in rows() {
        let [end_to_end, ..] = row.outcomes;
        assert!(end_to_end != Outcome::Silent, "{row:?}");
        assert!(end_to_end != Outcome::Unharmed, "{row:?}");
    }
}

#[test]
fn a_checksum_at_the_bottom_notices_what_happens_to_the_medium_only() {
    for row in rows() {
        let [_, bottom, nothing] = row.outcomes;
        let at_bottom = row.joint == Joint::Medium;
        // A write that does not arrive leaves an older block with a checksum that is right.
        if matches!(row.harm, Harm::CorruptWrite | Harm::CorruptRead) {
            assert_eq!(bottom == Outcome::Silent, !at_bottom, "{row:?}");
        }
        assert_eq!(nothing, Outcome::Silent, "{row:?}");
    }
}
