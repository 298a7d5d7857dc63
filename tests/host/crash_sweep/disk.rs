//! The disk as processes see it, and as a power cut leaves it: a model that forgets what was not synced. It watches
//! real files: told of every effect beforehand, it reads again what the one before has changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
};

use transship::host::files::Effect;

use crate::crash_sweep::random::Random;

/// What a power cut leaves of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// All of it.
    All,
    /// Names, but not what the files hold: they are empty, or as they were last synced.
    Names,
    /// Nothing.
    Nothing,
    /// A part, drawn by this number: of the files, those whose bytes arrived; of the changes in a directory, those that
    /// do not belong together.
    Drawn(u64),
}

/// In the place of a number, for all directories in one place.
const DIRECTORIES: u64 = u64::MAX;

/// What a name in a directory stands for.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Entry {
    Directory(u32),
    /// By a number that no other file ever had.
    File(u64),
    /// A symbolic link with its target.
    Link(Arc<str>),
}

impl Entry {
    fn number(&self) -> Option<u64> {
        match self {
            Self::File(number) => Some(*number),
            Self::Directory(_) => Some(DIRECTORIES),
            Self::Link(_) => None,
        }
    }
}

#[derive(Clone)]
struct Content {
    mode: u32,
    bytes: Arc<Vec<u8>>,
    digest: u64,
}

/// Every directory with its names; the root is the empty path.
type Directories = BTreeMap<Arc<str>, Arc<BTreeMap<Arc<str>, Entry>>>;
type Contents = Arc<BTreeMap<u64, Content>>;

/// The disk at one moment.
#[derive(Clone, Default)]
pub struct Image {
    names: Directories,
    files: Contents,
    /// The names and files that survive a power cut.
    synced_names: Directories,
    synced_files: Contents,
}

/// The disk below a root.
pub struct Disk {
    root: PathBuf,
    image: Image,
    /// The number of a file by its inode.
    numbers: HashMap<u64, u64>,
    /// Where a directory was last seen, by its inode.
    seen: HashMap<u64, String>,
    next: u64,
    /// Where the last changes were.
    recent: VecDeque<PathBuf>,
}

impl Content {
    fn new(name: &str, mode: u32, bytes: Vec<u8>) -> Self {
        let mut hasher = DefaultHasher::new();
        match std::str::from_utf8(&bytes) {
            // The same but for the time of day.
            Ok(text) if name == "journal" => text.split('\n').for_each(|line| {
                line.find("\"event\"")
                    .map_or(line, |after| &line[after..])
                    .hash(&mut hasher);
            }),
            // Of the reserve only its length counts.
            _ if name == "reserve" => bytes.len().hash(&mut hasher),
            _ => bytes.hash(&mut hasher),
        }
        Self {
            mode,
            bytes: Arc::new(bytes),
            digest: hasher.finish(),
        }
    }

    /// A file of which nothing was synced.
    fn lost() -> Self {
        Self::new("", 0o600, Vec::new())
    }
}

/// Directory and name of a relative path.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() {
        name.to_owned()
    } else {
        format!("{directory}/{name}")
    }
}

impl Image {
    /// What a power cut makes of it.
    pub fn after_power_cut(&self, left: Left) -> Self {
        let mut after = self.clone();
        match left {
            Left::All => {}
            Left::Names => after.forget_bytes(),
            Left::Nothing => {
                after.names = Directories::new();
                self.keep_synced("", &mut after.names);
                after.forget_bytes();
            }
            Left::Drawn(seed) => {
                let mut random = Random(seed);
                after.names = Directories::new();
                self.draw_names("", &mut after.names, &mut BTreeMap::new(), &mut random);
                after.forget_bytes();
                let arrived = self.files.iter().filter(|(number, _)| {
                    let unsynced = !self.is_synced(**number);
                    after.files.contains_key(number) && unsynced && random.below(2) == 0
                });
                let arrived: Vec<_> = arrived
                    .map(|(number, content)| (*number, content.clone()))
                    .collect();
                Arc::make_mut(&mut after.files).extend(arrived);
            }
        }
        after.synced_names.clone_from(&after.names);
        after.synced_files = after.files.clone();
        after
    }

    fn keep_synced(&self, directory: &str, kept: &mut Directories) {
        let names = self.synced_names.get(directory).cloned().unwrap_or_default();
        kept.insert(directory.into(), names.clone());
        for (name, entry) in names.iter() {
            if matches!(entry, Entry::Directory(_)) {
                self.keep_synced(&join(directory, name), kept);
            }
        }
    }

    fn is_synced(&self, number: u64) -> bool {
        let digest = |files: &Contents| files.get(&number).map(|content| (content.mode, content.digest));
        digest(&self.files) == digest(&self.synced_files)
    }

    /// Keeps of the changes in a directory, and below it, those that are drawn. What a rename does to its two names, it
    /// does at once; directories are not told apart, so those in one place change together.
    fn draw_names(
        &self,
        directory: &str,
        kept: &mut Directories,
        decided: &mut BTreeMap<u64, bool>,
        random: &mut Random,
    ) {
        let none = Arc::default();
        let now = self.names.get(directory).unwrap_or(&none);
        let synced = self.synced_names.get(directory).unwrap_or(&none);
        let mut drawn = (**synced).clone();
        let names: BTreeSet<&Arc<str>> = now.keys().chain(synced.keys()).collect();
        let mut changes: Vec<(BTreeSet<u64>, Vec<&Arc<str>>)> = Vec::new();
        for name in names {
            let entries = [now.get(name), synced.get(name)];
            if entries[0] == entries[1] {
                continue;
            }
            let mut numbers: BTreeSet<u64> =
                entries.into_iter().flatten().filter_map(Entry::number).collect();
            let mut together = vec![name];
            changes.retain_mut(|(others, names)| {
                let apart = others.is_disjoint(&numbers);
                if !apart {
                    numbers.append(others);
                    together.append(names);
                }
                apart
            });
            changes.push((numbers, together));
        }
        for (numbers, together) in changes {
            let before = numbers.iter().find_map(|number| decided.get(number)).copied();
            let arrived = before.unwrap_or_else(|| random.below(2) == 0);
            let files = numbers.into_iter().filter(|number| *number != DIRECTORIES);
            decided.extend(files.map(|number| (number, arrived)));
            if !arrived {
                continue;
            }
            for name in together {
                match now.get(name) {
                    Some(entry) => drop(drawn.insert(name.clone(), entry.clone())),
                    None => drop(drawn.remove(name)),
                }
            }
        }
        for (name, entry) in &drawn {
            if matches!(entry, Entry::Directory(_)) {
                self.draw_names(&join(directory, name), kept, decided, random);
            }
        }
        kept.insert(directory.into(), Arc::new(drawn));
    }

    fn forget_bytes(&mut self) {
        let numbers = self.names.values().flat_map(|names| names.values());
        self.files = Arc::new(
            numbers
                .filter_map(|entry| match entry {
                    Entry::File(number) => Some(*number),
                    Entry::Directory(_) | Entry::Link(_) => None,
                })
                .map(|number| {
                    let synced = self.synced_files.get(&number).cloned();
                    (number, synced.unwrap_or_else(Content::lost))
                })
                .collect(),
        );
    }

    /// Two disks that hash to the same hold the same, and lose the same in a power cut.
    pub fn hash(&self, hasher: &mut impl Hasher) {
        hash(&self.names, &self.files, hasher);
        hash(&self.synced_names, &self.synced_files, hasher);
    }
}

fn hash(names: &Directories, files: &Contents, hasher: &mut impl Hasher) {
    for (directory, names) in names {
        directory.hash(hasher);
        for (name, entry) in names.iter() {
            name.hash(hasher);
            match entry {
                Entry::Directory(mode) => mode.hash(hasher),
                Entry::Link(target) => target.hash(hasher),
                Entry::File(number) => {
                    let content = files.get(number);
                    content.map(|content| (content.mode, content.digest)).hash(hasher);
                }
            }
        }
    }
}

impl Disk {
    /// All that is below `root` now, and durable.
    pub fn new(root: &Path) -> Self {
        let mut disk = Self {
            root: root.to_path_buf(),
            image: Image::default(),
            numbers: HashMap::new(),
            seen: HashMap::new(),
            next: 0,
            recent: VecDeque::new(),
        };
        disk.look("");
        disk.image = disk.image.after_power_cut(Left::All);
        disk
    }

    /// The disk before the next effect.
    pub fn image(&mut self) -> Image {
        let directories: BTreeSet<String> = self
            .recent
            .iter()
            .map(|path| split(&self.relative(path)).0.to_owned())
            .collect();
        for directory in directories {
            self.look(&directory);
        }
        self.image.clone()
    }

    /// `effect` is about to happen; [`Disk::image`] was called before.
    pub fn expect(&mut self, effect: Effect<'_>) {
        match effect {
            Effect::Change(path) => {
                self.recent.push_back(path.to_path_buf());
                if self.recent.len() > 3 {
                    self.recent.pop_front();
                }
            }
            Effect::SyncFile(path) => {
                let path = self.relative(path);
                let (directory, name) = split(&path);
                if let Some(Entry::File(number)) = self.image.names[directory].get(name) {
                    let content = self.image.files[number].clone();
                    Arc::make_mut(&mut self.image.synced_files).insert(*number, content);
                }
            }
            Effect::SyncDirectory(path) => {
                let path = self.relative(path);
                let names = self.image.names[path.as_str()].clone();
                self.image.synced_names.insert(path.into(), names);
            }
            Effect::SyncFileSystem(_) => self.image = self.image.after_power_cut(Left::All),
        }
    }

    /// Makes the disk what it was.
    pub fn restore(&mut self, image: &Image) {
        for entry in fs::read_dir(&self.root).unwrap() {
            fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
        self.numbers.clear();
        self.seen.clear();
        for (directory, names) in &image.names {
            let real = self.root.join(&**directory);
            for (name, entry) in names.iter() {
                let at = real.join(&**name);
                let mode = match entry {
                    Entry::Directory(mode) => {
                        fs::create_dir(&at).unwrap();
                        let inode = fs::metadata(&at).unwrap().ino();
                        self.seen.insert(inode, join(directory, name));
                        *mode
                    }
                    Entry::File(number) => {
                        let content = &image.files[number];
                        fs::write(&at, &*content.bytes).unwrap();
                        self.numbers.insert(fs::metadata(&at).unwrap().ino(), *number);
                        content.mode
                    }
                    Entry::Link(target) => {
                        symlink(&**target, &at).unwrap();
                        continue;
                    }
                };
                fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
        self.image = image.clone();
        self.recent.clear();
    }

    fn relative(&self, path: &Path) -> String {
        let inside = path.strip_prefix(&self.root).unwrap();
        inside.to_str().unwrap().to_owned()
    }

    /// Reads a directory again, and in it every file that may be another one.
    fn look(&mut self, directory: &str) {
        let entries = match fs::read_dir(self.root.join(directory)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.forget(directory),
            Err(error) => panic!("{directory}: {error}"),
        };
        let mut names = BTreeMap::new();
        for entry in entries {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let meta = entry.metadata().unwrap();
            let mode = meta.permissions().mode();
            if meta.is_dir() {
                let path = join(directory, &name);
                let before = self.seen.insert(meta.ino(), path.clone());
                if let Some(before) = before.filter(|before| *before != path) {
                    self.moved(&before, &path);
                }
                if !self.image.names.contains_key(path.as_str()) {
                    self.look(&path);
                }
                names.insert(name.into(), Entry::Directory(mode));
                continue;
            }
            if meta.is_symlink() {
                let target = fs::read_link(entry.path()).unwrap();
                names.insert(name.into(), Entry::Link(target.to_str().unwrap().into()));
                continue;
            }
            let number = *self.numbers.entry(meta.ino()).or_insert_with(|| {
                self.next += 1;
                self.next
            });
            let changed = self.recent.iter().any(|path| {
                let base = path.file_name().and_then(|base| base.to_str());
                base.is_some_and(|base| name.contains(base))
            });
            let known = self.image.files.get(&number);
            if changed
                || known.is_none_or(|known| known.mode != mode || known.bytes.len() as u64 != meta.len())
            {
                let content = Content::new(&name, mode, fs::read(entry.path()).unwrap());
                Arc::make_mut(&mut self.image.files).insert(number, content);
            }
            names.insert(name.into(), Entry::File(number));
        }
        let gone: Vec<String> = self
            .image
            .names
            .get(directory)
            .into_iter()
            .flat_map(|before| before.keys())
            .filter(|name| !names.contains_key(&***name))
            .map(|name| join(directory, name))
            .collect();
        gone.iter().for_each(|path| self.forget(path));
        self.image.names.insert(directory.into(), Arc::new(names));
    }

    /// A directory was renamed: what was durable in it still is, once its own new name is. An inode that serves again
    /// for another directory is none that was renamed.
    fn moved(&mut self, from: &str, to: &str) {
        if self.root.join(from).exists() || self.image.names.contains_key(to) {
            return;
        }
        let below = |path: &str| {
            let rest = path.strip_prefix(from)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{to}{rest}"))
        };
        let synced: Vec<_> = self
            .image
            .synced_names
            .iter()
            .filter_map(|(path, names)| Some((Arc::from(below(path)?), names.clone())))
            .collect();
        self.image.synced_names.extend(synced);
    }

    fn forget(&mut self, directory: &str) {
        let below = format!("{directory}/");
        self.image
            .names
            .retain(|path, _| **path != *directory && !path.starts_with(&below));
    }
}
