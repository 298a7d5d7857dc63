//! The layers: who may know whom. Read from the sources, so that a shortcut fails here and not in a review.

mod rooms;
mod runtimes;

use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// Lines of a file that are not blank, its tests included.
const LONGEST: usize = 600;

/// The files of the host are touched in one place.
const FILES: &str = "host/files";

/// Parsers, whose errors quote what they read, and what says something outside the process; and the files that may
/// name them, because there nothing gets out that must not.
const GUARDED: &[(&[&str], &[&str], &str)] = &[
    (
        &[
            "serde_saphyr::from_",
            "serde_json::from_",
            "parse::<DocumentMut>",
            "toml_edit::de",
            "Kubeconfig::read",
            "Kubeconfig::from_",
        ],
        &["edit/parse.rs"],
        "foreign text is read by edit/parse.rs, whose errors do not quote it",
    ),
    (
        &["eprintln!", "eprint!", "dbg!", "io::stderr()"],
        &["telemetry.rs"],
        "standard error is written by telemetry.rs, which hides secrets",
    ),
    (
        &["tracing_subscriber"],
        &["telemetry.rs"],
        "logs are written by telemetry.rs, which hides secrets",
    ),
    (
        &["patch_status(", "replace_status(", "Patch::Apply("],
        &["agent/share.rs", "controller/"],
        "a status leaves the node through agent/share.rs, which hides secrets",
    ),
    (
        &["events::", "Recorder"],
        &["controller.rs", "controller/"],
        "events are published by the controller, which sees no file of a node",
    ),
];

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The path below `src/`.
    fn name(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// The first module of its path: `plan` for `plan/step.rs` and for `plan.rs`.
    fn module(&self) -> String {
        let first = self.path.iter().next().unwrap().to_string_lossy().into_owned();
        first.trim_end_matches(".rs").to_owned()
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_below(&root).into_iter();
    files
        .map(|(path, text)| Source {
            path: path.strip_prefix(&root).unwrap().to_owned(),
            text,
        })
        .collect()
}

/// The paths and texts of all Rust files under a directory.
fn rust_below(directory: &Path) -> Vec<(PathBuf, String)> {
    let files = walkdir::WalkDir::new(directory)
        .sort_by_file_name()
        .into_iter()
        .map(Result::unwrap);
    let rust = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "rs"));
    rust.map(|file| {
        (
            file.path().to_owned(),
            std::fs::read_to_string(file.path()).unwrap(),
        )
    })
    .collect()
}

/// The paths that a file names; those of its tests too, if asked.
#[derive(Default)]
struct Named {
    paths: Vec<String>,
    /// Those of them that it only shows to others (`pub use`).
    shown: Vec<String>,
    tests_too: bool,
}

impl<'ast> Visit<'ast> for Named {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if self.tests_too || !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if self.tests_too || !is_test(&function.attrs) {
            visit::visit_item_fn(self, function);
        }
    }
    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if self.tests_too || !is_test(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }
    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if self.tests_too || !is_test(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if self.tests_too || !is_test(&item.attrs) {
            flatten(&item.tree, String::new(), &mut self.paths);
            if !matches!(item.vis, syn::Visibility::Inherited) {
                flatten(&item.tree, String::new(), &mut self.shown);
            }
        }
    }
    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if attribute.path().is_ident("derive") {
            let derived = attribute
                .parse_args_with(syn::punctuated::Punctuated::<syn::Path, syn::Token![,]>::parse_terminated);
            derived.unwrap().iter().for_each(|path| self.visit_path(path));
        }
        visit::visit_attribute(self, attribute);
    }
    /// What macros like `format!` are given are expressions, with paths of their own.
    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        let parser = syn::punctuated::Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated;
        if let Ok(arguments) = called.parse_body_with(parser) {
            let mut inner = Named::default();
            // They do not live as long as the file.
            arguments.iter().for_each(|argument| inner.take(argument));
            self.paths.extend(inner.paths);
        }
        self.visit_path(&called.path);
    }
    /// `pub(super)` imports nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        self.paths.push(segments.join("::"));
        visit::visit_path(self, path);
    }
}

impl Named {
    fn take(&mut self, expression: &syn::Expr) {
        let mut inner = Named::default();
        inner.visit_expr(expression);
        self.paths.extend(inner.paths);
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    let test = |list: &syn::MetaList| list.path.is_ident("cfg") && list.tokens.to_string() == "test";
    attributes
        .iter()
        .any(|attribute| attribute.meta.require_list().is_ok_and(test))
}

fn flatten(tree: &syn::UseTree, before: String, named: &mut Vec<String>) {
    let join = |name: String| {
        if before.is_empty() {
            name
        } else {
            format!("{before}::{name}")
        }
    };
    match tree {
        syn::UseTree::Path(path) => flatten(&path.tree, join(path.ident.to_string()), named),
        syn::UseTree::Name(name) => named.push(join(name.ident.to_string())),
        syn::UseTree::Rename(rename) => named.push(join(rename.ident.to_string())),
        syn::UseTree::Glob(_) => named.push(before),
        syn::UseTree::Group(group) => group
            .items
            .iter()
            .for_each(|item| flatten(item, before.clone(), named)),
    }
}

/// Every path that a text names outside its tests.
fn named(text: &str) -> Vec<String> {
    paths(text, false)
}

fn paths(text: &str, tests_too: bool) -> Vec<String> {
    read(text, tests_too).paths
}

fn read(text: &str, tests_too: bool) -> Named {
    let mut all = Named {
        tests_too,
        ..Named::default()
    };
    all.visit_file(&syn::parse_file(text).unwrap());
    all
}

fn below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn is_tests_file(source: &Source) -> bool {
    source
        .path
        .components()
        .any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
}

#[test]
fn files_are_touched_in_one_place() {
    let mut wrong = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| !is_tests_file(source) && !source.name().starts_with(FILES))
    {
        let touches = named(&source.text)
            .into_iter()
            .find(|path| below(path, "std::fs") || below(path, "tokio::fs"));
        wrong.extend(touches.map(|path| {
            format!(
                "{} names {path}; files are read and written by {FILES}",
                source.name()
            )
        }));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_foreign_gets_out_unseen() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !is_tests_file(source)) {
        let name = source.name();
        let text = source.text.split("#[cfg(test)]").next().unwrap();
        for (words, places, why) in GUARDED {
            if places.iter().any(|place| name.starts_with(place)) {
                continue;
            }
            for line in text.lines().filter(|line| !line.trim().starts_with("//")) {
                wrong.extend(
                    words
                        .iter()
                        .filter(|word| line.contains(*word))
                        .map(|word| format!("{name} names {word}: {why}\n    {}", line.trim())),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (words, places, _) in GUARDED {
        for place in *places {
            let named = sources().iter().any(|source| {
                source.name().starts_with(place) && words.iter().any(|word| source.text.contains(word))
            });
            assert!(
                named,
                "{place} names none of {words:?}: a rule that holds nothing"
            );
        }
    }
}

/// A dependency that nothing names is built, licensed and updated for nobody.
#[test]
fn every_dependency_is_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest: toml_edit::DocumentMut = std::fs::read_to_string(root.join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let code: Vec<String> = sources().iter().flat_map(|source| named(&source.text)).collect();
    let in_tests: Vec<String> = ["src", "tests"]
        .iter()
        .flat_map(|directory| rust_below(&root.join(directory)))
        .flat_map(|(_, text)| paths(&text, true))
        .collect();
    let mut unused = Vec::new();
    for (table, paths) in [("dependencies", &code), ("dev-dependencies", &in_tests)] {
        for (name, _) in manifest[table].as_table().unwrap() {
            let module = name.replace('-', "_");
            if !paths.iter().any(|path| below(path, &module)) {
                unused.push(format!("{table}: {name}"));
            }
        }
    }
    assert_eq!(unused, Vec::<String>::new(), "remove them from Cargo.toml");
}

#[test]
fn a_file_fits_into_a_head() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["src", "tests"].map(|directory| rust_below(&root.join(directory)));
    let long: Vec<String> = files
        .into_iter()
        .flatten()
        .map(|(path, text)| (path, text.lines().filter(|line| !line.trim().is_empty()).count()))
        .filter(|(_, lines)| *lines > LONGEST)
        .map(|(path, lines)| format!("{} has {lines} lines of at most {LONGEST}", path.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// Each binary is linked with the whole crate; what belongs to one group lies in its directory.
#[test]
fn tests_are_four_binaries() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let roots = walkdir::WalkDir::new(&root).max_depth(2).sort_by_file_name();
    let roots = roots.into_iter().map(Result::unwrap).filter(|file| {
        let name = file.file_name().to_string_lossy();
        name == "main.rs" || file.depth() == 1 && name.ends_with(".rs")
    });
    let roots: Vec<String> = roots
        .map(|file| file.path().strip_prefix(&root).unwrap().display().to_string())
        .collect();
    assert_eq!(roots, ["api/main.rs", "e2e.rs", "host/main.rs", "pure/main.rs"]);
}

#[test]
fn modules_are_named_files() {
    let named_mod: Vec<String> = sources()
        .iter()
        .map(Source::name)
        .filter(|name| name.ends_with("mod.rs"))
        .collect();
    assert_eq!(named_mod, Vec::<String>::new());
}

#[test]
fn the_reader_sees_what_it_must() {
    let text = "use crate::{host::files, api};\n#[derive(thiserror::Error)] enum E {}\n\
        fn f() { std::fs::read(\"\"); }\n#[cfg(test)]\nmod tests { use tokio::fs; }";
    let paths = named(text);
    for path in [
        "crate::host::files",
        "crate::api",
        "std::fs::read",
        "thiserror::Error",
    ] {
        assert!(paths.iter().any(|p| p == path), "{path} is missing in {paths:?}");
    }
    assert!(!paths.iter().any(|path| path.contains("tokio")));
    assert!(below("kube::Api", "kube") && !below("kube_runtime::x", "kube"));
}
