use super::*;

/// Runs the future that `make` makes on both backends.
pub(crate) fn on_both<F: Future<Output = ()> + 'static>(make: impl Fn() -> F) {
    let ring = Runtime::new().unwrap();
    assert_eq!(ring.backend(), &Backend::IoUring, "these tests need a host with io_uring");
    ring.block_on(make());
    Runtime::with_threads("a test").unwrap().block_on(make());
}
