//! A volume of 1 TiB that takes no space: what it costs to have it open.

use super::server::Server;
use crate::measure::median;
use crate::place::Place;
use crate::row::Row;
use crate::settings::Settings;
use std::fs;
use std::process::Command;

pub(super) const NAME: &str = "sparse 1 TiB volume";

/// Seconds until it is served, and its server's memory under load; the peer is the bound.
pub(super) fn rows(settings: &Settings, place: &Place) -> anyhow::Result<Vec<Row>> {
    let member = place.path("giant.img");
    let mut create = place.steadfast();
    create.arg("create").arg(&member).args(["--level", "none", "--size", "1T", "--no-wipe"]);
    place.output(&mut create)?;

    let (mut seconds, mut mebibytes) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        let socket = place.path("giant.socket");
        let mut serve = place.steadfast();
        serve.arg("serve").arg(&member).arg("--nbd").arg(format!("unix:{}", socket.display()));
        let server = Server::run(serve, socket, place)?.expect("ours was built just now");
        seconds.push(server.startup.as_secs_f64());
        write_and_read(&server, place)?;
        mebibytes.push(f64::from(server.peak_kib()?) / 1024.0);
    }
    fs::remove_file(member)?;
    let row = |what, values, bound, unit| {
        Row::new(format!("{NAME}, {what}"), median(values), ("upper bound", Some(bound)), unit)
    };
    Ok(vec![row("startup", seconds, 1.0, "s"), row("peak memory", mebibytes, 256.0, "MiB")])
}

/// Writes blocks all over it and reads them back. (Blocks that were never written have no tags,
/// since nobody wiped them, and cannot be read.)
fn write_and_read(server: &Server, place: &Place) -> anyhow::Result<()> {
    let mut fio = Command::new("fio");
    fio.args(["--name=load", "--ioengine=nbd", "--rw=randwrite", "--bs=4k", "--iodepth=32"])
        .arg(format!("--uri={}", server.uri()))
        .args(["--size=100%", "--number_ios=20000", "--norandommap", "--verify=crc32c"]);
    place.output(&mut fio).map(drop)
}
