use super::*;
use crate::core::ids::MountId;

fn paths(exports: &[Export]) -> Vec<&str> {
    exports
        .iter()
        .map(|e| std::str::from_utf8(&e.path).unwrap())
        .collect()
}

#[test]
fn etab_as_exportfs_writes_it() {
    let text = b"/srv/in\t192.168.7.0/24(rw,sync,wdelay,hide,nocrossmnt,secure,root_squash,no_all_squash)\n\
/srv/in\t*(ro,sync,wdelay)\n\
/srv/pub\t*(ro,sync,wdelay,hide)\n\
/srv/two\\040words\t<world>(rw,async,crossmnt)\n";
    let exports = parse(text);
    assert_eq!(paths(&exports), ["/srv/in", "/srv/two words"]);
    assert!(exports[0].client.starts_with("192.168.7.0/24(rw,sync"));
    assert!(!exports[0].crossmnt && exports[1].crossmnt);
    assert_eq!(parse(b""), []);
}

#[test]
fn exports_as_people_write_them() {
    let text = br#"
# /commented  *(rw)
/plain  host(rw)
/readonly  host(ro) other(sync)
/bare
/quoted/"a b"/c	host(rw)   # the rest is not read *(rw)
"/all quoted"	*(rw)
/oct\040al\043x  *(rw,no_root_squash)
/de#faults -rw,sync  one two(ro)
/back  -rw one(ro)
/long  \
	one(ro) \
	two(sync,rw)
/everybody (rw)
/no-client -rw,crossmnt
/twice//slashed/  *(rw)
relative *(rw)
/last *(rw,ro)
/end *(rw)"#;
    let exports = parse(text);
    assert_eq!(
        paths(&exports),
        [
            "/all quoted",
            "/de#faults",
            "/end",
            "/everybody",
            "/long",
            "/no-client",
            "/oct al#x",
            "/plain",
            "/quoted/a b/c",
            "/twice/slashed"
        ]
    );
    let client = |path: &str| {
        let found = exports.iter().find(|e| e.path == path.as_bytes());
        found.unwrap().client.as_str()
    };
    assert_eq!(client("/long"), "two(sync,rw)");
    assert_eq!(client("/everybody"), "*(rw)");
    assert_eq!(client("/de#faults"), "one");
    assert_eq!(client("/no-client"), "*");
}

#[test]
fn any_bytes_are_read_to_an_end() {
    let mut seed = 7u64;
    let alphabet = b"/a \t\n\\\"#(,)-rw0123\xff";
    for _ in 0..2000 {
        let mut text = Vec::new();
        for _ in 0..60 {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            text.push(alphabet[(seed >> 33) as usize % alphabet.len()]);
        }
        for export in parse(&text) {
            assert!(export.path.starts_with(b"/"), "{text:?}");
        }
    }
}

struct Place {
    dir: tempfile::TempDir,
    tables: Tables,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let tables = Tables {
        etab: dir.path().join("nfs/etab"),
        exports: dir.path().join("etc/exports"),
        directory: dir.path().join("etc/exports.d"),
    };
    Place { dir, tables }
}

#[test]
fn etab_goes_before_what_would_be_exported() {
    let place = place();
    let exported = || {
        let all = place.tables.read().unwrap();
        let shown = all.iter().map(|(export, file)| {
            let file = file.strip_prefix(place.dir.path()).unwrap();
            (
                String::from_utf8_lossy(&export.path).into_owned(),
                file.display().to_string(),
            )
        });
        shown.collect::<Vec<_>>()
    };
    let pair = |path: &str, file: &str| (path.to_owned(), file.to_owned());
    assert_eq!(exported(), []);
    fs::create_dir_all(&place.tables.directory).unwrap();
    fs::write(&place.tables.exports, "/one *(rw)\n").unwrap();
    for name in ["b.exports", "a.exports", ".hidden.exports", "c.other"] {
        let text = format!("/d/{name} *(rw)\n");
        fs::write(place.tables.directory.join(name), text).unwrap();
    }
    assert_eq!(
        exported(),
        [
            pair("/one", "etc/exports"),
            pair("/d/a.exports", "etc/exports.d/a.exports"),
            pair("/d/b.exports", "etc/exports.d/b.exports"),
        ]
    );
    fs::create_dir(place.dir.path().join("nfs")).unwrap();
    fs::write(&place.tables.etab, "/two\t*(rw,sync)\n").unwrap();
    assert_eq!(exported(), [pair("/two", "nfs/etab")]);
    // A server that exports nothing has an empty table.
    fs::write(&place.tables.etab, "").unwrap();
    assert_eq!(exported(), []);
    // What is there and cannot be read says nothing.
    fs::remove_file(&place.tables.etab).unwrap();
    fs::create_dir(&place.tables.etab).unwrap();
    let (file, _) = place.tables.read().unwrap_err();
    assert_eq!(file, place.tables.etab);
}

const MOUNTS: &[u8] = b"\
1 0 8:1 / / rw - ext4 d rw
2 1 8:2 / /srv rw - xfs e rw
3 1 8:2 /in /export/in rw - xfs e rw
4 2 8:3 / /srv/in/disk rw - ext4 f rw
5 1 8:2 /other /mnt/other rw - xfs e rw
6 1 8:2 /in/deep /mnt/deep rw - xfs e rw
";

fn seen(path: &str, crossmnt: bool) -> Vec<(u64, String)> {
    let table = mounts::parse(MOUNTS);
    let export = Export {
        path: path.into(),
        client: "*(rw)".into(),
        crossmnt,
    };
    let trees = trees(&table, &[(export, "etab".into())]);
    let mut seen: Vec<(u64, String)> = trees
        .iter()
        .inspect(|tree| {
            assert_eq!(tree.export, path.as_bytes());
            assert_eq!(tree.why, "*(rw) in etab");
        })
        .map(|tree| (tree.mount.0, String::from_utf8(tree.path.clone()).unwrap()))
        .collect();
    seen.sort();
    seen
}

#[test]
fn an_exported_directory_is_known_under_all_its_paths() {
    let list = |of: &[(u64, &str)]| -> Vec<(u64, String)> {
        of.iter().map(|(id, path)| (*id, (*path).into())).collect()
    };
    // The same files lie below /srv/in, and a part of them below /mnt/deep; another disk does not belong to it.
    let all = list(&[(2, "/srv/in"), (3, "/export/in"), (6, "/mnt/deep")]);
    assert_eq!(seen("/export/in", false), all);
    assert_eq!(seen("/srv/in", false), all);
    let mut with_disk = all;
    with_disk.insert(2, (4, "/srv/in/disk".into()));
    assert_eq!(seen("/srv/in", true), with_disk);
    // /export is on the root's disk: what is mounted below it is not exported along, unless it says so.
    assert_eq!(seen("/export", false), list(&[(1, "/export")]));
    assert_eq!(
        seen("/srv/other/x", false),
        list(&[(2, "/srv/other/x"), (5, "/mnt/other/x")])
    );
    assert!(seen("/", true).contains(&(4, "/srv/in/disk".into())));
}

#[test]
fn the_survey_says_what_it_could_not_read() {
    let place = place();
    assert_eq!(survey(&place.tables).trees, Ok(Vec::new()));
    let real = place.dir.path().canonicalize().unwrap();
    fs::create_dir_all(place.dir.path().join("etc")).unwrap();
    let text = format!("{} *(rw)\n", real.display());
    fs::write(&place.tables.exports, text).unwrap();
    let trees = survey(&place.tables).trees.unwrap();
    let mounts = mounts::read().unwrap();
    let home: MountId = mounts::find(&mounts.mounts, real.as_os_str().as_bytes())
        .unwrap()
        .id;
    assert!(
        trees
            .iter()
            .any(|tree| tree.mount == home && tree.path == real.as_os_str().as_bytes())
    );
    fs::remove_file(&place.tables.exports).unwrap();
    fs::create_dir(&place.tables.exports).unwrap();
    let error = survey(&place.tables).trees.unwrap_err();
    assert!(error.contains("etc/exports"), "{error}");
}

#[test]
fn a_link_to_what_is_exported_is_followed() {
    let place = place();
    let real = place.dir.path().canonicalize().unwrap();
    fs::create_dir_all(real.join("etc")).unwrap();
    fs::create_dir(real.join("there")).unwrap();
    std::os::unix::fs::symlink("there", real.join("link")).unwrap();
    let text = format!("{}/link *(rw)\n", real.display());
    fs::write(&place.tables.exports, text).unwrap();
    let there = real.join("there");
    let trees = survey(&place.tables).trees.unwrap();
    assert!(
        trees
            .iter()
            .any(|tree| tree.path == there.as_os_str().as_bytes())
    );
}
