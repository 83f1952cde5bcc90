//! What must hold whatever the bytes are: the body of every fuzz target, as plain functions.
//!
//! A target takes any bytes and panics if a promise is broken: a decoder that panics by itself, an
//! encoder that does not give back what was decoded, a volume that hands out what nobody wrote.
//! libFuzzer calls it through a binary in `fuzz/fuzz_targets`; `cargo test -p fuzz-targets` calls
//! it with everything in `fuzz/corpus`, so that what was found once stays found.

#![forbid(unsafe_code)]

pub mod dif_tuples;
pub mod input;
pub mod integrity_format;
pub mod integrity_modes;
pub mod integrity_salvage;
pub mod integrity_volume;
pub mod ledger_lines;
pub mod md_format;
pub mod nbd_protocol;
pub mod stack_open;
pub mod stack_text;

/// A fuzz target.
pub struct Target {
    /// Its name: of the binary, and of the folder in the corpus.
    pub name: &'static str,
    /// What must not panic.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "dif_rewrite", run: dif_tuples::rewrite },
    Target { name: "dif_stream", run: dif_tuples::stream },
    Target { name: "dif_verify", run: dif_tuples::verify },
    Target { name: "integrity_bitmap", run: integrity_modes::bitmap },
    Target { name: "integrity_find", run: integrity_salvage::find },
    Target { name: "integrity_journal", run: integrity_format::journal },
    Target { name: "integrity_replay", run: integrity_format::replay },
    Target { name: "integrity_scan", run: integrity_salvage::look },
    Target { name: "integrity_sealed", run: integrity_modes::sealed },
    Target { name: "integrity_superblock", run: integrity_format::superblock },
    Target { name: "integrity_volume", run: integrity_volume::volume },
    Target { name: "ledger_lines", run: ledger_lines::lines },
    Target { name: "md_assemble", run: md_format::assemble },
    Target { name: "md_bad_blocks", run: md_format::bad_blocks },
    Target { name: "md_bitmap", run: md_format::bitmap },
    Target { name: "md_journal", run: md_format::journal },
    Target { name: "md_ppl", run: md_format::ppl },
    Target { name: "md_superblock", run: md_format::superblock },
    Target { name: "nbd_client_handshake", run: nbd_protocol::client_handshake },
    Target { name: "nbd_replies", run: nbd_protocol::replies },
    Target { name: "nbd_requests", run: nbd_protocol::requests },
    Target { name: "nbd_server_handshake", run: nbd_protocol::server_handshake },
    Target { name: "nbd_uri", run: nbd_protocol::uri },
    Target { name: "stack_open", run: stack_open::open_damaged },
    Target { name: "stack_spec", run: stack_text::spec },
];
