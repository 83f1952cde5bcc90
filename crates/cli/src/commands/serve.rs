//! `steadfast serve`: the volume for any NBD client.

use super::open::{self, close};
use super::{Context, membership, scrub, status, upkeep};
use crate::control::{Control, Files, Teller};
use crate::error::Failure;
use crate::exit::Outcome;
use crate::opened::Opened;
use front::nbd::{Address, BindError, Export, Server};
use serde_json::{Value, json};
use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

/// What to serve, and where.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    volume: open::Arguments,

    /// Where to listen: unix:PATH, or tcp:HOST:PORT on this machine
    #[arg(long, value_name = "ADDRESS")]
    nbd: String,

    /// Refuse writes, and write nothing to the members
    #[arg(long)]
    read_only: bool,

    /// The export's name; clients that name none get it too
    #[arg(long, value_name = "NAME", default_value = "")]
    export: String,

    #[command(flatten)]
    recalculate: upkeep::Arguments,
}

/// Serves it.
pub fn run(context: &Rc<Context>, arguments: Arguments) -> Result<Outcome, Failure> {
    let address = Address::parse(&arguments.nbd)
        .map_err(|error| Failure::usage(format!("--nbd: {error}")))?;
    if arguments.export.len() > 4096 || arguments.export.contains('\0') {
        return Err(Failure::usage("--export: at most 4096 bytes, without NUL"));
    }
    let told = Rc::clone(context);
    context.block_on(async move {
        let read_only = arguments.read_only || arguments.volume.is_read_only();
        if read_only && arguments.recalculate.any() {
            let text = "--recalculate writes, and this only reads";
            return Err(Failure::usage(text).advise("leave --read-only or --mode recovery out"));
        }
        let running = arguments.recalculate.running(&told);
        let volume = arguments.volume.open_as(&told, read_only, running).await?;
        // Whoever listens there already is found before anything is written by a client.
        let server = match Server::bind(&address) {
            Ok(server) => server,
            Err(error) => {
                return close(volume, Err(refused(&error))).await;
            }
        };
        let volume = Rc::new(volume);
        let found = control(&told, &volume, &arguments);
        let uri = server.uri(&arguments.export);
        told.report.line(format!("ready {uri}"));
        told.report.object(json!({"ready": true, "uri": uri.to_string(),
            "bytes": volume.device().limits().sectors.saturating_mul(units::SECTOR)}));
        let export = Export {
            name: arguments.export.clone(),
            description: volume.stack().to_string(),
            read_only,
        };
        let served = server.run(volume.device(), export, told.until_interrupted()).await;
        drop(found);
        status::farewell(&told.report, &volume);
        let outcome = status::health_of(&volume);
        let volume = alone(volume).await;
        let served = served.map(|()| outcome).map_err(|error| {
            Failure::new(Outcome::Failed, format!("the last flush failed: {error}"))
        });
        close(volume, served).await
    })
}

fn refused(error: &BindError) -> Failure {
    match error {
        BindError::NotLoopback(_) => Failure::new(Outcome::Refused, error.to_string()),
        _ => Failure::new(Outcome::Failed, error.to_string())
            .advise("choose another address, or stop what listens there"),
    }
}

/// The volume, once nobody else answers questions about it: a scrub stops at its next step.
async fn alone(mut volume: Rc<Opened>) -> Opened {
    loop {
        match Rc::try_unwrap(volume) {
            Ok(volume) => return volume,
            Err(shared) => volume = shared,
        }
        runtime::sleep(Duration::from_millis(10)).await;
    }
}

/// Answers `status`, `scrub` and what changes its members for the volume as long as it is served. The tasks hold it only
/// while they answer.
fn control(context: &Rc<Context>, volume: &Rc<Opened>, arguments: &Arguments) -> Option<Files> {
    let bound = arguments.volume.names().and_then(|names| {
        Control::bind(&names).map_err(|error| Failure::io("control socket", &error))
    });
    let (control, files) = match bound {
        Ok(bound) => bound,
        // Serving matters more.
        Err(failure) => {
            context.report.warn(format!("'status' and 'scrub' cannot ask this server: {failure}"));
            return None;
        }
    };
    let (context, volume) = (Rc::downgrade(context), Rc::downgrade(volume));
    let spelled = arguments.volume.spelled();
    drop(runtime::spawn(control.run(move |request, teller| {
        let (context, volume, spelled) = (context.clone(), volume.clone(), spelled.clone());
        async move {
            match (context.upgrade(), volume.upgrade()) {
                (Some(context), Some(volume)) => {
                    answer(&context, &volume, &spelled, &request, &teller).await
                }
                _ => json!({"error": "the server is stopping", "exit_code": 4}),
            }
        }
    })));
    Some(files)
}

async fn answer(
    context: &Context,
    volume: &Opened,
    spelled: &str,
    request: &Value,
    teller: &Teller,
) -> Value {
    match request["verb"].as_str() {
        Some("status") => {
            let review = volume.review().await;
            let outcome = status::health_of(volume).max(status::health_in(review.as_ref()));
            let object = status::object(volume, review.as_ref(), spelled);
            json!({"result": object, "exit_code": outcome.code()})
        }
        Some("scrub") => scrub_here(context, volume, request, teller).await,
        _ => match membership::answer(context, volume, request, teller).await {
            Some(answer) => answer,
            None => json!({"error": "no such request", "exit_code": 64}),
        },
    }
}

async fn scrub_here(context: &Context, volume: &Opened, request: &Value, teller: &Teller) -> Value {
    let told = Rc::new(Cell::new(0));
    let walked = scrub::walk(volume, request, |done, total| {
        // A hundred messages at most, each sent on its own: the walk does not wait for them.
        let percent = done * 100 / total.max(1);
        if percent > told.replace(percent) {
            let teller = teller.clone();
            drop(runtime::spawn(async move { teller.progress(done, total).await }));
        }
        match context.interrupted() || teller.has_left() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    match walked.await {
        Ok((object, outcome)) => json!({"result": object, "exit_code": outcome.code()}),
        Err(refused) => json!({"error": refused.to_string(), "exit_code": refused.outcome.code()}),
    }
}
