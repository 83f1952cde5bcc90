//! What a person asks of the dm-integrity below a volume: to wait for tags that are computed anew, and
//! to see a journal before its fate is decided.

use crate::volume::Volume;
use bio::{IoError, IoResult};
use layers::integrity::{Integrity, JournalReport};
use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

impl Volume {
    /// Waits until the recalculation of tags that the opening started has finished on every member;
    /// `on_progress` gets the sectors that are done, and all of them. At its word the waiting ends,
    /// not the recalculation: that goes on until the volume is closed, which keeps its position.
    ///
    /// Gives the blocks that could not be read and got no tag.
    ///
    /// # Errors
    /// What the device of a member says.
    pub async fn recalculated(
        &self,
        mut on_progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> IoResult<u64> {
        let volumes: Vec<Rc<Integrity>> = self.integrity().map(|(_, part)| part).collect();
        let ended = Rc::new(RefCell::new(None));
        let (waiting, told) = (volumes.clone(), Rc::clone(&ended));
        drop(runtime::spawn(async move {
            let mut result = Ok(());
            for volume in &waiting {
                result = result.and(volume.recalculation_done().await);
            }
            *told.borrow_mut() = Some(result);
        }));
        let sectors = |volume: &Rc<Integrity>| volume.layout().provided_sectors;
        let done =
            |volume: &Rc<Integrity>| volume.recalculated().map_or(sectors(volume), |at| at.0);
        let total = volumes.iter().map(sectors).sum();
        while ended.borrow().is_none() {
            if on_progress(volumes.iter().map(done).sum(), total).is_break() {
                return Ok(volumes.iter().map(|volume| volume.recalculation_unreadable()).sum());
            }
            runtime::sleep(POLL).await;
        }
        ended.take().unwrap_or(Ok(()))?;
        Ok(volumes.iter().map(|volume| volume.recalculation_unreadable()).sum())
    }

    /// What the journals of a volume that was opened read-only hold, and what replaying or discarding
    /// each would cost; by the members' names.
    ///
    /// # Errors
    /// What the device says of a journal.
    pub async fn journals(&self) -> Result<Vec<(String, JournalReport)>, IoError> {
        let mut reports = Vec::new();
        for (name, volume) in self.integrity() {
            let report = volume.journal_report().await?;
            reports.extend(report.map(|report| (name.to_string(), report)));
        }
        Ok(reports)
    }
}

/// How often a recalculation is asked how far it is.
const POLL: Duration = Duration::from_millis(20);
