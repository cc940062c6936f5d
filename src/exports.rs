//! Which directories this machine exports over NFS, read from the text of nfsd's export table. Read by a scout of its own,
//! or by `settled check`: the table may lie on a disk that does not answer.
//!
//! exportfs(8) keeps the table in `/var/lib/nfs/etab`; what it says holds. Where there is none, the server was never
//! started, and exports(5) says what it would export: `/etc/exports` and `/etc/exports.d/*.exports`.

use crate::core::ask::{ExportedTree, Exports};
use crate::mounts::{self, Table};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Where the tables are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// What exportfs(8) keeps.
    pub etab: PathBuf,
    /// exports(5).
    pub exports: PathBuf,
    /// Files of the same form, of which those that end in `.exports` and do not begin with a dot count.
    pub directory: PathBuf,
}

impl Default for Tables {
    /// Those of the system.
    fn default() -> Tables {
        Tables {
            etab: "/var/lib/nfs/etab".into(),
            exports: "/etc/exports".into(),
            directory: "/etc/exports.d".into(),
        }
    }
}

/// A directory that some clients may write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Absolute path, as the table has it.
    pub path: Vec<u8>,
    /// The first client that may, with its options, as the table has it.
    pub client: String,
    /// What is mounted below it belongs to it (`crossmnt`).
    pub crossmnt: bool,
}

/// Most bytes that all trees may take: they are told in one frame, which has room for a MiB.
const TREES_MAX: usize = 1 << 19;
/// Longest description of a client.
const CLIENT_MAX: usize = 200;

impl Tables {
    /// The directories in which a change of a table can be heard.
    pub fn directories(&self) -> Vec<&Path> {
        let parents = [self.etab.parent(), self.exports.parent()];
        let mut all: Vec<&Path> = parents.into_iter().flatten().collect();
        all.push(&self.directory);
        all.dedup();
        all
    }

    /// What is exported to writers, and the file that says so.
    ///
    /// # Errors
    /// The file that is there and cannot be read, and why: what is exported is not known then.
    pub fn read(&self) -> Result<Vec<(Export, PathBuf)>, (PathBuf, io::Error)> {
        if let Some(text) = text(&self.etab)? {
            return Ok(from(&text, &self.etab));
        }
        let mut all = Vec::new();
        for file in self.files()? {
            if let Some(text) = text(&file)? {
                all.extend(from(&text, &file));
            }
        }
        Ok(all)
    }

    /// The files of exports(5), in the order in which exportfs(8) reads them.
    fn files(&self) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
        let broken = |error| (self.directory.clone(), error);
        let mut more = Vec::new();
        match fs::read_dir(&self.directory) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry.map_err(broken)?.file_name();
                    let bytes = name.as_bytes();
                    if bytes.ends_with(b".exports") && !bytes.starts_with(b".") {
                        more.push(self.directory.join(name));
                    }
                }
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(broken(error)),
        }
        more.sort();
        more.insert(0, self.exports.clone());
        Ok(more)
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn text(file: &Path) -> Result<Option<Vec<u8>>, (PathBuf, io::Error)> {
    match fs::read(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err((file.to_path_buf(), error)),
    }
}

fn from(text: &[u8], file: &Path) -> Vec<(Export, PathBuf)> {
    let all = parse(text).into_iter();
    all.map(|export| (export, file.to_path_buf())).collect()
}

/// What is exported to writers. Reads both forms: a line of etab is one of exports(5) with one client. What cannot be
/// understood of a line is left out, as exportfs(8) leaves it out.
pub fn parse(text: &[u8]) -> Vec<Export> {
    let mut exports: BTreeMap<Vec<u8>, Export> = BTreeMap::new();
    for words in lines(text) {
        let mut words = words.into_iter();
        let Some(path) = words.next().filter(|path| path.starts_with(b"/")) else {
            continue;
        };
        let path = clean(&path);
        let mut defaults = Vec::new();
        let mut any = false;
        let mut clients: Vec<Vec<u8>> = Vec::new();
        for word in words {
            match word.strip_prefix(b"-") {
                Some(options) => defaults = options.to_vec(),
                None => {
                    any = true;
                    clients.push([word.as_slice(), b"\0", &defaults].concat());
                }
            }
        }
        if !any {
            // exports(5): to everybody.
            clients.push([b"*\0".as_slice(), &defaults].concat());
        }
        for client in clients {
            add(&mut exports, &path, &client);
        }
    }
    exports.into_values().collect()
}

/// One client with the options before it.
fn add(exports: &mut BTreeMap<Vec<u8>, Export>, path: &[u8], client: &[u8]) {
    let mut halves = client.splitn(2, |&b| b == 0);
    let (word, defaults) = (
        halves.next().unwrap_or_default(),
        halves.next().unwrap_or_default(),
    );
    let open = word.iter().position(|&b| b == b'(');
    let (_, own) = word.split_at(open.unwrap_or(word.len()));
    let own = own.strip_prefix(b"(").unwrap_or(own);
    let own = own.strip_suffix(b")").unwrap_or(own);
    // The last word on a matter holds; without one an export is read-only (exports(5)).
    let (mut writes, mut crossmnt) = (false, false);
    for option in defaults
        .split(|&b| b == b',')
        .chain(own.split(|&b| b == b','))
    {
        match option {
            b"rw" => writes = true,
            b"ro" => writes = false,
            b"crossmnt" => crossmnt = true,
            _ => {}
        }
    }
    if !writes {
        return;
    }
    let known = exports.entry(path.to_vec()).or_insert_with(|| {
        let text = String::from_utf8_lossy(word);
        let shown = if text.starts_with('(') {
            format!("*{text}")
        } else {
            text.into_owned()
        };
        Export {
            path: path.to_vec(),
            client: shown.chars().take(CLIENT_MAX).collect(),
            crossmnt: false,
        }
    });
    known.crossmnt |= crossmnt;
}

/// Without doubled or trailing slashes.
fn clean(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path
        .split(|&b| b == b'/')
        .filter(|part| !part.is_empty())
        .collect();
    [b"/".as_slice(), &parts.join(&b'/')].concat()
}

/// The words of each line: separated by white space, in double quotes where they have some in them, `\040` and its like
/// for any byte, a backslash at the end of a line joins the next, `#` at the beginning of a word begins a comment.
fn lines(text: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut lines = Vec::new();
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let (mut quoted, mut comment) = (false, false);
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'\\'
            && let Some(after) = rest.strip_prefix(b"\n")
        {
            rest = after;
            if !quoted {
                words.extend(word.take());
            }
            continue;
        }
        match byte {
            b'\n' => {
                // A quote that is not closed ends with its line.
                (quoted, comment) = (false, false);
                words.extend(word.take());
                lines.push(std::mem::take(&mut words));
            }
            _ if comment => {}
            b'"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            b'#' if word.is_none() => comment = true,
            b' ' | b'\t' | b'\r' | 0x0b | 0x0c if !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word.take());
    lines.push(words);
    lines.retain(|words| !words.is_empty());
    for word in lines.iter_mut().flatten() {
        *word = mounts::unescape(word);
    }
    lines
}

/// Where what is exported can be seen on this machine: below its path, and wherever else the same files of the same
/// filesystem are mounted.
pub fn trees(table: &Table, exports: &[(Export, PathBuf)]) -> Vec<ExportedTree> {
    let mut trees = Vec::new();
    for (export, file) in exports {
        let why = format!("{} in {}", export.client, file.display());
        let mut paths = vec![export.path.clone()];
        if export.crossmnt {
            let inner = table.mounts.iter().map(|mount| &mount.point);
            paths.extend(
                inner
                    .filter(|p| **p != export.path && mounts::contains(&export.path, p))
                    .cloned(),
            );
        }
        for path in paths {
            show(table, &path, &export.path, &why, &mut trees);
        }
    }
    trees
}

fn show(table: &Table, path: &[u8], export: &[u8], why: &str, trees: &mut Vec<ExportedTree>) {
    let Some(home) = mounts::find(&table.mounts, path) else {
        return;
    };
    let Some(origin) = table.origins.get(&home.id) else {
        return;
    };
    let inside = join(&origin.root, below(path, &home.point));
    for mount in &table.mounts {
        let Some(here) = table.origins.get(&mount.id) else {
            continue;
        };
        if here.device != origin.device {
            continue;
        }
        let seen = if mounts::contains(&inside, &here.root) {
            mount.point.clone()
        } else if mounts::contains(&here.root, &inside) {
            join(&mount.point, below(&inside, &here.root))
        } else {
            continue;
        };
        let known = trees
            .iter()
            .any(|tree| tree.mount == mount.id && tree.path == seen);
        if !known {
            trees.push(ExportedTree {
                mount: mount.id,
                path: seen,
                export: export.to_vec(),
                why: why.to_owned(),
            });
        }
    }
}

/// What is left of `path` below `above`, which contains it.
fn below<'a>(path: &'a [u8], above: &[u8]) -> &'a [u8] {
    let above = above.strip_suffix(b"/").unwrap_or(above);
    let rest = path.get(above.len()..).unwrap_or_default();
    rest.strip_prefix(b"/").unwrap_or(rest)
}

fn join(path: &[u8], rel: &[u8]) -> Vec<u8> {
    let mut joined = path.to_vec();
    if !rel.is_empty() {
        if joined.last() != Some(&b'/') {
            joined.push(b'/');
        }
        joined.extend_from_slice(rel);
    }
    joined
}

/// The tables and the mount table together. Links on the way to an exported directory are followed where the mount
/// table says that it lies on a local filesystem; elsewhere that might not come back.
pub fn survey(tables: &Tables) -> Exports {
    let read = tables
        .read()
        .map_err(|(file, error)| format!("{}: {error}", file.display()));
    let mounts = mounts::read().map_err(|error| format!("/proc/self/mountinfo: {error}"));
    let trees = read.and_then(|exports| {
        let mounts = mounts?;
        let trees = trees(&mounts, &resolved(&mounts, exports));
        let bytes = trees
            .iter()
            .map(|t| t.path.len() + t.export.len() + t.why.len());
        if bytes.sum::<usize>() > TREES_MAX {
            return Err("there are too many exports".into());
        }
        Ok(trees)
    });
    Exports {
        trees,
        wds: Vec::new(),
    }
}

fn resolved(table: &Table, exports: Vec<(Export, PathBuf)>) -> Vec<(Export, PathBuf)> {
    let mut all = Vec::with_capacity(exports.len());
    for (export, file) in exports {
        let local =
            mounts::find(&table.mounts, &export.path).is_some_and(|mount| !mount.remote_writers);
        let path = Path::new(OsStr::from_bytes(&export.path));
        if local
            && let Ok(real) = path.canonicalize()
            && real != path
        {
            let path = real.into_os_string().into_vec();
            all.push((
                Export {
                    path,
                    ..export.clone()
                },
                file.clone(),
            ));
        }
        all.push((export, file));
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
