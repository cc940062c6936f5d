//! Which filesystem a path is on, read from the text of `/proc/self/mountinfo`: that never touches the
//! filesystem itself, so no dead server can stop it (proc_pid_mountinfo(5)).

use crate::core::Mount;
use crate::core::ids::MountId;
use mio::event::Source as MioSource;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Types whose every writer is a process of this machine that goes through this kernel's VFS: inotify sees
/// all of them, and a lease counts all of them. `overlay` is here although its layers may be remote.
/// Not here: everything remote, clustered, shared with a host or another guest, served by a process (FUSE),
/// and everything unknown.
const LOCAL: &[&str] = &[
    "adfs",
    "affs",
    "bcachefs",
    "befs",
    "bfs",
    "btrfs",
    "cramfs",
    "devtmpfs",
    "efs",
    "erofs",
    "exfat",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "hfs",
    "hfsplus",
    "hpfs",
    "hugetlbfs",
    "iso9660",
    "jffs2",
    "jfs",
    "minix",
    "msdos",
    "nilfs2",
    "ntfs",
    "ntfs3",
    "omfs",
    "overlay",
    "ramfs",
    "reiserfs",
    "romfs",
    "rootfs",
    "squashfs",
    "tmpfs",
    "ubifs",
    "udf",
    "ufs",
    "vfat",
    "xfs",
    "zfs",
    "zonefs",
];

/// Whether files of this type can be written without an inotify event: such a filesystem is polled as well.
pub fn sees_remote_writers(fstype: &str) -> bool {
    LOCAL.binary_search(&fstype).is_err()
}

/// Whether a refused read lease means a writer and a granted one means none. On remote clients EAGAIN says
/// only that the client has no delegation.
pub fn lease_can_be_trusted(fstype: &str) -> bool {
    !sees_remote_writers(fstype)
}

/// A mount table as text, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Every mount that some path leads to, in the kernel's order. Those that lie hidden below a later
    /// mount are left out.
    pub mounts: Vec<Mount>,
    /// What of which filesystem each of them shows.
    pub origins: BTreeMap<MountId, Origin>,
    /// Lines that could not be understood and were skipped.
    pub malformed: usize,
}

/// What of which filesystem a mount shows: two mounts with one device show the same files, each below its own point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// `major:minor` of the filesystem.
    pub device: Vec<u8>,
    /// The directory of the filesystem that lies at the mount's point; absolute.
    pub root: Vec<u8>,
}

/// Reads the text of a mountinfo file. Never fails: see [`Table::malformed`].
pub fn parse(text: &[u8]) -> Table {
    let mut table = Table::default();
    let mut parents = Vec::new();
    for line in text.split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
        match parse_line(line) {
            Some((mount, parent, origin)) => {
                table.origins.insert(mount.id, origin);
                table.mounts.push(mount);
                parents.push(parent);
            }
            None => table.malformed += 1,
        }
    }
    table.mounts = reachable(table.mounts, &parents);
    let kept: BTreeSet<MountId> = table.mounts.iter().map(|mount| mount.id).collect();
    table.origins.retain(|id, _| kept.contains(id));
    table
}

/// The mounts that path lookup can arrive at. A lookup crosses, from each mount, the first mount point on its
/// way: a mount is hidden if a sibling covers a directory above its point (or the whole parent), and with
/// it everything mounted on it. One mounted right on top of another has that other one as its parent.
fn reachable(mounts: Vec<Mount>, parents: &[MountId]) -> Vec<Mount> {
    let mut points: BTreeMap<MountId, BTreeSet<&[u8]>> = BTreeMap::new();
    let mut place: BTreeMap<MountId, (&[u8], MountId)> = BTreeMap::new();
    for (mount, parent) in mounts.iter().zip(parents) {
        if mount.id != *parent {
            points.entry(*parent).or_default().insert(&mount.point);
        }
        place.insert(mount.id, (&mount.point, *parent));
    }
    // Whether a mount on `parent` at a directory above `point` takes the way.
    let covered = |parent: MountId, point: &[u8]| {
        let Some(siblings) = points.get(&parent) else {
            return false;
        };
        let above = |end: usize| point.get(..end.max(1)).unwrap_or_default();
        (0..point.len())
            .filter(|&i| point.get(i) == Some(&b'/'))
            .map(above)
            .any(|prefix| prefix != point && siblings.contains(prefix))
    };
    let visible = |mount: &Mount| {
        // Its own root must not be covered by something mounted right on it.
        if points
            .get(&mount.id)
            .is_some_and(|p| p.contains(mount.point.as_slice()))
        {
            return false;
        }
        let mut at = mount.id;
        // Parents form a tree; the bound only guards against a text that is not one.
        for _ in 0..=place.len() {
            match place.get(&at) {
                Some(&(point, parent)) if parent != at => {
                    if covered(parent, point) {
                        return false;
                    }
                    at = parent;
                }
                _ => return true,
            }
        }
        true
    };
    let keep: Vec<bool> = mounts.iter().map(visible).collect();
    let kept = mounts.into_iter().zip(keep).filter(|(_, keep)| *keep);
    kept.map(|(mount, _)| mount).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`: fields are separated by
/// one space each (an empty source leaves two), any number of optional ones end at a lone dash.
fn parse_line(line: &[u8]) -> Option<(Mount, MountId, Origin)> {
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u64>().ok();
    let mut fields = line.split(|&b| b == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let origin = Origin {
        device: fields.next()?.to_vec(),
        root: unescape(fields.next()?),
    };
    let point = unescape(fields.next()?);
    let _options = fields.next()?;
    fields.find(|field| *field == b"-")?;
    let fstype = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
    let options = fields.nth(1).unwrap_or_default();
    if fstype.is_empty() || point.first() != Some(&b'/') {
        return None;
    }
    let attribute_cache_s = attribute_cache(&fstype, options);
    let id = MountId(id);
    let mount = Mount {
        id,
        point,
        remote_writers: sees_remote_writers(&fstype),
        fstype,
        attribute_cache_s,
    };
    Some((mount, MountId(parent), origin))
}

/// Why locks on files of this mount, a line of mountinfo, hold on this machine alone, if they do: nfs(5) `nolock` and
/// `local_lock`, mount.cifs(8) `nobrl`; sshfs(1) has no locks.
pub fn local_locks(line: &str) -> Option<String> {
    let (_, behind) = line.split_once(" - ")?;
    let mut fields = behind.split(' ');
    let (fstype, options) = (fields.next()?, fields.nth(1).unwrap_or_default());
    let has = |wanted: &str| options.split(',').any(|option| option == wanted);
    let why = match fstype {
        "nfs" | "nfs4" => ["nolock", "local_lock=all", "local_lock=posix"]
            .into_iter()
            .find(|option| has(option)),
        "cifs" | "smb3" => ["nobrl"].into_iter().find(|option| has(option)),
        "fuse.sshfs" => Some(fstype),
        _ => None,
    }?;
    Some(format!(
        "it is mounted with locks that other machines do not see ({why})"
    ))
}

/// The same of the mount that a path is on, which has no symbolic link in it.
pub fn local_locks_at(path: &[u8]) -> Option<String> {
    let text = std::fs::read("/proc/self/mountinfo").ok()?;
    let table = parse(&text);
    let id = find(&table.mounts, path)?.id.0.to_string();
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines();
    local_locks(lines.find(|line| line.split(' ').next() == Some(&id))?)
}

/// `\040` and its like: three octal digits after a backslash. Anything else is left as it is.
pub(crate) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'))
            }
            _ => None,
        };
        out.push(octal.unwrap_or(first));
        rest = if octal.is_some() {
            rest.get(4..).unwrap_or_default()
        } else {
            after
        };
    }
    out
}

/// Seconds for which a client may show old attributes: nfs(5) and mount.cifs(8). The kernel leaves the
/// options out where they have their default values.
fn attribute_cache(fstype: &str, options: &[u8]) -> u32 {
    let default = match fstype {
        "nfs" | "nfs4" => 60,
        "cifs" | "smb3" => 1,
        _ => return 0,
    };
    // Of files, and of directories: by an old one a name may lead to the file that had it before.
    let (mut file, mut dir): (u32, u32) = (default, default);
    for option in options.split(|&b| b == b',') {
        let Ok(option) = std::str::from_utf8(option) else {
            continue;
        };
        if option == "noac" {
            return 0;
        }
        let Some((name, value)) = option.split_once('=') else {
            continue;
        };
        // A value that is no number keeps the longer, safe default.
        let seconds = value.parse().unwrap_or(default);
        match name {
            "acregmax" => file = seconds,
            "acdirmax" => dir = seconds,
            "actimeo" => (file, dir) = (seconds, seconds),
            _ => {}
        }
    }
    file.max(dir)
}

/// The mount table of this process.
///
/// # Errors
/// What reading `/proc/self/mountinfo` gives; ENOENT if /proc is not mounted.
pub fn read() -> io::Result<Table> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The mount that the absolute `path` (no `.`, `..` or doubled slashes, no symbolic links) is on: the one
/// with the longest mount point above it, by whole components; of equal points the last, which lies on top.
pub fn find<'a>(mounts: &'a [Mount], path: &[u8]) -> Option<&'a Mount> {
    let above = mounts.iter().filter(|m| contains(&m.point, path));
    // `max_by_key` takes the last of equals.
    above.max_by_key(|m| m.point.len())
}

/// Whether `path` is `point` or lies below it.
pub(crate) fn contains(point: &[u8], path: &[u8]) -> bool {
    match path.strip_prefix(point) {
        Some(rest) => point == b"/" || rest.is_empty() || rest.first() == Some(&b'/'),
        None => false,
    }
}

/// `/proc/self/mountinfo` as a source of the loop: it becomes ready by priority (`EPOLLPRI`, which mio calls
/// [`Interest::PRIORITY`]) whenever something was mounted, unmounted or moved.
#[derive(Debug)]
pub struct Source {
    file: File,
}

impl Source {
    /// Opens it. A change is signalled if it comes after this.
    ///
    /// # Errors
    /// What open(2) gives; ENOENT if /proc is not mounted.
    pub fn open() -> io::Result<Source> {
        Source::open_at(Path::new("/proc/self/mountinfo"))
    }

    fn open_at(path: &Path) -> io::Result<Source> {
        let file = File::open(path)?;
        Ok(Source { file })
    }

    /// The table as it is now. A change while it is being read is signalled anew.
    ///
    /// # Errors
    /// What read(2) gives.
    pub fn read(&mut self) -> io::Result<Table> {
        let mut text = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_end(&mut text)?;
        Ok(parse(&text))
    }
}

/// Registered for priority whatever interest is asked for: the file is always readable, which says nothing.
impl MioSource for Source {
    fn register(&mut self, to: &Registry, token: Token, _: Interest) -> io::Result<()> {
        SourceFd(&self.file.as_raw_fd()).register(to, token, Interest::PRIORITY)
    }

    fn reregister(&mut self, to: &Registry, token: Token, _: Interest) -> io::Result<()> {
        SourceFd(&self.file.as_raw_fd()).reregister(to, token, Interest::PRIORITY)
    }

    fn deregister(&mut self, from: &Registry) -> io::Result<()> {
        SourceFd(&self.file.as_raw_fd()).deregister(from)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::sched::{CloneFlags, unshare};
    use std::os::unix::ffi::OsStrExt;
    use std::time::Duration;

    const TEXT: &[u8] = b"\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
30 22 0:40 / /srv rw master:3 propagate_from:2 - xfs /dev/sdb1 rw
31 22 0:41 / /srvx rw - tmpfs tmpfs rw
32 30 0:42 /export /srv/in\\040box\\011\\012\\134 rw unbindable - nfs4 srv:/export rw,vers=4.2,acregmin=3,acregmax=120,hard
33 30 0:43 / /srv/media rw - fuse.sshfs host:/x rw,user_id=0
34 30 0:44 / /srv/plain rw - nfs srv:/p rw,vers=3
35 30 0:45 / /srv/smb rw - cifs //s/x rw,actimeo=30
36 30 0:46 / /srv/smb2 rw - smb3 //s/y rw
37 30 0:47 / /srv/noac rw - nfs4 srv:/q rw,noac,acregmin=0
38 30 0:48 / /srv/empty rw - tmpfs  rw
41 30 0:51 / /srv/reg rw - nfs4 srv:/r rw,acregmax=5
42 30 0:52 / /srv/dir rw - nfs4 srv:/d rw,acregmin=1,acregmax=5,acdirmin=1,acdirmax=7
39 30 0:49 / /srv/auto rw - autofs systemd-1 rw
40 39 0:50 / /srv/auto rw - nfs4 srv:/auto rw,actimeo=soon
";

    fn on<'a>(table: &'a Table, path: &[u8]) -> &'a str {
        find(&table.mounts, path).map_or("none", |m| m.fstype.as_str())
    }

    #[test]
    fn paths_find_their_mount_by_whole_components() {
        let table = parse(TEXT);
        assert_eq!(table.malformed, 0);
        for (path, fstype) in [
            ("/", "ext4"),
            ("/home/a", "ext4"),
            ("/sr", "ext4"),
            ("/srv", "xfs"),
            ("/srv/a", "xfs"),
            ("/srvx", "tmpfs"),
            ("/srvx/a", "tmpfs"),
            ("/srvxy/a", "ext4"),
            ("/srv/in box\t\n\\/f", "nfs4"),
            ("/srv/in box", "xfs"),
            ("/srv/media/a/b", "fuse.sshfs"),
            ("/srv/mediax", "xfs"),
            ("/srv/auto/f", "nfs4"),
        ] {
            assert_eq!(on(&table, path.as_bytes()), fstype, "{path}");
        }
        assert_eq!(on(&table, b"relative"), "none");
    }

    #[test]
    fn attribute_cache_times() {
        let table = parse(TEXT);
        for (path, seconds) in [
            ("/srv/in box\t\n\\", 120),
            ("/srv/plain", 60),
            ("/srv/smb", 30),
            ("/srv/smb2", 1),
            ("/srv/noac", 0),
            ("/srv/auto", 60),
            ("/srv/reg", 60),
            ("/srv/dir", 7),
            ("/srv/media", 0),
            ("/", 0),
        ] {
            let mount = find(&table.mounts, path.as_bytes()).unwrap();
            assert_eq!(mount.attribute_cache_s, seconds, "{path}");
        }
    }

    #[test]
    fn what_a_later_mount_covers_is_not_there() {
        // On /srv/a lies 2, on that 3. Then 4 covers /srv, with 5 on it, and 6 lies below the covered 3.
        let text = b"\
1 0 8:1 / / rw - ext4 d rw
2 1 8:2 / /srv/a rw - nfs4 d rw
3 2 8:3 / /srv/a rw - xfs d rw
6 3 8:6 / /srv/a/b/c rw - vfat d rw
4 1 8:4 / /srv rw - btrfs d rw
5 4 8:5 / /srv/x rw - tmpfs d rw
";
        let table = parse(text);
        let ids: Vec<u64> = table.mounts.iter().map(|m| m.id.0).collect();
        assert_eq!(ids, [1, 4, 5]);
        assert_eq!(on(&table, b"/srv/a/f"), "btrfs");
        assert_eq!(on(&table, b"/srv/a/b/c/f"), "btrfs");
        assert_eq!(on(&table, b"/srv/x/f"), "tmpfs");

        // Without the cover the stack and what is mounted in it count.
        let lines = text.split(|&b| b == b'\n');
        let uncovered: Vec<&[u8]> = lines.filter(|l| !l.starts_with(b"4")).collect();
        let table = parse(&uncovered.join(&b'\n'));
        assert_eq!(on(&table, b"/srv/a/f"), "xfs");
        assert_eq!(on(&table, b"/srv/a/b/c/f"), "vfat");
        // Another root on top of the first: everything else moves out of sight.
        let mut over = text.to_vec();
        over.extend_from_slice(b"9 1 8:9 / / rw - overlay o rw\n");
        assert_eq!(on(&parse(&over), b"/srv/a/f"), "overlay");
    }

    #[test]
    fn of_equal_points_the_last_wins() {
        let text =
            b"1 0 8:1 / / rw - ext4 d rw\n2 1 8:2 / /m rw - xfs d rw\n3 1 8:3 / /m rw - nfs d rw\n";
        assert_eq!(on(&parse(text), b"/m/f"), "nfs");
    }

    #[test]
    fn malformed_lines_are_counted_and_the_rest_is_read() {
        let text = b"x 1 8:1 / / rw - ext4 d rw\n1 0 8:1 / / rw\n1 0 8:1 / / rw no dash\n\
1 0 8:1 / / rw -\n1 0 8:1 / relative rw - ext4 d rw\n\xff\n7 0 8:1 / /\xff rw a:1 b c - ext4 d rw";
        let table = parse(text);
        assert_eq!(table.malformed, 6);
        let ids: Vec<u64> = table.mounts.iter().map(|m| m.id.0).collect();
        assert_eq!(ids, [7]);
        assert_eq!(table.mounts[0].point, b"/\xff");
        // A text that is no tree must not keep the reader.
        assert_eq!(
            parse(b"1 2 0:1 / / rw - a d rw\n2 1 0:1 / /x rw - a d rw\n").malformed,
            0
        );
        assert_eq!(unescape(br"\04\0400\9\777\"), b"\\04 0\\9\\777\\");
    }

    #[test]
    fn writers_that_inotify_cannot_see() {
        assert!(LOCAL.is_sorted());
        for fstype in [
            "ext4", "xfs", "btrfs", "tmpfs", "zfs", "overlay", "vfat", "ntfs3", "udf",
        ] {
            assert!(
                !sees_remote_writers(fstype) && lease_can_be_trusted(fstype),
                "{fstype}"
            );
        }
        for fstype in [
            "nfs",
            "nfs4",
            "cifs",
            "smb3",
            "fuse",
            "fuse.sshfs",
            "fuseblk",
            "9p",
            "ceph",
            "lustre",
            "gpfs",
            "ocfs2",
            "gfs2",
            "afs",
            "autofs",
            "virtiofs",
            "vboxsf",
            "",
            "EXT4",
            "ext",
        ] {
            assert!(
                sees_remote_writers(fstype) && !lease_can_be_trusted(fstype),
                "{fstype}"
            );
        }
    }

    #[test]
    fn the_real_table_knows_the_mount_of_a_real_file() {
        let table = read().unwrap();
        assert_eq!(table.malformed, 0);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let found = find(&table.mounts, path.as_os_str().as_bytes()).unwrap();
        // fdinfo names the mount id of an open file (proc_pid_fdinfo(5)).
        let file = File::open(&path).unwrap();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()));
        let info = info.unwrap();
        let line = info.lines().find_map(|l| l.strip_prefix("mnt_id:"));
        assert_eq!(found.id.0, line.unwrap().trim().parse::<u64>().unwrap());
    }

    /// Whether a change is signalled, waiting for it.
    fn waits_for_change(poll: &mut mio::Poll) -> bool {
        let mut ready = mio::Events::with_capacity(4);
        poll.poll(&mut ready, Some(Duration::from_secs(20)))
            .unwrap();
        ready
            .iter()
            .any(|e| e.token() == Token(2) && e.is_priority())
    }

    #[test]
    fn a_real_mount_is_signalled_and_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        // unshare(2) of the mount namespace concerns the calling thread alone.
        let body = move || {
            match unshare(CloneFlags::CLONE_NEWNS) {
                Err(Errno::EPERM) => {
                    eprintln!("skipped: no permission to make a mount namespace");
                    return;
                }
                other => other.unwrap(),
            }
            let none: Option<&str> = None;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, "/", none, private, none).unwrap();
            // "self" would be the table of the process's first thread.
            let mut source = Source::open_at(Path::new("/proc/thread-self/mountinfo")).unwrap();
            let mut poll = mio::Poll::new().unwrap();
            poll.registry()
                .register(&mut source, Token(2), Interest::READABLE)
                .unwrap();
            let mut ready = mio::Events::with_capacity(4);
            poll.poll(&mut ready, Some(Duration::ZERO)).unwrap();
            assert!(ready.is_empty(), "ready without a change: {ready:?}");

            let bytes = path.as_os_str().as_bytes();
            let before = find(&source.read().unwrap().mounts, bytes).unwrap().clone();
            for round in 0..3 {
                let flags = MsFlags::empty();
                mount(Some("t"), &path, Some("tmpfs"), flags, none).unwrap();
                assert!(waits_for_change(&mut poll), "mount, round {round}");
                let now = find(&source.read().unwrap().mounts, bytes).unwrap().clone();
                assert_eq!(
                    (now.point.as_slice(), now.fstype.as_str()),
                    (bytes, "tmpfs")
                );
                assert_ne!(now.id, before.id);

                umount2(&path, MntFlags::empty()).unwrap();
                assert!(waits_for_change(&mut poll), "umount, round {round}");
                let now = find(&source.read().unwrap().mounts, bytes).unwrap().clone();
                assert_eq!(now, before);
            }
        };
        std::thread::spawn(body).join().unwrap();
    }

    #[test]
    fn a_real_cover_hides_what_was_mounted_below_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let body = move || {
            match unshare(CloneFlags::CLONE_NEWNS) {
                Err(Errno::EPERM) => {
                    eprintln!("skipped: no permission to make a mount namespace");
                    return;
                }
                other => other.unwrap(),
            }
            let none: Option<&str> = None;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, "/", none, private, none).unwrap();
            let inner = path.join("in side");
            let tmpfs = |at: &Path| {
                mount(Some("t"), at, Some("tmpfs"), MsFlags::empty(), none).unwrap();
            };
            let id = |at: &Path| {
                let text = std::fs::read("/proc/thread-self/mountinfo").unwrap();
                find(&parse(&text).mounts, at.as_os_str().as_bytes())
                    .unwrap()
                    .id
            };
            std::fs::create_dir(&inner).unwrap();
            tmpfs(&inner);
            let covered = id(&inner);
            tmpfs(&inner);
            let top = id(&inner);
            assert_ne!(covered, top);
            tmpfs(&path);
            assert_ne!(id(&inner), top);
            assert_eq!(id(&inner), id(&path));
            umount2(&path, MntFlags::empty()).unwrap();
            assert_eq!(id(&inner), top);
            umount2(&inner, MntFlags::empty()).unwrap();
            assert_eq!(id(&inner), covered);
        };
        std::thread::spawn(body).join().unwrap();
    }

    #[test]
    fn locks_that_other_machines_do_not_see() {
        let why = |behind: &str| local_locks(&format!("36 22 0:44 / /srv rw,relatime - {behind}"));
        for (behind, option) in [
            ("nfs srv:/p rw,vers=3,nolock,local_lock=all", "nolock"),
            ("nfs4 srv:/p rw,local_lock=posix", "local_lock=posix"),
            ("cifs //s/x rw,nobrl,serverino", "nobrl"),
            ("fuse.sshfs host:/x rw,user_id=0", "fuse.sshfs"),
        ] {
            assert!(
                why(behind).is_some_and(|why| why.contains(option)),
                "{behind}"
            );
        }
        for behind in [
            "nfs4 srv:/p rw,vers=4.2,local_lock=none",
            "nfs srv:/p rw,local_lock=flock",
            "cifs //s/x rw,serverino",
            "ext4 /dev/nolock rw,relatime",
        ] {
            assert_eq!(why(behind), None, "{behind}");
        }
        assert_eq!(local_locks("36 22 0:44"), None);
        assert_eq!(local_locks_at(b"/"), None);
    }
}
