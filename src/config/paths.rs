//! Paths as text: nothing here looks at a disk.

/// An absolute path without doubled or trailing slashes and without `.`; a `..` is refused, because
/// where it leads depends on symbolic links. The error is a sentence with the remedy.
pub(crate) fn normal(path: &[u8]) -> Result<Vec<u8>, String> {
    let shown = String::from_utf8_lossy(path);
    if path.is_empty() {
        return Err("is empty; write an absolute path".into());
    }
    if path.first() != Some(&b'/') {
        return Err(format!("{shown:?} is not absolute; begin it with '/'"));
    }
    if path.contains(&0) {
        return Err("no path has a NUL byte".into());
    }
    let mut out = Vec::with_capacity(path.len());
    for component in path.split(|&b| b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                return Err(format!(
                    "{shown:?} has '..' in it; write the path it stands for"
                ));
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(component);
            }
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    Ok(out)
}

/// `path` made absolute against `base` and normal, `..` taken back by name.
pub(crate) fn absolute(base: &[u8], path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let from: &[&[u8]] = if path.first() == Some(&b'/') {
        &[path]
    } else {
        &[base, path]
    };
    for component in from.iter().flat_map(|p| p.split(|&b| b == b'/')) {
        match component {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            _ => parts.push(component),
        }
    }
    let mut out = vec![b'/'];
    out.extend_from_slice(&parts.join(&b'/'));
    out
}

/// The path of `path` below `root`: empty if they are the same, `None` if it is elsewhere. Both normal.
pub(crate) fn below<'p>(path: &'p [u8], root: &[u8]) -> Option<&'p [u8]> {
    if root == b"/" {
        return path.strip_prefix(b"/");
    }
    let rest = path.strip_prefix(root)?;
    if rest.is_empty() {
        return Some(rest);
    }
    rest.strip_prefix(b"/")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn normal_paths() {
        assert_eq!(normal(b"//srv/./in//").unwrap(), b"/srv/in");
        assert_eq!(normal(b"/").unwrap(), b"/");
        assert_eq!(normal(b"/\xff").unwrap(), b"/\xff");
        for wrong in ["", "srv", "./x", "/a/../b", "/a\0"] {
            assert!(normal(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn absolute_paths() {
        assert_eq!(absolute(b"/home/u", b"in/"), b"/home/u/in");
        assert_eq!(absolute(b"/home/u", b"../x/./y"), b"/home/x/y");
        assert_eq!(absolute(b"/home/u", b"/etc/../srv"), b"/srv");
        assert_eq!(absolute(b"/", b"../.."), b"/");
    }

    #[test]
    fn below_a_root() {
        assert_eq!(below(b"/srv/in/a", b"/srv/in"), Some(b"a".as_slice()));
        assert_eq!(below(b"/srv/in", b"/srv/in"), Some(b"".as_slice()));
        assert_eq!(below(b"/srv/inn", b"/srv/in"), None);
        assert_eq!(below(b"/srv", b"/srv/in"), None);
        assert_eq!(below(b"/a", b"/"), Some(b"a".as_slice()));
    }
}
