//! `steadfast demo --envelope`: what goes wrong at each joint of a stack, and who notices.

use super::{Context, expect};
use crate::error::Failure;
use crate::exit::Outcome as Exit;
use serde_json::{Value, json};
use stack::envelope::{Harm, Joint, Outcome, Row, Scheme, experiment};
use std::rc::Rc;

/// Does every harm, prints the table, and holds it to its claims.
pub(super) fn run(context: &Rc<Context>) -> Result<Exit, Failure> {
    let report = &context.report;
    report.line(
        "A volume (RAID 5) of four members. At each joint of the stack, from the application down to the\n\
         media, each harm is done once, on a new stack; then everything is read back.\n",
    );
    report.line(format!("{:<27}{}", "", columns(Scheme::ALL.map(|s| s.title().to_owned()))));
    let told = Rc::clone(context);
    let rows = context.block_on(async move {
        let mut harm = None;
        let rows = experiment(|row| {
            if harm.replace(row.harm) != Some(row.harm) {
                told.report.line(row.harm.title());
            }
            let outcomes = row.outcomes.map(|outcome| outcome.to_string());
            told.report.line(format!("   {:<24}{}", row.joint.title(), columns(outcomes)));
        });
        rows.await.map_err(|error| Failure::new(Exit::Failed, error.to_string()))
    })?;
    summary(context, &rows)?;
    Ok(Exit::Fine)
}

fn columns([first, second, third]: [String; 3]) -> String {
    format!("{first:<29}{second:<29}{third}")
}

fn summary(context: &Context, rows: &[Row]) -> Result<(), Failure> {
    let silent =
        |column: usize| rows.iter().filter(|row| row.outcomes[column] == Outcome::Silent).count();
    let silent = [silent(0), silent(1), silent(2)];
    let title = format!("{:<27}", "silently wrong");
    context
        .report
        .line(format!("\n{title}{}", columns(silent.map(|n| format!("{n} of {}", rows.len())))));
    context.report.line(
        "\nRefused: the write was refused while its owner still had the good buffer, and no medium has any\n\
         of it. What never arrives (torn, dropped) leaves an older block that its own checksum vouches for;\n\
         the application's tag, which counts generations here, tells it apart.",
    );
    let object = |row: &Row| {
        let [end_to_end, bottom, nothing] = row.outcomes.map(|outcome| outcome.to_string());
        json!({
            "harm": row.harm.title(), "joint": row.joint.title(), "end_to_end": end_to_end,
            "checksum_at_the_bottom": bottom, "nothing": nothing,
        })
    };
    context.report.object(json!({
        "rows": rows.iter().map(object).collect::<Vec<Value>>(),
        "silently_wrong": {
            "end_to_end": silent[0], "checksum_at_the_bottom": silent[1], "nothing": silent[2],
        },
    }));
    expect(silent[0] == 0, "end to end, nothing is silently wrong")?;
    let refused = rows.iter().filter(|row| {
        let is_write =
            matches!(row.harm, Harm::CorruptWrite | Harm::SwapWrite | Harm::MisdirectWrite);
        is_write && row.joint == Joint::Application
    });
    let all = refused.clone().all(|row| matches!(row.outcomes[0], Outcome::Refused(_)));
    expect(all && refused.count() == 3, "what goes wrong above the volume is refused there")
}
