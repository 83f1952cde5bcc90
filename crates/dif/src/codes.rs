//! What a mismatch is called outside: SCSI sense, NVMe status, errno. (Section 9, "Errors".)

use crate::profile::Tag;

/// SCSI sense: key, additional code and its qualifier.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub code: u8,
    /// Its qualifier.
    pub qualifier: u8,
}

/// Who noticed, which is what the sense key tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Noticed {
    /// The target, in what came over the wire or lies on the medium.
    Target,
    /// The host adapter or its driver, in what the host gave (a convention of Linux).
    Host,
    /// VERIFY, comparing what was sent with what lies on the medium.
    Compare,
}

/// INVALID FIELD IN CDB: a protect value that means nothing, or a device without protection.
pub const INVALID_FIELD_IN_CDB: Sense = Sense { key: ILLEGAL_REQUEST, code: 0x24, qualifier: 0 };

/// NVMe: Invalid Protection Information (the initial reference tag does not fit the type).
pub const NVME_INVALID_PROTECTION: u16 = 0x181;

/// NVMe: Compare Failure.
pub const NVME_COMPARE_FAILURE: u16 = 0x285;

/// `EILSEQ`, which Linux gives for a mismatch of guard, application or reference tag.
pub const EILSEQ: i32 = 84;

/// `EIO`, which it gives for a storage tag.
pub const EIO: i32 = 5;

const ABORTED_COMMAND: u8 = 0x0b;
const ILLEGAL_REQUEST: u8 = 0x05;
const MISCOMPARE: u8 = 0x0e;

impl Tag {
    /// The sense of a mismatch; none for the storage tag, which SCSI does not have.
    #[must_use]
    pub const fn sense(self, noticed: Noticed) -> Option<Sense> {
        let key = match noticed {
            Noticed::Target => ABORTED_COMMAND,
            Noticed::Host => ILLEGAL_REQUEST,
            Noticed::Compare => MISCOMPARE,
        };
        let qualifier = match self {
            Self::Guard => 1,
            Self::Application => 2,
            Self::Reference => 3,
            Self::Storage => return None,
        };
        Some(Sense { key, code: 0x10, qualifier })
    }

    /// NVMe's status, type and code together.
    #[must_use]
    pub const fn nvme_status(self) -> u16 {
        match self {
            Self::Guard => 0x282,
            Self::Application => 0x283,
            Self::Reference => 0x284,
            Self::Storage => 0x288,
        }
    }

    /// What Linux's block layer makes of it.
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::Guard | Self::Application | Self::Reference => EILSEQ,
            Self::Storage => EIO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_of_the_table_of_errors() {
        let sense = |key, qualifier| Some(Sense { key, code: 0x10, qualifier });
        let table = [
            (Tag::Guard, sense(0x0b, 1), sense(5, 1), sense(0x0e, 1), 0x282, 84),
            (Tag::Application, sense(0x0b, 2), sense(5, 2), sense(0x0e, 2), 0x283, 84),
            (Tag::Reference, sense(0x0b, 3), sense(5, 3), sense(0x0e, 3), 0x284, 84),
            (Tag::Storage, None, None, None, 0x288, 5),
        ];
        for (tag, target, host, compare, nvme, errno) in table {
            assert_eq!(tag.sense(Noticed::Target), target);
            assert_eq!(tag.sense(Noticed::Host), host);
            assert_eq!(tag.sense(Noticed::Compare), compare);
            assert_eq!((tag.nvme_status(), tag.errno()), (nvme, errno));
        }
    }
}
