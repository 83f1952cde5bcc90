//! Front ends: how a volume is served.

#![forbid(unsafe_code)]

#[cfg(test)]
extern crate self as steadfast_front;

pub mod nbd;
