use super::*;

/// Runs the future that `make` makes on both backends.
pub(crate) fn on_both<F: Future<Output = ()> + 'static>(make: impl Fn() -> F) {
    let ring = Runtime::new().unwrap();
    assert_eq!(ring.backend(), &Backend::IoUring, "these tests need a host with io_uring");
    ring.block_on(make());
    Runtime::with_threads("a test").unwrap().block_on(make());
}

use crate::operation::Call;
use crate::{Notify, join_all, now, sleep, spawn, yield_now};
use bio::Buf;
use std::os::unix::net::UnixStream;

fn socket_pair() -> (Rc<OwnedFd>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Rc::new(OwnedFd::from(ours)), theirs)
}

fn receive(data: Buf) -> Request {
    Request::Receive { data, done: 0, whole: false }
}

/// A runtime whose queues are so small that every bound is met.
fn tiny() -> Runtime {
    let ring = Ring::with_capacity(4, 8).unwrap();
    Runtime::over(Reactor::on(|_| Engine::Ring(Box::new(ring))).unwrap(), Backend::IoUring)
}

fn in_flight() -> usize {
    Reactor::current().slab.borrow().running().len()
}

#[test]
fn timers_fire_in_time_and_the_thread_sleeps_meanwhile() {
    on_both(|| async {
        let before = (now(), cpu_time());
        let tasks = (1..=5).map(|n| spawn(sleep(Duration::from_millis(40 * n))));
        join_all(tasks).await;
        let (elapsed, busy) = (now() - before.0, cpu_time() - before.1);
        assert!(elapsed >= Duration::from_millis(200), "{elapsed:?}");
        assert!(busy < Duration::from_millis(50), "sleeping costs no time: {busy:?}");
    });
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap()
}

#[test]
fn wake_ups_from_other_threads_are_never_lost() {
    on_both(|| async {
        for _ in 0..3 {
            let threads = 4;
            let per_thread = 2000;
            let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let waker: Arc<std::sync::Mutex<Option<std::task::Waker>>> = Arc::default();
            let handles: Vec<_> = (0..threads)
                .map(|_| {
                    let (count, waker) = (Arc::clone(&count), Arc::clone(&waker));
                    std::thread::spawn(move || {
                        for turn in 0..per_thread {
                            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            if let Some(waker) = waker.lock().unwrap().take() {
                                waker.wake();
                            }
                            if turn % 7 == 0 {
                                std::thread::yield_now();
                            }
                        }
                    })
                })
                .collect();
            std::future::poll_fn(|context| {
                *waker.lock().unwrap() = Some(context.waker().clone());
                if count.load(std::sync::atomic::Ordering::SeqCst) == threads * per_thread {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            for handle in handles {
                handle.join().unwrap();
            }
        }
    });
}

#[test]
fn more_operations_than_the_queues_hold_all_end() {
    // 4 submissions, 8 completions, 3000 at once: the queue is full, then the completions overflow.
    tiny().block_on(async {
        let zero = Rc::new(OwnedFd::from(std::fs::File::open("/dev/zero").unwrap()));
        let tasks: Vec<_> = (0..3000)
            .map(|_| {
                let mut data = Buf::alloc(64);
                data.as_mut_slice().fill(1);
                start(&zero, Request::Read { data: data.into(), done: 0, offset: 0 })
            })
            .collect();
        for (result, request) in join_all(tasks).await {
            assert_eq!(result, 64);
            assert!(request.into_data().into_single().as_slice().iter().all(|&byte| byte == 0));
        }
        assert_eq!(in_flight(), 0);
    });
}

#[test]
fn completions_that_overflow_the_queue_are_kept() {
    let ring = Ring::with_capacity(64, 64).unwrap();
    let zero = std::fs::File::open("/dev/zero").unwrap();
    let mut bytes = [1_u8; 8];
    let vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 8 };
    for user_data in 0..500 {
        let call = Call::Read { vectors: &raw const vector, count: 1, offset: 0 };
        // SAFETY: all of it outlives the loop below; nobody looks at the bytes meanwhile.
        unsafe { ring.push(user_data, zero.as_raw_fd(), call) };
        ring.enter(None);
    }
    assert!(ring.is_overflown());
    let mut seen = Vec::new();
    while ring.owed() > 0 {
        ring.enter(Some(None));
        ring.reap(|user_data, result| {
            assert_eq!(result, 8);
            seen.push(user_data);
        });
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..500).collect::<Vec<_>>());
    assert_eq!(bytes, [0; 8]);
}

#[test]
fn cancellations_are_never_lost_even_when_the_queue_is_full() {
    for runtime in [tiny(), Runtime::with_threads("a test").unwrap()] {
        runtime.block_on(async {
            let (ours, theirs) = socket_pair();
            let waiting: Vec<_> =
                (0..1000).map(|_| start(&ours, receive(Buf::alloc(16)))).collect();
            drop(waiting);
            while in_flight() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
            // Nobody is left to take this but us.
            std::io::Write::write_all(&mut &theirs, b"hello").unwrap();
            let (result, _) = start(&ours, receive(Buf::alloc(16))).await;
            assert_eq!(result, 5);
        });
    }
}

#[test]
fn an_operation_may_be_dropped_before_during_and_after_it_ends() {
    for runtime in [tiny(), Runtime::new().unwrap(), Runtime::with_threads("a test").unwrap()] {
        runtime.block_on(async {
            let (ours, theirs) = socket_pair();
            for turns in 0..6 {
                std::io::Write::write_all(&mut &theirs, b"x").unwrap();
                let operation = start(&ours, receive(Buf::alloc(16)));
                for _ in 0..turns {
                    yield_now().await;
                }
                drop(operation);
            }
            while in_flight() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        });
    }
}

#[test]
fn memory_of_a_dropped_read_is_not_reused_until_it_has_ended() {
    on_both(|| async {
        let file = Rc::new(OwnedFd::from(std::fs::File::open("/dev/zero").unwrap()));
        for _ in 0..200 {
            let data = Buf::alloc(1 << 20).into();
            drop(start(&file, Request::Read { data, done: 0, offset: 0 }));
            // From the pool, were the memory free: the read would tear our ones.
            let mut mine = Buf::alloc(1 << 20);
            mine.as_mut_slice().fill(1);
            yield_now().await;
            assert!(mine.as_slice().iter().all(|&byte| byte == 1));
        }
    });
}

#[test]
fn a_connection_accepted_for_nobody_is_closed() {
    on_both(|| async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Rc::new(OwnedFd::from(listener));
        let operation = start(&listener, Request::Accept);
        let mut client = std::net::TcpStream::connect(address).unwrap();
        for _ in 0..20 {
            sleep(Duration::from_millis(1)).await;
        }
        drop(operation);
        let mut byte = [0];
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(std::io::Read::read(&mut client, &mut byte).unwrap(), 0);
    });
}

#[test]
fn a_runtime_that_ends_waits_for_the_kernel_and_lets_go_of_everything() {
    for runtime in [tiny(), Runtime::new().unwrap(), Runtime::with_threads("a test").unwrap()] {
        let (ours, _theirs) = socket_pair();
        let kept = Rc::clone(&ours);
        let file = Rc::new(OwnedFd::from(std::fs::File::open("/dev/zero").unwrap()));
        let kept_file = Rc::clone(&file);
        runtime.block_on(async move {
            for _ in 0..100 {
                let (ours, file) = (Rc::clone(&ours), Rc::clone(&file));
                let _detached = spawn(async move { start(&ours, receive(Buf::alloc(16))).await });
                let data = Buf::alloc(1 << 20).into();
                let read = Request::Read { data, done: 0, offset: 0 };
                let _detached = spawn(async move { start(&file, read).await });
            }
            yield_now().await;
        });
        drop(runtime);
        assert_eq!((Rc::strong_count(&kept), Rc::strong_count(&kept_file)), (1, 1));
    }
}

#[test]
fn tasks_left_by_one_call_go_on_in_the_next() {
    let runtime = Runtime::new().unwrap();
    let notify = Rc::new(Notify::default());
    let inner = Rc::clone(&notify);
    let slot = Rc::new(RefCell::new(None));
    let handle = Rc::clone(&slot);
    runtime.block_on(async move {
        *handle.borrow_mut() = Some(spawn(async move {
            inner.notified().await;
            7
        }));
    });
    let mut task = slot.take().unwrap();
    runtime.block_on(async { yield_now().await });
    assert_eq!(task.take(), None);
    runtime.block_on(async move { notify.notify_all() });
    assert_eq!(runtime.block_on(task), 7);
}

/// Plays the process of the test below.
#[test]
fn other_process_without_io_uring() {
    if std::env::var_os("STEADFAST_TEST_BACKEND").is_none() {
        return;
    }
    let why = "STEADFAST_NO_IO_URING is set".to_owned();
    assert_eq!(Runtime::new().unwrap().backend(), &Backend::Threads { why });
    println!("fell back");
}

#[test]
fn the_environment_chooses_threads() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "reactor::tests::other_process_without_io_uring", "--nocapture"])
        .env("STEADFAST_TEST_BACKEND", "1")
        .env("STEADFAST_NO_IO_URING", "1")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("fell back"), "{output:?}");
}

extern "C" fn nothing(_: i32) {}

#[test]
fn signals_that_interrupt_a_wait_do_no_harm() {
    // SAFETY: the handler does nothing; the signal goes to this thread only.
    let thread = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(i32) = nothing;
        action.sa_sigaction = handler as libc::sighandler_t;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
        libc::pthread_self()
    };
    on_both(move || async move {
        let (ours, theirs) = socket_pair();
        let disturber = std::thread::spawn(move || {
            for _ in 0..50 {
                // SAFETY: the thread waits for this one.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_millis(1));
            }
            std::io::Write::write_all(&mut &theirs, b"done").unwrap();
            theirs
        });
        let (result, _) = start(&ours, receive(Buf::alloc(16))).await;
        assert_eq!(result, 4);
        drop(disturber.join().unwrap());
    });
}
