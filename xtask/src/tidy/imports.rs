//! Imports point only downwards, and formats stay lean: the dependencies of each crate.

use super::house::{ROOMS, Room};
use anyhow::Context;
use serde_json::Value;

/// What is wrong with the dependencies in `metadata`, as `cargo metadata --no-deps` prints it.
/// Dependencies of tests are free.
///
/// # Errors
/// If `metadata` is not of that shape.
pub(super) fn check(metadata: &Value) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for package in metadata["packages"].as_array().context("metadata without packages")? {
        let name = room_name(package["name"].as_str().context("a package without a name")?);
        if package["description"].as_str().is_none_or(str::is_empty) {
            problems.push(format!("{name}: give it a `description`, one sentence"));
        }
        let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
            problems.push(format!(
                "{name}: has no place in the house; add it to ROOMS in xtask/src/tidy/house.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            if dependency["kind"].is_null() {
                let lower = dependency["name"].as_str().context("a nameless dependency")?;
                problems.extend(refusal(room, room_name(lower), !dependency["path"].is_null()));
            }
        }
    }
    Ok(problems)
}

fn refusal(room: &Room, lower: &str, is_ours: bool) -> Option<String> {
    let name = room.name;
    if is_ours {
        let allowed = room.ours.contains(&lower);
        return (!allowed).then(|| {
            format!(
                "{name}: imports {lower}, which is not below it; it may name: {}. Move the code \
                 down, or take what is needed as a parameter",
                room.ours.join(" ")
            )
        });
    }
    let others = room.others?;
    let allowed = others.contains(&lower);
    (!allowed).then(|| {
        format!(
            "{name}: depends on {lower}; a crate so low has only: {}. Do it above",
            others.join(" ")
        )
    })
}

/// The name that the code uses.
fn room_name(package: &str) -> &str {
    match package {
        "steadfast" => "cli",
        _ => package.strip_prefix("steadfast-").unwrap_or(package),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(name: &str, dependencies: Value) -> Value {
        json!({"packages": [
            {"name": name, "description": "Something.", "dependencies": dependencies}
        ]})
    }

    fn ours(name: &str) -> Value {
        json!({"name": name, "kind": null, "path": "/somewhere"})
    }

    fn others(name: &str) -> Value {
        json!({"name": name, "kind": null})
    }

    #[test]
    fn downwards_is_fine_and_upwards_is_not() {
        let down = metadata("steadfast-layers", json!([ours("steadfast-bio"), others("rustix")]));
        assert_eq!(check(&down).unwrap(), Vec::<String>::new());
        let up = metadata("steadfast-front", json!([ours("steadfast-layers")]));
        assert_eq!(check(&up).unwrap().len(), 1);
    }

    #[test]
    fn formats_depend_on_nothing_that_does_io() {
        let md = metadata("steadfast-md", json!([others("zerocopy"), others("libc")]));
        let problems = check(&md).unwrap();
        assert!(problems.len() == 1 && problems[0].contains("libc"), "{problems:?}");
    }

    #[test]
    fn tests_may_depend_on_anything() {
        let dev = json!([{"name": "steadfast-world", "kind": "dev", "path": "/somewhere"}]);
        assert_eq!(check(&metadata("steadfast-md", dev)).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_crate_without_a_place_or_a_description_is_reported() {
        let stray = json!({"packages": [{"name": "stray", "dependencies": []}]});
        assert_eq!(check(&stray).unwrap().len(), 2);
    }
}
