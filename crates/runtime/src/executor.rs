//! A single-thread executor over a [`Driver`].
//!
//! Tasks are futures that stay on their thread; their wakers may be used from any thread. Each turn
//! polls what is ready, in the order that the driver chooses, then lets the driver collect
//! completions; when nothing is ready, the driver waits until a completion, a timer or a wake-up
//! from another thread.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;
use std::time::Duration;

/// Polls between two looks at the driver: enough to amortise a system call, few enough that
/// completions do not wait behind a long queue of ready tasks.
const POLLS_PER_TURN: usize = 64;

/// Whether the driver may sleep.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// Collect what is there.
    No,
    /// Sleep until something completes, somebody wakes us, or the clock reaches this time.
    Until(Option<Duration>),
}

/// Wakes a driver that sleeps on another thread.
pub trait Unpark: Send + Sync {
    /// Makes the driver's current or next wait return.
    fn unpark(&self);
}

/// What the executor leaves to its surroundings: waiting, the clock, and who goes first.
pub trait Driver {
    /// Time since an origin of the driver's choice; never goes back.
    fn now(&self) -> Duration;

    /// Submits what is queued, wakes the tasks whose work is complete, and sleeps if told to.
    /// Returns false if it was told to sleep without a deadline and nothing could ever wake it.
    fn turn(&self, wait: Wait) -> bool;

    /// Which of `ready` tasks (at least one) is polled next.
    fn choose(&self, ready: usize) -> usize {
        let _ = ready;
        0
    }

    /// Whether the world has ended: the executor returns at once, without polling anybody.
    fn stopped(&self) -> bool {
        false
    }

    /// How another thread wakes this driver.
    fn unparker(&self) -> Arc<dyn Unpark>;
}

type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

/// Ready tasks: those woken on the executor's own thread, and those woken from elsewhere.
struct Ready {
    thread: ThreadId,
    queue: Mutex<VecDeque<Arc<Task>>>,
    unpark: Arc<dyn Unpark>,
}

impl Ready {
    fn queue(&self) -> MutexGuard<'_, VecDeque<Arc<Task>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Task {
    id: u64,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        Self::wake_by_ref(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        self.ready.queue().push_back(Arc::clone(self));
        if std::thread::current().id() != self.ready.thread {
            self.ready.unpark.unpark();
        }
    }
}

struct Core {
    driver: Rc<dyn Driver>,
    ready: Arc<Ready>,
    tasks: RefCell<BTreeMap<u64, (TaskFuture, Waker)>>,
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    next_id: Cell<u64>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

fn current() -> Rc<Core> {
    CURRENT.with_borrow(|current| {
        Rc::clone(current.as_ref().expect("called from within Executor::run"))
    })
}

/// Runs futures on this thread.
pub struct Executor {
    core: Rc<Core>,
}

/// Restores the executor that was current before, also when a task panics.
struct Entered(Option<Rc<Core>>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

impl Executor {
    /// An executor that waits with `driver`.
    pub fn new(driver: Rc<dyn Driver>) -> Self {
        let ready = Arc::new(Ready {
            thread: std::thread::current().id(),
            queue: Mutex::default(),
            unpark: driver.unparker(),
        });
        let core = Core {
            driver,
            ready,
            tasks: RefCell::default(),
            timers: RefCell::default(),
            next_id: Cell::new(0),
        };
        Self { core: Rc::new(core) }
    }

    /// Runs `future` to its end, and with it every task that it spawns; tasks that are left stay
    /// for the next call. None: the driver stopped, or nothing can ever wake anybody (a deadlock).
    pub fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Option<T> {
        let entered = Entered(CURRENT.replace(Some(Rc::clone(&self.core))));
        let mut root = spawn(future);
        let core = &self.core;
        let result = loop {
            if core.driver.stopped() {
                break None;
            }
            core.poll_ready();
            if let Some(value) = root.take() {
                break Some(value);
            }
            let wait = if core.driver.stopped() || !core.ready.queue().is_empty() {
                Wait::No
            } else {
                Wait::Until(core.timers.borrow().keys().next().map(|(time, _)| *time))
            };
            let alive = core.driver.turn(wait);
            core.fire_timers();
            if !alive && core.ready.queue().is_empty() && !core.driver.stopped() {
                break None;
            }
        };
        drop(entered);
        result
    }

    /// Drops every task, as a power cut does. Their destructors run with this executor current.
    pub fn clear(&self) {
        let _entered = Entered(CURRENT.replace(Some(Rc::clone(&self.core))));
        loop {
            let tasks = std::mem::take(&mut *self.core.tasks.borrow_mut());
            let timers = std::mem::take(&mut *self.core.timers.borrow_mut());
            self.core.ready.queue().clear();
            if tasks.is_empty() && timers.is_empty() {
                break;
            }
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Core {
    fn id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }

    /// Polls up to a turn's worth of ready tasks.
    fn poll_ready(&self) {
        for _ in 0..POLLS_PER_TURN {
            let task = {
                let mut queue = self.ready.queue();
                match queue.len() {
                    0 => return,
                    1 => queue.pop_front(),
                    ready => queue.remove(self.driver.choose(ready)),
                }
            };
            let task = task.expect("the driver chooses one of those that are ready");
            task.queued.store(false, Ordering::Release);
            // The future leaves the table while it runs, so that it may spawn and drop others.
            let Some((mut future, waker)) = self.tasks.borrow_mut().remove(&task.id) else {
                continue;
            };
            if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                self.tasks.borrow_mut().insert(task.id, (future, waker));
            }
            if self.driver.stopped() {
                return;
            }
        }
    }

    fn fire_timers(&self) {
        let now = self.driver.now();
        loop {
            let waker = {
                let mut timers = self.timers.borrow_mut();
                match timers.first_entry() {
                    Some(first) if first.key().0 <= now => first.remove(),
                    _ => return,
                }
            };
            waker.wake();
        }
    }
}

struct JoinState<T> {
    result: Option<T>,
    waiter: Option<Waker>,
}

/// A spawned task's result. Dropping it detaches the task, which runs on.
pub struct JoinHandle<T> {
    state: Rc<RefCell<JoinState<T>>>,
}

impl<T> JoinHandle<T> {
    /// The result, if the task has ended and nobody took it.
    pub fn take(&mut self) -> Option<T> {
        self.state.borrow_mut().result.take()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.state.borrow_mut();
        match state.result.take() {
            Some(value) => Poll::Ready(value),
            None => {
                state.waiter = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Starts `future` as a task of the current executor.
///
/// # Panics
/// Outside of an executor, like every function of this module.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    let core = current();
    let state = Rc::new(RefCell::new(JoinState { result: None, waiter: None }));
    let shared = Rc::clone(&state);
    let future: TaskFuture = Box::pin(async move {
        let value = future.await;
        let waiter = {
            let mut state = shared.borrow_mut();
            state.result = Some(value);
            state.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    });
    let id = core.id();
    let task =
        Arc::new(Task { id, queued: AtomicBool::new(false), ready: Arc::clone(&core.ready) });
    core.tasks.borrow_mut().insert(id, (future, Waker::from(Arc::clone(&task))));
    Task::wake_by_ref(&task);
    JoinHandle { state }
}

/// Time since an origin of the driver's choice; in the simulator, simulated time.
#[must_use]
pub fn now() -> Duration {
    current().driver.now()
}

/// Sleeps for `duration`.
pub async fn sleep(duration: Duration) {
    let deadline = now() + duration;
    Sleep { deadline, id: None }.await;
}

struct Sleep {
    deadline: Duration,
    id: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let core = current();
        if core.driver.now() >= self.deadline {
            return Poll::Ready(());
        }
        let id = *self.id.get_or_insert_with(|| core.id());
        core.timers.borrow_mut().insert((self.deadline, id), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        CURRENT.with_borrow(|core| {
            if let Some(core) = core
                && let Ok(mut timers) = core.timers.try_borrow_mut()
            {
                timers.remove(&(self.deadline, id));
            }
        });
    }
}

/// Lets every other ready task run once.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Runs `futures` together and gives their results in order.
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    enum Slot<F: Future> {
        Running(Pin<Box<F>>),
        Done(Option<F::Output>),
    }
    let mut slots: Vec<Slot<F>> =
        futures.into_iter().map(|future| Slot::Running(Box::pin(future))).collect();
    std::future::poll_fn(move |context| {
        let mut pending = false;
        for slot in &mut slots {
            if let Slot::Running(future) = slot {
                match future.as_mut().poll(context) {
                    Poll::Ready(value) => *slot = Slot::Done(Some(value)),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            return Poll::Pending;
        }
        let take = |slot: &mut Slot<F>| match slot {
            Slot::Done(value) => value.take().expect("polled once after completion at most"),
            Slot::Running(_) => unreachable!("nothing is pending"),
        };
        Poll::Ready(slots.iter_mut().map(take).collect())
    })
    .await
}

/// Runs `future` on a new executor over a driver that only has a clock: for code that never waits
/// for a device outside this thread (in-memory devices, tests).
///
/// # Panics
/// If the future waits for something that can never happen.
pub fn block_on<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    Executor::new(Rc::new(ClockDriver::default())).run(future).expect("somebody can make progress")
}

/// Jumps its clock to the next timer whenever nobody can run.
#[derive(Default)]
struct ClockDriver {
    now: Cell<Duration>,
}

struct NoUnpark;

impl Unpark for NoUnpark {
    fn unpark(&self) {}
}

impl Driver for ClockDriver {
    fn now(&self) -> Duration {
        self.now.get()
    }

    fn turn(&self, wait: Wait) -> bool {
        match wait {
            Wait::Until(Some(deadline)) => {
                self.now.set(self.now.get().max(deadline));
                true
            }
            Wait::Until(None) => false,
            Wait::No => true,
        }
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        Arc::new(NoUnpark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_run_and_give_their_results() {
        let sum = block_on(async {
            let handles: Vec<_> = (0..10u64)
                .map(|n| {
                    spawn(async move {
                        sleep(Duration::from_millis(10 - n)).await;
                        n
                    })
                })
                .collect();
            join_all(handles).await.into_iter().sum::<u64>()
        });
        assert_eq!(sum, 45);
    }

    #[test]
    fn timers_fire_in_order_of_time() {
        let order = block_on(async {
            let order = Rc::new(RefCell::new(Vec::new()));
            let tasks = [30u64, 10, 20].map(|ms| {
                let order = Rc::clone(&order);
                spawn(async move {
                    sleep(Duration::from_millis(ms)).await;
                    order.borrow_mut().push(ms);
                })
            });
            join_all(tasks).await;
            order.take()
        });
        assert_eq!(order, [10, 20, 30]);
    }

    #[test]
    fn a_future_that_nobody_can_wake_is_reported() {
        let executor = Executor::new(Rc::new(ClockDriver::default()));
        assert_eq!(executor.run(std::future::pending::<()>()), None);
    }

    #[test]
    fn a_cleared_executor_has_dropped_its_tasks() {
        let alive = Rc::new(());
        let executor = Executor::new(Rc::new(ClockDriver::default()));
        let held = Rc::clone(&alive);
        executor.run(async move {
            let _detached = spawn(async move {
                let _held = held;
                std::future::pending::<()>().await;
            });
            yield_now().await;
        });
        assert_eq!(Rc::strong_count(&alive), 2);
        executor.clear();
        assert_eq!(Rc::strong_count(&alive), 1);
    }
}
