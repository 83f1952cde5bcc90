#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::stack_open::open_damaged(data));
