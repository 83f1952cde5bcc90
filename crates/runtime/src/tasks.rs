//! Tasks that belong together, and whose end somebody waits for.

use crate::{Notify, spawn};
use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

/// The tasks of one owner. A layer's tasks hold what is below it: once [`Self::ended`] returns, none
/// of them does any more.
#[derive(Clone, Default)]
pub struct Tasks {
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    running: Cell<usize>,
    ended: Notify,
}

/// One of them, until it is dropped.
struct Running(Rc<State>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.ended.notify_all();
    }
}

impl Tasks {
    /// Starts `future` as one of them.
    ///
    /// # Panics
    /// Outside of an executor.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.state.running.set(self.state.running.get() + 1);
        let running = Running(Rc::clone(&self.state));
        drop(spawn(async move {
            future.await;
            // Only now, when the future and what it held are gone.
            drop(running);
        }));
    }

    /// Waits until none of them runs. They have to be told to end; one that waits here for itself
    /// waits for ever.
    pub async fn ended(&self) {
        self.state.ended.until(|| self.state.running.get() == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{block_on, yield_now};

    #[test]
    fn what_a_task_held_is_gone_when_it_has_ended() {
        block_on(async {
            let (tasks, held) = (Tasks::default(), Rc::new(()));
            tasks.ended().await;
            for yields in [3, 1, 2] {
                let held = Rc::clone(&held);
                tasks.spawn(async move {
                    for _ in 0..yields {
                        yield_now().await;
                    }
                    let _held = held;
                });
            }
            assert_eq!(Rc::strong_count(&held), 4);
            tasks.ended().await;
            assert_eq!(Rc::strong_count(&held), 1);
        });
    }
}
