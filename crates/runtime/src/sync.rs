//! Locks between tasks of one thread: fair, and never held across threads.
//!
//! All of them queue in the order of arrival, so that nobody starves, and all of them survive being
//! dropped while waiting.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Wakes everybody who waits for something to have changed.
#[derive(Default)]
pub struct Notify {
    generation: Cell<u64>,
    waiters: RefCell<Vec<Waker>>,
}

impl Notify {
    /// Wakes all who wait now.
    pub fn notify_all(&self) {
        self.generation.set(self.generation.get() + 1);
        for waiter in self.waiters.take() {
            waiter.wake();
        }
    }

    /// Waits for the next [`Self::notify_all`] after this call (not after the first poll).
    pub fn notified(&self) -> impl Future<Output = ()> + '_ {
        let seen = self.generation.get();
        std::future::poll_fn(move |context| {
            if self.generation.get() != seen {
                return Poll::Ready(());
            }
            self.waiters.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
    }

    /// Waits until `condition` holds; it is looked at now and after each notification.
    pub async fn until(&self, mut condition: impl FnMut() -> bool) {
        loop {
            let changed = self.notified();
            if condition() {
                return;
            }
            changed.await;
        }
    }
}

struct Waiting<K> {
    ticket: u64,
    wants: K,
    waker: Option<Waker>,
}

/// Counted permits, handed out in order of arrival.
pub struct Semaphore {
    inner: Rc<SemaphoreInner>,
}

struct SemaphoreInner {
    available: Cell<usize>,
    next: Cell<u64>,
    queue: RefCell<VecDeque<Waiting<usize>>>,
}

impl Clone for Semaphore {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

/// Permits that go back when dropped.
pub struct Permit {
    owner: Rc<SemaphoreInner>,
    count: usize,
}

impl Permit {
    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.owner.available.set(self.owner.available.get() + self.count);
        self.owner.wake_first();
    }
}

impl SemaphoreInner {
    fn wake_first(&self) {
        if let Some(first) = self.queue.borrow().front()
            && let Some(waker) = &first.waker
        {
            waker.wake_by_ref();
        }
    }
}

impl Semaphore {
    /// `permits` permits.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        let inner = SemaphoreInner {
            available: Cell::new(permits),
            next: Cell::new(0),
            queue: RefCell::default(),
        };
        Self { inner: Rc::new(inner) }
    }

    /// Permits that are free now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.inner.available.get()
    }

    /// Takes `count` permits at once if they are free and nobody waits.
    #[must_use]
    pub fn try_acquire(&self, count: usize) -> Option<Permit> {
        let free = self.inner.available.get();
        if free < count || !self.inner.queue.borrow().is_empty() {
            return None;
        }
        self.inner.available.set(free - count);
        Some(Permit { owner: Rc::clone(&self.inner), count })
    }

    /// Takes `count` permits, waiting in line for them. Never more than there are in all: that
    /// would wait for ever.
    pub async fn acquire(&self, count: usize) -> Permit {
        if let Some(permit) = self.try_acquire(count) {
            return permit;
        }
        let ticket = self.inner.next.get();
        self.inner.next.set(ticket + 1);
        self.inner.queue.borrow_mut().push_back(Waiting { ticket, wants: count, waker: None });
        Acquire { owner: &self.inner, ticket, done: false }.await
    }
}

struct Acquire<'a> {
    owner: &'a Rc<SemaphoreInner>,
    ticket: u64,
    done: bool,
}

impl Future for Acquire<'_> {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        let owner = self.owner;
        let mut queue = owner.queue.borrow_mut();
        let first = queue.front().is_some_and(|first| {
            first.ticket == self.ticket && first.wants <= owner.available.get()
        });
        if !first {
            if let Some(me) = queue.iter_mut().find(|waiting| waiting.ticket == self.ticket) {
                me.waker = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        let me = queue.pop_front().expect("looked at it just now");
        drop(queue);
        self.done = true;
        owner.available.set(owner.available.get() - me.wants);
        owner.wake_first();
        Poll::Ready(Permit { owner: Rc::clone(owner), count: me.wants })
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.owner.queue.borrow_mut().retain(|waiting| waiting.ticket != self.ticket);
            self.owner.wake_first();
        }
    }
}

/// Locks ranges of numbers: overlapping ranges exclude each other unless both are shared. Granted
/// in order of arrival among those that overlap.
#[derive(Clone, Default)]
pub struct RangeLock {
    inner: Rc<RangeInner>,
}

#[derive(Default)]
struct RangeInner {
    next: Cell<u64>,
    /// Everybody, in order of arrival: who holds, and who waits.
    queue: RefCell<Vec<RangeEntry>>,
}

struct RangeEntry {
    ticket: u64,
    range: Range<u64>,
    shared: bool,
    held: bool,
    waker: Option<Waker>,
}

/// A locked range; free again when dropped.
pub struct RangeGuard {
    owner: Rc<RangeInner>,
    ticket: u64,
}

impl RangeLock {
    /// Locks `range` (not empty) against everybody.
    pub async fn lock(&self, range: Range<u64>) -> RangeGuard {
        self.acquire(range, false).await
    }

    /// Locks `range` (not empty) against those who call [`Self::lock`].
    pub async fn lock_shared(&self, range: Range<u64>) -> RangeGuard {
        self.acquire(range, true).await
    }

    async fn acquire(&self, range: Range<u64>, shared: bool) -> RangeGuard {
        debug_assert!(range.start < range.end, "a range that locks something");
        let ticket = self.inner.next.get();
        self.inner.next.set(ticket + 1);
        let entry = RangeEntry { ticket, range, shared, held: false, waker: None };
        self.inner.queue.borrow_mut().push(entry);
        // From here on the entry leaves the queue when the guard is dropped, held or not.
        let guard = RangeGuard { owner: Rc::clone(&self.inner), ticket };
        std::future::poll_fn(|context| guard.owner.poll(ticket, context)).await;
        guard
    }

    /// How many hold or wait.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.inner.queue.borrow().len()
    }
}

fn conflict(a: &RangeEntry, b: &RangeEntry) -> bool {
    a.range.start < b.range.end && b.range.start < a.range.end && !(a.shared && b.shared)
}

impl RangeInner {
    fn poll(&self, ticket: u64, context: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.queue.borrow_mut();
        let me = queue
            .binary_search_by_key(&ticket, |entry| entry.ticket)
            .expect("the entry stays until its guard is dropped");
        let blocked = queue[..me].iter().any(|earlier| conflict(earlier, &queue[me]));
        if blocked {
            queue[me].waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        queue[me].held = true;
        Poll::Ready(())
    }
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        let mut queue = self.owner.queue.borrow_mut();
        let Ok(me) = queue.binary_search_by_key(&self.ticket, |entry| entry.ticket) else {
            return;
        };
        let gone = queue.remove(me);
        for later in &mut queue[me..] {
            if !later.held
                && conflict(&gone, later)
                && let Some(waker) = later.waker.take()
            {
                waker.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{block_on, join_all, spawn, yield_now};

    #[test]
    fn overlapping_ranges_take_turns_in_order() {
        let order = block_on(async {
            let lock = RangeLock::default();
            let order = Rc::new(RefCell::new(Vec::new()));
            let tasks: Vec<_> = [0..4, 2..6, 4..8, 6..7]
                .into_iter()
                .enumerate()
                .map(|(name, range)| {
                    let (lock, order) = (lock.clone(), Rc::clone(&order));
                    spawn(async move {
                        let _guard = lock.lock(range).await;
                        order.borrow_mut().push((name, true));
                        yield_now().await;
                        order.borrow_mut().push((name, false));
                    })
                })
                .collect();
            join_all(tasks).await;
            assert_eq!(lock.entries(), 0);
            order.take()
        });
        let at = |entry| order.iter().position(|&e| e == entry).unwrap();
        assert!(at((0, false)) < at((1, true)));
        assert!(at((1, false)) < at((2, true)));
        assert!(at((2, false)) < at((3, true)));
    }

    #[test]
    fn shared_ranges_overlap_and_a_writer_waits_for_all() {
        block_on(async {
            let lock = RangeLock::default();
            let (a, b) = (lock.lock_shared(0..8).await, lock.lock_shared(4..12).await);
            let writer = {
                let lock = lock.clone();
                spawn(async move { drop(lock.lock(6..7).await) })
            };
            yield_now().await;
            drop(a);
            yield_now().await;
            assert_eq!(lock.entries(), 2);
            drop(b);
            writer.await;
        });
    }

    #[test]
    fn a_large_request_for_permits_is_not_starved_by_small_ones() {
        block_on(async {
            let semaphore = Semaphore::new(4);
            let held = semaphore.acquire(2).await;
            let large = {
                let semaphore = semaphore.clone();
                spawn(async move { semaphore.acquire(4).await.count() })
            };
            yield_now().await;
            assert!(semaphore.try_acquire(1).is_none());
            drop(held);
            assert_eq!(large.await, 4);
            assert_eq!(semaphore.available(), 4);
        });
    }

    #[test]
    fn a_notification_between_the_call_and_the_poll_is_not_lost() {
        block_on(async {
            let notify = Notify::default();
            let waiting = notify.notified();
            notify.notify_all();
            waiting.await;
        });
    }
}
