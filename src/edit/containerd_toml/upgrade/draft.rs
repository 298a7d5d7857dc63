//! A configuration while it is translated: the document, what became of its keys, and what it was before.

use std::collections::BTreeMap;

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};

use super::{
    super::{CRI, CRI_IMAGES, CRI_RUNTIME, ContainerdTomlError, parse, plain, put, strings, version},
    outcome::{Became, Key, Problem},
};

/// A key with its tables.
pub(super) type Path = Vec<String>;

/// A configuration while it is translated.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    document: DocumentMut,
    /// 1 (plugins have short names), 2, 3 or 4.
    pub(super) version: i64,
    before: BTreeMap<Path, String>,
    touched: Vec<Path>,
    pub(super) keys: Vec<Key>,
    pub(super) problems: Vec<Problem>,
}

impl Draft {
    /// Reads the main file. A file without a version that names no plugin becomes version 2.
    pub(super) fn new(text: &str) -> Result<Self, ContainerdTomlError> {
        let mut draft = Self::imported(text)?;
        if draft.version == 1 {
            let mut names = strings(&draft.document, "disabled_plugins")?;
            names.extend(strings(&draft.document, "required_plugins")?);
            let short = names.iter().any(|name| !name.contains('.') && name != "cri");
            if !draft.document.contains_key("plugins") && !short {
                draft.version = version(&mut draft.document)?;
                draft.touched.push(vec!["version".to_owned()]);
            }
        }
        Ok(draft)
    }

    /// Reads a file whose version stays as it is.
    pub(super) fn imported(text: &str) -> Result<Self, ContainerdTomlError> {
        let document = parse(text)?;
        let version = match document.get("version") {
            None => 1,
            Some(item) => item.as_integer().ok_or(ContainerdTomlError::WrongType {
                path: "version".into(),
                wanted: "number",
            })?,
        };
        if !(0..=4).contains(&version) {
            return Err(ContainerdTomlError::UnknownVersion(version));
        }
        Ok(Self {
            before: leaves(&document),
            document,
            version: version.max(1),
            touched: Vec::new(),
            keys: Vec::new(),
            problems: Vec::new(),
        })
    }

    /// The text, after it was read again and compared with the original.
    pub(super) fn text(&self) -> Result<String, ContainerdTomlError> {
        let text = self.document.to_string();
        let read = parse(&text)?;
        let after = leaves(&read);
        let meant = |path: &Path| self.touched.iter().any(|touched| path.starts_with(touched));
        let differs = self
            .before
            .keys()
            .chain(after.keys())
            .find(|path| self.before.get(*path) != after.get(*path) && !meant(path));
        if let Some(path) = differs {
            return Err(ContainerdTomlError::NotAsMeant { path: shown(path) });
        }
        if after != leaves(&self.document) {
            return Err(ContainerdTomlError::NotAsMeant {
                path: "plugins".into(),
            });
        }
        Ok(text)
    }

    /// A key of the CRI's runtime half, in the names of this version.
    pub(super) fn cri(&self, key: &[&str]) -> Path {
        self.plugin(CRI_RUNTIME, key)
    }

    /// A key of the CRI's images half, in the names of this version.
    pub(super) fn images(&self, key: &[&str]) -> Path {
        self.plugin(CRI_IMAGES, key)
    }

    /// The snapshotter of the CRI.
    pub(super) fn snapshotter(&self) -> Path {
        match self.version {
            1 | 2 => self.cri(&["containerd", "snapshotter"]),
            _ => self.images(&["snapshotter"]),
        }
    }

    fn plugin(&self, third: &str, key: &[&str]) -> Path {
        let plugin = match self.version {
            1 => "cri",
            2 => CRI,
            _ => third,
        };
        path(&[&["plugins", plugin], key].concat())
    }

    /// The item of a key.
    pub(super) fn get(&self, path: &[String]) -> Option<&Item> {
        get(&self.document, path)
    }

    /// A text.
    pub(super) fn str(&self, path: &[String]) -> Option<&str> {
        self.get(path)?.as_str()
    }

    /// A truth value.
    pub(super) fn bool(&self, path: &[String]) -> Option<bool> {
        self.get(path)?.as_bool()
    }

    /// The names in a table.
    pub(super) fn names(&self, path: &[String]) -> Vec<String> {
        let table = self.get(path).and_then(Item::as_table_like);
        table
            .map(|table| table.iter().map(|(name, _)| name.to_owned()).collect())
            .unwrap_or_default()
    }

    /// The names of the handlers.
    pub(super) fn handlers(&self) -> Vec<String> {
        self.names(&self.cri(&["containerd", "runtimes"]))
    }

    /// Every value by its path.
    pub(super) fn leaves(&self) -> BTreeMap<Path, String> {
        leaves(&self.document)
    }

    /// Notes what became of a key.
    pub(super) fn note(&mut self, path: &[String], became: Became) {
        self.keys.push(Key {
            key: shown(path),
            became,
        });
    }

    /// Blocks the translation because of a key.
    pub(super) fn impossible(&mut self, path: &[String], why: &'static str) {
        self.problems.push(Problem::Impossible {
            key: shown(path),
            why,
        });
    }

    /// Sets a key.
    pub(super) fn set(&mut self, path: &[String], value: impl Into<Value>) {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        self.touched.push(path.to_owned());
        if let Err(error) = put(&mut self.document, &names, value.into()) {
            self.problems.push(error.into());
        }
    }

    /// Removes a key. Its comments are returned.
    pub(super) fn remove(&mut self, path: &[String]) -> Option<(Item, Vec<String>)> {
        let (name, tables) = path.split_last()?;
        let mut table: &mut dyn TableLike = self.document.as_table_mut();
        for name in tables {
            table = table.get_mut(name)?.as_table_like_mut()?;
        }
        let head = table.key(name).map(|key| lines(key.leaf_decor().prefix()));
        let item = table.remove(name)?;
        self.touched.push(path.to_owned());
        let mut comments = head.unwrap_or_default();
        collect_comments(&item, &mut comments);
        Some((item, comments))
    }

    /// Moves a table, which keeps its comments. What is at the new place is replaced.
    pub(super) fn transfer(&mut self, from: &[String], to: &[String]) {
        let Some((mut item, _)) = self.remove(from) else {
            return;
        };
        self.touched.push(to.to_owned());
        let Some((name, tables)) = to.split_last() else {
            return;
        };
        let mut table: &mut dyn TableLike = self.document.as_table_mut();
        for (index, name) in tables.iter().enumerate() {
            if !table.contains_key(name) {
                let mut new = Table::new();
                new.set_implicit(true);
                table.insert(name, Item::Table(new));
            }
            let Some(next) = table.get_mut(name).and_then(Item::as_table_like_mut) else {
                let path = shown(&to[..=index]);
                let wanted = "table";
                self.problems
                    .push(ContainerdTomlError::WrongType { path, wanted }.into());
                return;
            };
            table = next;
        }
        if let Some(dotted) = item.as_table_mut() {
            dotted.set_dotted(false);
        }
        table.insert(name, item);
    }

    /// Puts comments in front of a key.
    pub(super) fn comment(&mut self, path: &[String], comments: &[String]) {
        let Some((name, tables)) = path.split_last() else {
            return;
        };
        let mut table: &mut dyn TableLike = self.document.as_table_mut();
        for name in tables {
            let Some(next) = table.get_mut(name).and_then(Item::as_table_like_mut) else {
                return;
            };
            table = next;
        }
        // A line break cannot stand in an inline table of all versions of TOML.
        if comments.is_empty() || table.is_dotted() {
            return;
        }
        if let Some(mut key) = table.key_mut(name) {
            let old = key.leaf_decor().prefix().and_then(|prefix| prefix.as_str());
            let lines: String = comments.iter().map(|line| format!("{line}\n")).collect();
            let new = format!("{lines}{}", old.unwrap_or_default());
            key.leaf_decor_mut().set_prefix(new);
        }
    }

    /// Keeps the names in a list that are wanted, and notes the others.
    pub(super) fn retain(&mut self, list: &'static str, wanted: impl Fn(&str) -> bool, why: &'static str) {
        let names = match strings(&self.document, list) {
            Ok(names) => names,
            Err(error) => return self.problems.push(error.into()),
        };
        let gone: Vec<&String> = names.iter().filter(|name| !wanted(name)).collect();
        if gone.is_empty() {
            return;
        }
        if let Some(array) = self.document.get_mut(list).and_then(Item::as_array_mut) {
            array.retain(|name| name.as_str().is_none_or(&wanted));
        }
        self.touched.push(vec![list.to_owned()]);
        for name in gone {
            self.note(&[list.to_owned(), name.clone()], Became::Dropped(why));
        }
    }
}

/// A key as it is compared: names of version 1 are those of version 2.
pub(super) fn canonical(path: &[String]) -> Path {
    let mut path = path.to_owned();
    if let [plugins, plugin, ..] = &mut path[..]
        && plugins == "plugins"
        && plugin == "cri"
    {
        CRI.clone_into(plugin);
    }
    path
}

/// A path of names.
pub(super) fn path(names: &[&str]) -> Path {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A list of one text.
pub(super) fn list(text: &str) -> Value {
    Array::from_iter([text]).into()
}

/// The item at a path.
pub(super) fn get<'a>(document: &'a DocumentMut, path: &[String]) -> Option<&'a Item> {
    path.iter()
        .try_fold(document.as_item(), |item, name| item.get(name.as_str()))
}

/// A key as a person writes it.
pub(super) fn shown(path: &[String]) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let quoted = |name: &String| {
        if !name.is_empty() && name.chars().all(bare) {
            name.clone()
        } else {
            format!("{name:?}")
        }
    };
    path.iter().map(quoted).collect::<Vec<_>>().join(".")
}

/// Every value by its path.
pub(super) fn leaves(document: &DocumentMut) -> BTreeMap<Path, String> {
    fn walk(item: &Item, path: &mut Path, found: &mut BTreeMap<Path, String>) {
        if let Some(table) = item.as_table_like() {
            for (name, item) in table.iter() {
                path.push(name.to_owned());
                walk(item, path, found);
                path.pop();
            }
        } else if let Some(tables) = item.as_array_of_tables() {
            for (index, table) in tables.iter().enumerate() {
                path.push(format!("[{index}]"));
                walk(&Item::Table(table.clone()), path, found);
                path.pop();
            }
        } else if let Some(value) = item.as_value() {
            found.insert(path.clone(), plain(value));
        }
    }
    let mut found = BTreeMap::new();
    walk(document.as_item(), &mut Vec::new(), &mut found);
    found
}

fn lines(decor: Option<&toml_edit::RawString>) -> Vec<String> {
    let text = decor.and_then(|decor| decor.as_str()).unwrap_or_default();
    let comments = text.lines().map(str::trim).filter(|line| line.starts_with('#'));
    comments.map(str::to_owned).collect()
}

fn collect_comments(item: &Item, found: &mut Vec<String>) {
    match item {
        Item::Table(table) => {
            found.extend(lines(table.decor().prefix()));
            found.extend(lines(table.decor().suffix()));
            for (name, item) in table {
                let head = table.key(name).map(|key| lines(key.leaf_decor().prefix()));
                found.extend(head.unwrap_or_default());
                collect_comments(item, found);
            }
        }
        Item::Value(value) => {
            found.extend(lines(value.decor().prefix()));
            if let Value::Array(array) = value {
                for value in array {
                    found.extend(lines(value.decor().prefix()));
                    found.extend(lines(value.decor().suffix()));
                }
                found.extend(lines(Some(array.trailing())));
            }
            found.extend(lines(value.decor().suffix()));
        }
        Item::ArrayOfTables(tables) => {
            for table in tables {
                collect_comments(&Item::Table(table.clone()), found);
            }
        }
        Item::None => {}
    }
}
