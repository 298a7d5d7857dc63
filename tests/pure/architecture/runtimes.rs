//! Each runtime has one home: its profile in `src/plan/runtime.rs`, and its own planner, inspector and editor. What all
//! the others do follows from the profile, so that a new runtime does not change them.

use syn::visit::{self, Visit};
use transship::plan::runtime::Runtime;

use super::{is_test, is_tests_file, read, sources};

/// Files that are one runtime's own, or its profile.
const HOMES: &[&str] = &[
    "plan/runtime.rs",
    "plan/paths.rs",
    "planner/runtimes/",
    "inspect/",
    "edit/",
];

/// All other files that ask for a particular runtime, and why. A file that does not any more leaves the list.
const OTHERS: &[(&str, &str)] = &[
    (
        "plan/installed.rs",
        "gives what was found of each program one form",
    ),
    ("planner/releases.rs", "is the table of each runtime's releases"),
];

/// All other files with a socket, a unit or a directory of certificates of a runtime in a text, and why.
const PLACES: &[(&str, &str)] = &[
    (
        "plan/kubelet_settings.rs",
        "has what the kubelet itself uses by default",
    ),
    (
        "planner/docker_registries.rs",
        "carries settings of registries from Docker to containerd",
    ),
    (
        "planner/findings/registries.rs",
        "says what a person writes for each runtime",
    ),
    (
        "runtime/pods/orphans.rs",
        "knows the containerds that Docker may stand on",
    ),
];

/// All other files that ask whether a runtime does not stand on Docker, which tells nothing of those that do not, and why.
const NOT_DOCKER: &[(&str, &str)] = &[
    (
        "planner/context.rs",
        "tells whether pods come to Docker or leave it",
    ),
    ("executor/step.rs", "kills no Docker that has to end pods"),
    ("runtime/hosted.rs", "looks for what Docker alone can lose"),
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

/// What a file says outside of its tests.
#[derive(Default)]
struct Said {
    texts: Vec<String>,
    not_docker: bool,
}

impl Said {
    fn of(text: &str) -> Self {
        let mut said = Self::default();
        said.visit_file(&syn::parse_file(text).unwrap());
        said
    }

    fn places(&self) -> bool {
        let names: Vec<&str> = Runtime::ALL
            .into_iter()
            .map(Runtime::profile)
            .flat_map(|profile| [&[profile.socket, profile.certificates], profile.units].concat())
            .collect();
        self.texts
            .iter()
            .any(|text| names.iter().any(|name| text.contains(name)))
    }
}

impl<'ast> Visit<'ast> for Said {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }
    /// Documentation is an attribute.
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.texts.push(text.value());
    }
    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        let asked = |called: &syn::ExprMethodCall| called.method == "runs_on_docker";
        let is_not = matches!(unary.op, syn::UnOp::Not(_));
        self.not_docker |= is_not && matches!(&*unary.expr, syn::Expr::MethodCall(called) if asked(called));
        visit::visit_expr_unary(self, unary);
    }
    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        let parser = syn::punctuated::Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated;
        if let Ok(arguments) = called.parse_body_with(parser) {
            // They do not live as long as the file.
            arguments.iter().for_each(|argument| self.take(argument));
        }
    }
}

impl Said {
    fn take(&mut self, expression: &syn::Expr) {
        self.visit_expr(expression);
    }
}

/// Compares the files outside of the homes for which something holds with those that are listed.
fn only_these(holds: impl Fn(&str) -> bool, listed: &[(&str, &str)]) {
    let mut found: Vec<String> = sources()
        .iter()
        .filter(|source| !is_tests_file(source))
        .filter(|source| !HOMES.iter().any(|home| source.name().starts_with(home)))
        .filter(|source| holds(&source.text))
        .map(super::Source::name)
        .collect();
    found.sort_unstable();
    let mut named: Vec<&str> = listed.iter().map(|(name, _)| *name).collect();
    named.sort_unstable();
    assert_eq!(
        found, named,
        "ask the profile of the runtime (src/plan/runtime.rs) or its part of the plan (src/planner/context.rs) for what differs"
    );
}

#[test]
fn a_runtime_has_one_home() {
    only_these(asks, OTHERS);
    only_these(|text| Said::of(text).places(), PLACES);
    only_these(|text| Said::of(text).not_docker, NOT_DOCKER);
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

#[test]
fn a_place_of_a_runtime_and_a_question_after_docker_are_found() {
    let places = |text| Said::of(text).places();
    assert!(places("const S: &str = \"unix:///run/crio/crio.sock\";"));
    assert!(places(
        "fn f() -> String { format!(\"after {} containerd.service\", 1) }"
    ));
    assert!(!places(
        "/// As containerd.service.\nfn f() {}\n#[cfg(test)]\nmod t { const S: &str = \"crio.service\"; }"
    ));
    let not_docker = |text| Said::of(text).not_docker;
    assert!(not_docker(
        "fn f(v: V) -> bool { v.x && !v.target.runtime.runs_on_docker() }"
    ));
    assert!(not_docker("fn f(v: V) { assert!(!v.runs_on_docker(), \"\") }"));
    assert!(!not_docker("fn f(v: V) -> bool { v.runs_on_docker() && !v.y() }"));
}

/// The list in CONTRIBUTING.md of the files that a new runtime touches outside of its own.
#[test]
fn a_new_runtime_touches_few_files() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/CONTRIBUTING.md")).unwrap();
    let (_, part) = text.split_once("## How to add a runtime").unwrap();
    let (part, _) = part.split_once("\n## ").unwrap();
    let files: Vec<&str> = part
        .lines()
        .filter_map(|line| line.trim().strip_prefix("| `")?.split('`').next())
        .collect();
    assert!((1..=12).contains(&files.len()), "{files:?}");
    for file in &files {
        assert!(std::path::Path::new(file).is_file(), "{file}");
    }
    for (name, _) in OTHERS {
        assert!(
            files.contains(&&*format!("src/{name}")),
            "{name} asks for a runtime"
        );
    }
}
