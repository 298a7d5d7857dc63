//! Who may import whom, as a list of what is allowed; and that no files import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::{Named, below, is_tests_file, read, sources};

/// The world outside the process: a module names what its row lists, and nothing else of it.
const WORLD: &[&str] = &[
    "std::fs",
    "std::process",
    "std::net",
    "std::env",
    "tokio",
    "kube",
    "kube_runtime",
    "kube_lease_manager",
    "axum",
    "bollard",
    "containerd_client",
    "k8s_cri",
    "nix",
    "rustix",
    "tonic",
    "ureq",
    "zbus",
];

/// A top-level module of `src/`.
struct Room {
    name: &'static str,
    /// The modules that it may import. All others are refused.
    imports: &'static [&'static str],
    /// What it may name of [`WORLD`].
    world: &'static [&'static str],
}

/// Every top-level module; one without a row fails. The lowest come first: an import points upwards in this list.
const ROOMS: &[Room] = &[
    Room {
        name: "edit",
        imports: &[],
        world: &[],
    },
    Room {
        name: "console",
        imports: &[],
        world: &[],
    },
    Room {
        name: "plan",
        imports: &["edit"],
        world: &[],
    },
    Room {
        name: "planner",
        imports: &["edit", "plan"],
        world: &[],
    },
    Room {
        name: "telemetry",
        imports: &["edit", "plan"],
        world: &[],
    },
    Room {
        name: "host",
        imports: &["plan"],
        world: &[
            "std::fs",
            "std::process",
            "std::env",
            "tokio",
            "nix",
            "rustix",
            "ureq",
            "zbus",
        ],
    },
    Room {
        name: "runtime",
        imports: &["edit", "plan", "host"],
        world: &[
            "std::process",
            "tokio",
            "axum",
            "bollard",
            "containerd_client",
            "k8s_cri",
            "nix",
            "rustix",
            "tonic",
        ],
    },
    Room {
        name: "inspect",
        imports: &["edit", "plan", "host", "runtime"],
        world: &["std::env", "tokio", "bollard", "k8s_cri", "nix"],
    },
    Room {
        name: "executor",
        imports: &["edit", "plan", "host", "runtime"],
        world: &["std::process", "std::env", "tokio"],
    },
    Room {
        name: "node",
        imports: &[
            "edit", "console", "plan", "planner", "host", "runtime", "inspect", "executor",
        ],
        world: &["std::process", "tokio"],
    },
    Room {
        name: "api",
        imports: &["plan"],
        world: &["kube"],
    },
    Room {
        name: "metrics",
        imports: &["plan", "api"],
        world: &[],
    },
    Room {
        name: "admin",
        imports: &["metrics"],
        world: &["axum", "tokio"],
    },
    Room {
        name: "agent",
        imports: &["edit", "plan", "planner", "host", "runtime", "executor", "api"],
        world: &["kube", "tokio"],
    },
    Room {
        name: "controller",
        imports: &["plan", "api", "metrics", "admin"],
        world: &["std::net", "kube", "kube_runtime", "kube_lease_manager", "tokio"],
    },
    Room {
        name: "cli",
        imports: &[
            "console",
            "plan",
            "telemetry",
            "host",
            "executor",
            "node",
            "api",
            "agent",
            "controller",
        ],
        world: &["std::process", "tokio"],
    },
    Room {
        name: "lib",
        imports: &[],
        world: &[],
    },
    Room {
        name: "main",
        imports: &[],
        world: &["std::process"],
    },
];

/// Rooms with files that import each other in a circle, and why. There are no other circles, and a room without one
/// leaves the list.
const CIRCLES: &[(&str, &str)] = &[
    (
        "executor::step",
        "the steps return the notes and errors that their dispatcher defines",
    ),
    (
        "agent::machine",
        "the states return the decision that their dispatcher defines",
    ),
    (
        "controller",
        "the decision, the report of it and what carries it out know each other",
    ),
];

#[test]
fn dependencies_point_one_way() {
    let files = files();
    let mut wrong = Vec::new();
    for (module, file) in &files {
        let top = module.split("::").next().unwrap();
        let Some(room) = ROOMS.iter().find(|room| room.name == top) else {
            wrong.push(format!("{top} has no row: say what it may import"));
            continue;
        };
        for (to, path) in arrows(module, file, &files) {
            let to = to.split("::").next().unwrap();
            if to != top && !room.imports.contains(&to) {
                wrong.push(format!("{module} names {path}; {top} must not import {to}"));
            }
        }
        for path in &file.paths {
            let outside = WORLD.iter().find(|prefix| below(path, prefix));
            if let Some(outside) = outside.filter(|outside| !room.world.contains(outside)) {
                wrong.push(format!("{module} names {path}; {top} must not name {outside}"));
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_row_is_of_a_module_that_stands_above_what_it_imports() {
    for (index, room) in ROOMS.iter().enumerate() {
        assert!(
            sources().iter().any(|source| source.module() == room.name),
            "no module {}: a row that holds nothing",
            room.name
        );
        for import in room.imports {
            let lower = ROOMS[..index].iter().any(|lower| lower.name == *import);
            assert!(
                lower,
                "{} may import {import}, which does not stand above it",
                room.name
            );
        }
        for outside in room.world {
            assert!(
                WORLD.contains(outside),
                "{}: {outside} is not in the list",
                room.name
            );
        }
    }
}

/// Files that import each other can only be read together.
#[test]
fn no_files_import_each_other_in_a_circle() {
    let circles = circles(&files());
    let is_in = |circle: &[String], room: &str| circle.iter().all(|module| below(module, room));
    let new: Vec<String> = circles
        .iter()
        .filter(|circle| !CIRCLES.iter().any(|(room, _)| is_in(circle, room)))
        .map(|circle| circle.join(", "))
        .collect();
    assert!(new.is_empty(), "in a circle:\n{}", new.join("\n"));
    for (room, _) in CIRCLES {
        assert!(
            circles.iter().any(|circle| is_in(circle, room)),
            "{room} has no circle any more: remove it from the list"
        );
    }
}

/// Modules by their path (`plan::step`), with what their files name outside of tests.
fn files() -> BTreeMap<String, Named> {
    let sources = sources().into_iter().filter(|source| !is_tests_file(source));
    sources
        .map(|source| {
            let name = source.name();
            let module = name.trim_end_matches(".rs").replace('/', "::");
            (module, read(&source.text, false))
        })
        .collect()
}

/// The files that a file imports, each with a path that names it. A parent that declares a child, or shows a part of it
/// to others, does not import it; a parent that uses its child does, and so does a child that uses what its parent's
/// file defines.
fn arrows(module: &str, file: &Named, files: &BTreeMap<String, Named>) -> BTreeMap<String, String> {
    let mut arrows = BTreeMap::new();
    for path in &file.paths {
        let Some(to) = file_of(module, path, files).filter(|to| to != module) else {
            continue;
        };
        let name = path.rsplit("::").next().unwrap();
        let used = |other: &String| other.split("::").next() == Some(name) && !file.shown.contains(other);
        let only_shown = file.shown.contains(path) && !file.paths.iter().any(used);
        if !(only_shown && below(&to, module)) {
            arrows.insert(to, path.clone());
        }
    }
    arrows
}

/// The module whose file defines what a path names, as far as the path begins in this crate.
fn file_of(module: &str, path: &str, files: &BTreeMap<String, Named>) -> Option<String> {
    let mut segments = path.split("::").peekable();
    let mut at: Vec<&str> = module.split("::").collect();
    match *segments.peek()? {
        "crate" => at.clear(),
        "super" | "self" => {}
        // A child, by its name alone.
        child => {
            let child = format!("{module}::{child}");
            (path.contains("::") && files.contains_key(&child)).then_some(())?;
        }
    }
    while let Some(first) = segments.next_if(|segment| ["crate", "super", "self"].contains(segment)) {
        if first == "super" {
            at.pop();
        }
    }
    for segment in segments {
        at.push(segment);
        if !files.contains_key(&at.join("::")) {
            at.pop();
            break;
        }
    }
    (!at.is_empty()).then(|| at.join("::"))
}

/// Sets of files each of which reaches all the others.
fn circles(files: &BTreeMap<String, Named>) -> Vec<Vec<String>> {
    let arrows: BTreeMap<&String, BTreeSet<String>> = files
        .iter()
        .map(|(module, file)| (module, arrows(module, file, files).into_keys().collect()))
        .collect();
    let reached = |from: &String| {
        let mut reached = BTreeSet::new();
        let mut next = vec![from.clone()];
        while let Some(module) = next.pop() {
            let new = arrows.get(&module).into_iter().flatten();
            next.extend(new.filter(|module| reached.insert((*module).clone())).cloned());
        }
        reached
    };
    let reached: BTreeMap<&String, BTreeSet<String>> =
        files.keys().map(|module| (module, reached(module))).collect();
    let mut circles = BTreeSet::new();
    for (module, reaches) in &reached {
        let back = reaches.iter().filter(|other| reached[other].contains(*module));
        let circle: Vec<String> = back.cloned().collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

#[test]
fn a_circle_is_found_and_a_child_that_is_only_shown_is_none() {
    let files: BTreeMap<String, Named> = [
        ("a", "mod b;\npub use b::B;"),
        ("a::b", "use super::A;\npub struct B;"),
        ("c", "mod d;\npub use d::D;\nfn f() { D::new(); }"),
        ("c::d", "fn f() { let _ = format!(\"{}\", crate::c::E); }"),
        ("e", "use crate::a::b::B;"),
    ]
    .map(|(module, text)| (module.to_owned(), read(text, false)))
    .into();
    assert_eq!(circles(&files), [["c", "c::d"]]);
    let e = arrows("e", &files["e"], &files);
    assert_eq!(e.keys().collect::<Vec<_>>(), ["a::b"]);
}
