//! Each runtime has one home: its profile in `src/plan/runtime.rs`, and its own planner, inspector and editor. What all
//! the others do follows from the profile, so that a new runtime does not change them.

use super::{is_tests_file, read, sources};

/// Files that are one runtime's own, or its profile.
const HOMES: &[&str] = &["plan/runtime.rs", "planner/runtimes/", "inspect/", "edit/"];

/// All other files that ask for a particular runtime, and why. A file that does not any more leaves the list.
const OTHERS: &[(&str, &str)] = &[
    (
        "plan/installed.rs",
        "gives what was found of each program one form",
    ),
    ("planner/releases.rs", "is the table of each runtime's releases"),
];

/// Whether a file names a variant of `Runtime` outside of its tests.
fn asks(text: &str) -> bool {
    let variants = ["Dockershim", "CriDockerd", "Containerd", "CriO"];
    let named = |path: &String| {
        let mut segments = path.rsplit("::");
        let (last, before) = (segments.next(), segments.next());
        before == Some("Runtime") && last.is_some_and(|last| variants.contains(&last))
    };
    read(text, false).paths.iter().any(named)
}

#[test]
fn a_runtime_has_one_home() {
    let mut found: Vec<String> = sources()
        .iter()
        .filter(|source| !is_tests_file(source) && asks(&source.text))
        .map(super::Source::name)
        .filter(|name| !HOMES.iter().any(|home| name.starts_with(home)))
        .collect();
    found.sort_unstable();
    let mut named: Vec<&str> = OTHERS.iter().map(|(name, _)| *name).collect();
    named.sort_unstable();
    assert_eq!(
        found, named,
        "ask the profile of the runtime (src/plan/runtime.rs) for what differs"
    );
    assert!(named.len() <= 6);
}

#[test]
fn a_file_that_asks_is_found() {
    assert!(asks(
        "fn f(r: Runtime) -> bool { matches!(r, Runtime::CriO | Runtime::Containerd) }"
    ));
    assert!(asks(
        "fn f(r: R) -> u8 { match r { crate::plan::runtime::Runtime::CriDockerd => 1, _ => 0 } }"
    ));
    assert!(!asks(
        "fn f() -> S { Store::Containerd }\n#[cfg(test)]\nmod tests { use super::Runtime::CriO; }"
    ));
}
