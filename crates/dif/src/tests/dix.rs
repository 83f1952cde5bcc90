//! DIX's table: direction, host, wire, verify, convert; every cell, with what is right and what is wrong.

use super::*;
use crate::ConvertError;
use crate::dix::{Buffers, Direction, Exchange, ExchangeError, Operation};
use std::string::ToString;

const INTERVALS: usize = 3;
/// Addresses: the host counts its own blocks, the wire the device's.
const HOST: u64 = 7;
const DEVICE: u64 = 0x10_0007;

fn side(guard: Guard, reference: u64) -> Oracle {
    Oracle { application: 0xbeef, reference, ..Oracle::new(guard, 512, ProtectionType::One) }
}

/// What is wrong with interval 1 where it comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    None,
    Data,
    Reference,
    Escape,
}

const FAULTS: [Fault; 4] = [Fault::None, Fault::Data, Fault::Reference, Fault::Escape];

/// Data and metadata of a source, with the fault.
fn source(side: &Oracle, fault: Fault) -> (Vec<u8>, Vec<u8>) {
    let (mut data, mut metadata) = side.filled(INTERVALS, 1);
    match fault {
        Fault::None => {}
        Fault::Data => data[700] ^= 1,
        Fault::Reference => metadata[15] ^= 1,
        Fault::Escape => metadata[8..12].copy_from_slice(&[0xba, 0xd0, 0xff, 0xff]),
    }
    (data, metadata)
}

/// One cell of the table.
#[derive(Clone, Copy, Debug)]
struct Cell {
    host: Option<Oracle>,
    wire: Option<Oracle>,
    verify: bool,
    fault: Fault,
}

impl Cell {
    fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for host in [None, Some(Guard::Crc16), Some(Guard::Ip)] {
            for wire in [None, Some(Guard::Crc16)] {
                for (verify, fault) in
                    FAULTS.iter().flat_map(|fault| [(true, *fault), (false, *fault)])
                {
                    let host = host.map(|guard| side(guard, HOST));
                    let wire = wire.map(|guard| side(guard, DEVICE));
                    cells.push(Self { host, wire, verify, fault });
                }
            }
        }
        cells
    }

    fn exchange(&self) -> Exchange {
        let [host, wire] = [self.host, self.wire].map(|side| side.map(|side| side.protection()));
        Exchange { host, wire, verify: self.verify }
    }

    /// The tag that has to be told, of what comes from `from`.
    fn told(&self, from: Option<Oracle>) -> Option<Tag> {
        let converts =
            self.host.zip(self.wire).is_some_and(|(host, wire)| host.guard != wire.guard);
        from?;
        match self.fault {
            Fault::Data if self.verify || converts => Some(Tag::Guard),
            Fault::Reference if self.verify => Some(Tag::Reference),
            _ => None,
        }
    }

    /// The metadata that `to` has after tuples `old` came over from `from`: right ones are counted and
    /// guarded as its own, others keep what is wrong with them.
    fn passed(&self, to: &Oracle, from: &Oracle, data: &[u8], old: &[u8]) -> Vec<u8> {
        let mut expected = vec![0; old.len()];
        to.sign(data, &mut expected);
        let tuple = &mut expected[8..16];
        match self.fault {
            Fault::None => {}
            Fault::Escape => tuple.copy_from_slice(&old[8..16]),
            Fault::Reference => tuple[4..].copy_from_slice(&old[12..16]),
            Fault::Data if to.guard == from.guard => tuple[..2].copy_from_slice(&old[8..10]),
            Fault::Data => panic!("converted only after an error"),
        }
        expected
    }
}

/// `told`, or nothing.
fn outcome(
    run: Result<Operation, ExchangeError>,
    operation: Operation,
    source: u64,
    told: Option<Tag>,
) {
    match (run, told) {
        (Ok(done), None) => assert_eq!(done, operation),
        (Err(ExchangeError::Mismatch(found)), Some(tag)) => {
            assert_eq!((found.tag, found.interval, found.address), (tag, 1, source + 1));
        }
        (run, told) => panic!("{run:?}, but {told:?} was to be told"),
    }
}

#[test]
fn every_cell_of_a_write() {
    for cell in Cell::all() {
        let (data, metadata) = source(&cell.host.unwrap_or(side(Guard::Crc16, HOST)), cell.fault);
        let metadata = if cell.host.is_some() { metadata } else { vec![] };
        let per_interval = if cell.wire.is_some() { 520 } else { 512 };
        let mut wire = vec![0x77; INTERVALS * per_interval];
        let buffers = Buffers::Write { data: &data, metadata: &metadata, wire: &mut wire };
        let run = cell.exchange().run(buffers);
        let (operation, expected) = match (cell.host, cell.wire) {
            (None, None) => (Operation::Normal, data),
            (Some(_), None) => (Operation::WriteStrip, data),
            (None, Some(to)) => {
                let mut made = vec![0; 8 * INTERVALS];
                to.sign(&data, &mut made);
                (Operation::WriteInsert, to.interleaved(&data, &made))
            }
            (Some(from), Some(to)) if run.is_ok() => {
                let passed = cell.passed(&to, &from, &data, &metadata);
                (Operation::WritePass, to.interleaved(&data, &passed))
            }
            (Some(_), Some(_)) => (Operation::WritePass, vec![]),
        };
        let told = cell.told(cell.host);
        if told.is_none() {
            assert_eq!(wire, expected, "{cell:?}");
        }
        outcome(run, operation, HOST, told);
    }
}

#[test]
fn every_cell_of_a_read() {
    for cell in Cell::all() {
        let from = cell.wire.unwrap_or(side(Guard::Crc16, DEVICE));
        let (data, old) = source(&from, cell.fault);
        let wire = if cell.wire.is_some() { from.interleaved(&data, &old) } else { data.clone() };
        let (mut got, mut metadata) = (vec![0x77; data.len()], vec![]);
        if cell.host.is_some() {
            metadata = vec![0x77; 8 * INTERVALS];
        }
        let buffers = Buffers::Read { wire: &wire, data: &mut got, metadata: &mut metadata };
        let run = cell.exchange().run(buffers);
        let (operation, expected) = match (cell.host, cell.wire) {
            (None, None) => (Operation::Normal, vec![]),
            (None, Some(_)) => (Operation::ReadStrip, vec![]),
            (Some(to), None) => {
                let mut made = vec![0; 8 * INTERVALS];
                to.sign(&data, &mut made);
                (Operation::ReadInsert, made)
            }
            (Some(to), Some(from)) if run.is_ok() => {
                (Operation::ReadPass, cell.passed(&to, &from, &data, &old))
            }
            (Some(_), Some(_)) => (Operation::ReadPass, vec![]),
        };
        let told = cell.told(cell.wire);
        if told.is_none() {
            assert_eq!((got, metadata), (data, expected), "{cell:?}");
        }
        outcome(run, operation, DEVICE, told);
    }
}

#[test]
fn operations_are_chosen_and_numbered_as_linux_does() {
    // Section 5: by direction, host, wire; the number; and the flags that are valid with it: transfer 1,
    // guard 2, reference 4, increment 8, IP 16.
    use Direction::{Read, Write};
    for (direction, host, wire, operation, number, flags) in [
        (Read, false, false, Operation::Normal, 0, 0),
        (Write, false, false, Operation::Normal, 0, 0),
        (Read, true, false, Operation::ReadInsert, 1, 8 | 16),
        (Write, true, false, Operation::WriteStrip, 2, 2 | 4 | 8 | 16),
        (Read, false, true, Operation::ReadStrip, 3, 1 | 2 | 4 | 8),
        (Write, false, true, Operation::WriteInsert, 4, 1 | 8),
        (Read, true, true, Operation::ReadPass, 5, 31),
        (Write, true, true, Operation::WritePass, 6, 31),
    ] {
        assert_eq!(Operation::of(direction, host, wire), operation);
        let index = Operation::ALL.iter().position(|each| *each == operation);
        assert_eq!(index, Some(number));
        let duties = operation.duties();
        let all = [
            duties.transfer,
            duties.guard_check,
            duties.reference_check,
            duties.reference_increment,
            duties.ip_checksum,
        ];
        let made: u8 = (0..).zip(all).map(|(bit, set)| u8::from(set) << bit).sum();
        assert_eq!(made, flags, "{operation:?}");
    }
}

#[test]
fn sides_that_speak_of_different_things_move_nothing() {
    let host = Oracle { kind: ProtectionType::Three, ..side(Guard::Ip, HOST) };
    let exchange = Exchange {
        host: Some(host.protection()),
        wire: Some(side(Guard::Crc16, DEVICE).protection()),
        verify: true,
    };
    let (data, metadata) = host.filled(1, 1);
    let mut wire = vec![0x77; 520];
    let refused = exchange
        .run(Buffers::Write { data: &data, metadata: &metadata, wire: &mut wire })
        .unwrap_err();
    assert_eq!(refused, ExchangeError::Convert(ConvertError::Kind { from: 3, to: 1 }));
    assert_eq!(
        refused.to_string(),
        "host and wire: type 3 to type 1: a conversion changes the guard, not what references mean"
    );
    assert_eq!(wire, vec![0x77; 520]);
}

/// A conversion whose buffers are not of the same intervals.
fn converted(data: usize, metadata: usize, wire: usize) {
    let exchange = Exchange {
        host: Some(side(Guard::Ip, HOST).protection()),
        wire: Some(side(Guard::Crc16, DEVICE).protection()),
        verify: true,
    };
    let (data, metadata, mut wire) = (vec![0; data], vec![0; metadata], vec![0; wire]);
    let _ = exchange.run(Buffers::Write { data: &data, metadata: &metadata, wire: &mut wire });
}

#[test]
#[should_panic = "the buffers are of the same whole intervals"]
fn a_wire_that_is_too_short_is_not_converted_to() {
    converted(1024, 16, 520);
}

#[test]
#[should_panic = "the buffers are of the same whole intervals"]
fn metadata_that_is_too_short_is_not_converted() {
    converted(1024, 8, 1040);
}

#[test]
#[should_panic = "a host without tuples has no metadata"]
fn metadata_of_a_host_without_tuples_is_not_dropped_unseen() {
    let exchange = Exchange { host: None, wire: None, verify: true };
    let buffers = Buffers::Write { data: &[0; 512], metadata: &[0; 8], wire: &mut [0; 512] };
    let _ = exchange.run(buffers);
}
