//! Which names are selected. Names are bytes: invalid UTF-8 is matched like everything else, `?` is one
//! byte, and only ASCII letters have a case.

use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};
use std::time::Duration;

/// Names used while writing, which are left alone by default: a beginning and an end each.
const BUILT_IN: [(&str, &str, &str); 8] = [
    (".*", ".", ""),
    ("*.part", "", ".part"),
    ("*.partial", "", ".partial"),
    ("*.tmp", "", ".tmp"),
    ("*.filepart", "", ".filepart"),
    ("*.crdownload", "", ".crdownload"),
    ("*~", "", "~"),
    (".nfs*", ".nfs", ""),
];

/// More alternatives than this in one pattern are refused.
const MOST_FORMS: usize = 256;

/// A longer pattern cannot be meant: no name is.
const LONGEST: usize = 4096;

/// One pattern of `include` or `exclude`.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    /// It has a slash: it is matched on the path below the root, not on the name.
    on_path: bool,
    /// What its braces expand to.
    forms: Box<[Form]>,
    ignore_case: bool,
}

/// One alternative of a pattern. A regular expression costs about 15 KiB (and the first of a process
/// several hundred), so those that need none have none.
#[derive(Clone, Debug)]
enum Form {
    /// The pieces between `*`: the first begins the name, the last ends it, the others lie between in
    /// order. A single piece is the whole name.
    Pieces(Box<[Box<[u8]>]>),
    /// Everything else.
    Glob(GlobSet),
}

impl Pattern {
    /// Parses a glob: `*`, `?`, `[a-z]`, `[!a-z]`, `{a,b}`, `\` before a literal character, and with a
    /// slash `**` for any number of directories. The error is a sentence without the pattern.
    pub fn parse(text: &str, ignore_case: bool) -> Result<Pattern, String> {
        if text.is_empty() {
            return Err("an empty pattern matches no name".into());
        }
        if text.len() > LONGEST {
            return Err(format!("longer than {LONGEST} bytes"));
        }
        if text.contains('\0') {
            return Err("no name has a NUL byte".into());
        }
        if text.ends_with('/') {
            return Err(
                "a trailing slash matches no file; write 'DIR/**' for all below DIR".into(),
            );
        }
        let on_path = text.contains('/');
        // Paths below the root have no leading slash; a pattern with one says the same.
        let anchored = text.strip_prefix('/').unwrap_or(text);
        glob(anchored, ignore_case)?;
        let mut plain = Vec::new();
        expand(anchored, &mut plain)?;
        let mut forms = Vec::with_capacity(plain.len());
        for form in &plain {
            forms.push(match pieces(form, on_path) {
                Some(pieces) => Form::Pieces(pieces),
                None => {
                    let set = GlobSetBuilder::new().add(glob(form, ignore_case)?).build();
                    Form::Glob(set.map_err(|error| error.kind().to_string())?)
                }
            });
        }
        Ok(Pattern {
            text: text.into(),
            on_path,
            forms: forms.into(),
            ignore_case,
        })
    }

    /// The pattern as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it matches the file or directory at `rel` below the root.
    pub fn matches(&self, rel: &[u8]) -> bool {
        let subject = if self.on_path { rel } else { name_of(rel) };
        self.forms.iter().any(|form| match form {
            Form::Pieces(pieces) => match_pieces(pieces, subject, self.ignore_case),
            Form::Glob(set) => set.is_match_candidate(&Candidate::from_bytes(subject)),
        })
    }
}

/// Parses with the one set of rules for both kinds of pattern: `*` and `?` match no slash.
fn glob(text: &str, ignore_case: bool) -> Result<globset::Glob, String> {
    for class in classes(text) {
        if !class.is_ascii() {
            return Err(format!(
                "a class matches one byte, and {class:?} has characters of several; write {{a,b}}"
            ));
        }
    }
    GlobBuilder::new(text)
        .case_insensitive(ignore_case)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|error| error.kind().to_string())
}

/// The length of the class that `text` begins with, brackets included, or of its first character
/// with the backslash before it.
fn unit(text: &str) -> usize {
    let mut chars = text.char_indices();
    let after = |at: Option<(usize, char)>| at.map_or(text.len(), |(at, c)| at + c.len_utf8());
    match chars.next() {
        Some((_, '\\')) => after(chars.next()),
        Some((_, '[')) => {
            let rest = text.get(1..).unwrap_or_default();
            let negated = rest.strip_prefix(['!', '^']).unwrap_or(rest);
            // A bracket that comes first is a member.
            let body = negated.strip_prefix(']').unwrap_or(negated);
            match body.find(']') {
                Some(end) => text.len() - body.len() + end + 1,
                None => text.len(),
            }
        }
        first => after(first),
    }
}

/// The classes of a pattern, with their brackets.
fn classes(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (one, after) = rest.split_at_checked(unit(rest))?;
            rest = after;
            if one.starts_with('[') {
                return Some(one);
            }
        }
        None
    })
}

/// Expands `{a,b}`, nested ones too, into patterns without braces.
fn expand(text: &str, out: &mut Vec<String>) -> Result<(), String> {
    let mut depth = 0_usize;
    let mut marks = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let first = rest.as_bytes().first();
        match first {
            Some(b'{') => {
                if depth == 0 {
                    marks.push(at);
                }
                depth += 1;
            }
            Some(b',') if depth == 1 => marks.push(at),
            Some(b'}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    marks.push(at);
                    break;
                }
            }
            _ => {}
        }
        at += unit(rest);
    }
    let (Some(&open), Some(&close)) = (marks.first(), marks.last()) else {
        if out.len() == MOST_FORMS {
            return Err(format!("more than {MOST_FORMS} alternatives"));
        }
        out.push(text.to_owned());
        return Ok(());
    };
    let before = text.get(..open).unwrap_or_default();
    let after = text.get(close + 1..).unwrap_or_default();
    for pair in marks.windows(2) {
        if let [from, to] = pair {
            let choice = text.get(from + 1..*to).unwrap_or_default();
            expand(&format!("{before}{choice}{after}"), out)?;
        }
    }
    Ok(())
}

/// The pieces of a pattern that needs no regular expression: only literal text and, on a name, `*`.
fn pieces(form: &str, on_path: bool) -> Option<Box<[Box<[u8]>]>> {
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    let mut rest = form;
    while !rest.is_empty() {
        let (one, after) = rest.split_at_checked(unit(rest))?;
        rest = after;
        match one.as_bytes() {
            [b'*'] if on_path => return None,
            [b'*'] => pieces.push(std::mem::take(&mut piece).into()),
            [b'?' | b'[', ..] => return None,
            [b'\\', literal @ ..] => piece.extend_from_slice(literal),
            literal => piece.extend_from_slice(literal),
        }
    }
    pieces.push(piece.into());
    Some(pieces.into())
}

/// Whether `name` is made of the pieces in their order with anything in between.
fn match_pieces(pieces: &[Box<[u8]>], name: &[u8], ignore_case: bool) -> bool {
    let same = |a: &[u8], b: &[u8]| {
        if ignore_case {
            a.eq_ignore_ascii_case(b)
        } else {
            a == b
        }
    };
    match pieces {
        [] => false,
        [whole] => same(whole, name),
        [first, between @ .., last] => {
            let Some((start, rest)) = name.split_at_checked(first.len()) else {
                return false;
            };
            let Some(cut) = rest.len().checked_sub(last.len()) else {
                return false;
            };
            let (mut middle, end) = rest.split_at(cut);
            if !same(first, start) || !same(last, end) {
                return false;
            }
            // The leftmost place of each leaves the most room for the next.
            for piece in between.iter().filter(|piece| !piece.is_empty()) {
                let found = middle.windows(piece.len()).position(|w| same(piece, w));
                let Some(rest) = found.and_then(|at| middle.get(at + piece.len()..)) else {
                    return false;
                };
                middle = rest;
            }
            true
        }
    }
}

/// The last component of a path.
fn name_of(rel: &[u8]) -> &[u8] {
    rel.rsplit(|&b| b == b'/').next().unwrap_or(rel)
}

/// The selection of one watch.
#[derive(Clone, Debug, Default)]
pub struct Select {
    include: Box<[Pattern]>,
    exclude: Box<[Pattern]>,
    built_in: bool,
    /// Smallest size in bytes.
    pub min_size: Option<u64>,
    /// Largest size in bytes.
    pub max_size: Option<u64>,
    /// Not before the file's mtime is this old.
    pub min_age: Option<Duration>,
    /// Not if the file's mtime is older than this.
    pub ignore_older: Option<Duration>,
}

/// What the selection says of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Selected.
    Yes,
    /// A built-in pattern for names used while writing matched.
    BuiltIn(&'static str),
    /// This pattern of `exclude` matched.
    Excluded(String),
    /// No pattern of `include` matched.
    NotIncluded,
}

/// A pattern that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPattern {
    /// In `include`; else in `exclude`.
    pub in_include: bool,
    /// Its place there, from 0.
    pub index: usize,
    /// What is wrong, a sentence.
    pub what: String,
}

impl Select {
    /// A selection by name: the patterns of `include` (none: every name) without those of `exclude`
    /// and, where `built_in`, without the names used while writing. Sizes and ages are not limited.
    /// The error lists every pattern that cannot be parsed.
    pub fn new(
        include: &[impl AsRef<str>],
        exclude: &[impl AsRef<str>],
        ignore_case: bool,
        built_in: bool,
    ) -> Result<Select, Vec<BadPattern>> {
        let mut bad = Vec::new();
        let include = parse_all(include, true, ignore_case, &mut bad);
        let exclude = parse_all(exclude, false, ignore_case, &mut bad);
        if !bad.is_empty() {
            return Err(bad);
        }
        Ok(Select {
            include,
            exclude,
            built_in,
            min_size: None,
            max_size: None,
            min_age: None,
            ignore_older: None,
        })
    }

    /// The patterns of `include`.
    pub fn include(&self) -> &[Pattern] {
        &self.include
    }

    /// The patterns of `exclude`.
    pub fn exclude(&self) -> &[Pattern] {
        &self.exclude
    }

    /// What `enter` does for a path is about in proportion to this: so many times its bytes are looked at.
    pub fn weight(&self) -> usize {
        1 + self.exclude.iter().map(|p| p.forms.len()).sum::<usize>()
    }

    /// Whether the names used while writing are left alone.
    pub fn built_in(&self) -> bool {
        self.built_in
    }

    /// The keys by which another selection differs, but for the sizes and ages, which anybody can compare. `ignore_case`
    /// is one only where there are patterns.
    pub(super) fn differing(&self, other: &Select) -> Vec<&'static str> {
        let Select {
            include,
            exclude,
            built_in,
            min_size: _,
            max_size: _,
            min_age: _,
            ignore_older: _,
        } = self;
        let texts = |list: &[Pattern]| -> Vec<Box<str>> {
            list.iter().map(|pattern| pattern.text.clone()).collect()
        };
        // All patterns of a watch have the same.
        let case = |select: &Select| {
            let first = select.include.iter().chain(&select.exclude).next();
            first.map(|pattern| pattern.ignore_case)
        };
        let differs = [
            (texts(include) != texts(&other.include), "include"),
            (texts(exclude) != texts(&other.exclude), "exclude"),
            (
                case(self).zip(case(other)).is_some_and(|(a, b)| a != b),
                "ignore_case",
            ),
            (*built_in != other.built_in, "builtin_excludes"),
        ];
        let keys = differs.iter().filter(|(differs, _)| *differs);
        keys.map(|(_, key)| *key).collect()
    }

    /// Whether nothing but a file's name counts.
    pub fn is_of_names(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// The verdict on a file at `rel` below the root. Directories on the way are judged by `enter`.
    pub fn file(&self, rel: &[u8]) -> Verdict {
        match self.enter(rel) {
            Verdict::Yes if self.include.is_empty() => Verdict::Yes,
            Verdict::Yes if self.include.iter().any(|p| p.matches(rel)) => Verdict::Yes,
            Verdict::Yes => Verdict::NotIncluded,
            no => no,
        }
    }

    /// Whether the directory at `rel` below the root is entered: not if a built-in or `exclude` pattern matches it.
    pub fn enter(&self, rel: &[u8]) -> Verdict {
        if self.built_in {
            let name = name_of(rel);
            for (pattern, begin, end) in BUILT_IN {
                let (begin, end) = (begin.as_bytes(), end.as_bytes());
                // One byte tells nearly all of them apart.
                let may = (begin.is_empty() || begin.first() == name.first())
                    && (end.is_empty() || end.last() == name.last());
                if may && name.starts_with(begin) && name.ends_with(end) {
                    return Verdict::BuiltIn(pattern);
                }
            }
        }
        match self.exclude.iter().find(|p| p.matches(rel)) {
            Some(pattern) => Verdict::Excluded(pattern.text.to_string()),
            None => Verdict::Yes,
        }
    }
}

/// Parses one list.
fn parse_all(
    texts: &[impl AsRef<str>],
    in_include: bool,
    ignore_case: bool,
    bad: &mut Vec<BadPattern>,
) -> Box<[Pattern]> {
    let mut patterns = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match Pattern::parse(text.as_ref(), ignore_case) {
            Ok(pattern) => patterns.push(pattern),
            Err(what) => bad.push(BadPattern {
                in_include,
                index,
                what,
            }),
        }
    }
    patterns.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn select(include: &[&str], exclude: &[&str]) -> Select {
        Select::new(include, exclude, false, true).unwrap()
    }

    fn regexes(pattern: &str) -> usize {
        let parsed = Pattern::parse(pattern, false).unwrap();
        let is_glob = |form: &&Form| matches!(form, Form::Glob(_));
        parsed.forms.iter().filter(is_glob).count()
    }

    #[test]
    fn globs_match_as_written() {
        for (pattern, yes, no) in [
            ("*", vec!["a", "x/y"], vec![]),
            (
                "*.csv",
                vec!["a.csv", "d/b.csv", ".csv"],
                vec!["a.csvx", "csv"],
            ),
            ("a*b", vec!["ab", "a.b", "axxb"], vec!["a", "b", "aab c"]),
            ("aa*aa", vec!["aaaa", "aa-aa"], vec!["aaa"]),
            ("*a*bc*", vec!["abc", "xa-bc"], vec!["bca", "ab"]),
            ("a**b", vec!["ab", "axb"], vec!["a"]),
            ("exact", vec!["exact", "d/exact"], vec!["exactly"]),
            ("?.[ch]", vec!["a.c", "d/b.h"], vec!["ab.c", "a.x"]),
            ("[!a]x", vec!["bx"], vec!["ax", "x"]),
            ("[]x]", vec!["]", "x"], vec!["[", "[]x]"]),
            (
                "*.{jpg,pn{g,m}}",
                vec!["a.jpg", "a.png", "a.pnm"],
                vec!["a.pn", "a.{jpg}"],
            ),
            ("a{,b}", vec!["a", "ab"], vec!["b"]),
            ("[{,}]", vec!["{", ",", "}"], vec!["x", ""]),
            ("a\\*b", vec!["a*b"], vec!["axb"]),
            ("a\\{b", vec!["a{b"], vec!["ab"]),
            (
                "d/*.csv",
                vec!["d/a.csv"],
                vec!["d/e/a.csv", "a.csv", "x/d/a.csv"],
            ),
            ("/a.csv", vec!["a.csv"], vec!["d/a.csv"]),
            (
                "**/x/*",
                vec!["x/f", "a/x/f", "a/b/x/f"],
                vec!["x", "x/y/f", "ax/f"],
            ),
            ("d/**", vec!["d/a", "d/e/f"], vec!["d", "e/d/a"]),
            ("d/e.csv", vec!["d/e.csv"], vec!["e.csv"]),
        ] {
            let parsed = Pattern::parse(pattern, false).unwrap();
            for path in yes {
                assert!(parsed.matches(path.as_bytes()), "{pattern} {path}");
            }
            for path in no {
                assert!(!parsed.matches(path.as_bytes()), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn simple_patterns_cost_no_regex() {
        for simple in [
            "*",
            "*.csv",
            "draft-*",
            "exact",
            "*.{jpg,jpeg,png}",
            "a*b*c",
            "d/e",
            "a\\?",
        ] {
            assert_eq!(regexes(simple), 0, "{simple}");
        }
        assert_eq!(regexes("a?"), 1);
        assert_eq!(regexes("d/*"), 1);
    }

    #[test]
    fn simple_forms_agree_with_globset() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % 1_000_003).unwrap() % below
        };
        let mut compared = 0;
        for _ in 0..2_000 {
            let text: String = (0..1 + random(6))
                .map(|_| ["a", "b", "*", "B", "."][random(5)])
                .collect();
            let ignore_case = random(2) == 0;
            let mine = Pattern::parse(&text, ignore_case).unwrap();
            assert!(mine.forms.iter().all(|f| matches!(f, Form::Pieces(_))));
            let theirs = glob(&text, ignore_case).unwrap().compile_matcher();
            for _ in 0..20 {
                let name: String = (0..random(7))
                    .map(|_| ["a", "b", "A", "."][random(4)])
                    .collect();
                assert_eq!(
                    mine.matches(name.as_bytes()),
                    theirs.is_match(&name),
                    "{text} {name} {ignore_case}"
                );
                compared += usize::from(mine.matches(name.as_bytes()));
            }
        }
        assert!(
            compared > 1_000,
            "too few matches to mean anything: {compared}"
        );
    }

    #[test]
    fn names_are_bytes() {
        let all = select(&["*.csv"], &[]);
        assert_eq!(all.file(b"d\xff/\xfe\n'.csv"), Verdict::Yes);
        let glob = select(&["\u{e9}?.csv", "**/x/*.csv"], &[]);
        assert_eq!(glob.file(b"\xc3\xa9\xff.csv"), Verdict::Yes);
        assert_eq!(glob.file(b"\xff/x/\xfe.csv"), Verdict::Yes);
        assert_eq!(glob.file(b"\xff.csv"), Verdict::NotIncluded);
    }

    #[test]
    fn case_is_ascii_and_only_where_asked() {
        for pattern in ["*.JPG", "?.JPG", "{A,B}.jpg"] {
            let any = Select::new(&[pattern], &[] as &[&str], true, true).unwrap();
            assert_eq!(any.file(b"a.jPg"), Verdict::Yes, "{pattern}");
        }
        assert_eq!(select(&["*.JPG"], &[]).file(b"a.jpg"), Verdict::NotIncluded);
    }

    #[test]
    fn names_used_while_writing() {
        let s = select(&[], &[]);
        for (name, pattern) in [
            (".hidden", ".*"),
            ("a.part", "*.part"),
            ("a.partial", "*.partial"),
            ("a.tmp", "*.tmp"),
            ("a.filepart", "*.filepart"),
            ("a.crdownload", "*.crdownload"),
            ("a~", "*~"),
            (".nfs0000", ".*"),
        ] {
            assert_eq!(s.file(name.as_bytes()), Verdict::BuiltIn(pattern), "{name}");
            let below = format!("d/{name}");
            assert_eq!(s.enter(below.as_bytes()), Verdict::BuiltIn(pattern));
        }
        for name in ["a.parts", "part", "tmp", "a.tmp.csv", "d.x"] {
            assert_eq!(s.file(name.as_bytes()), Verdict::Yes, "{name}");
        }
        let off = Select::new(&["*.tmp"], &[] as &[&str], false, false).unwrap();
        assert_eq!(off.file(b"a.tmp"), Verdict::Yes);
        assert_eq!(off.enter(b".git"), Verdict::Yes);
    }

    #[test]
    fn excludes_name_themselves_and_close_directories() {
        let s = select(&["*.csv"], &["draft-*", "old/*.csv", "**/cache"]);
        let excluded = |p: &str| Verdict::Excluded(p.into());
        assert_eq!(s.file(b"draft-1.csv"), excluded("draft-*"));
        assert_eq!(s.enter(b"x/draft-dir"), excluded("draft-*"));
        assert_eq!(s.file(b"old/a.csv"), excluded("old/*.csv"));
        assert_eq!(s.enter(b"old"), Verdict::Yes);
        assert_eq!(s.enter(b"a/cache"), excluded("**/cache"));
        assert_eq!(s.enter(b"a/b"), Verdict::Yes);
        assert_eq!(s.file(b"a.txt"), Verdict::NotIncluded);
    }

    #[test]
    fn bad_patterns_are_all_named() {
        let bad = Select::new(&["[a", "*.csv", ""], &["x/"], false, true).unwrap_err();
        let at: Vec<_> = bad.iter().map(|b| (b.in_include, b.index)).collect();
        assert_eq!(at, [(true, 0), (true, 2), (false, 0)]);
        for wrong in [
            "{a",
            "a}",
            "a\\",
            "[z-a]",
            "[\u{e9}]",
            "a\0",
            "{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}",
        ] {
            let error = Pattern::parse(wrong, false).unwrap_err();
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
