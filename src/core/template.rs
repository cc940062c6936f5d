//! Argument templates: text with `{field}` and `{field|filter}` in it, `{{` and `}}` for braces.

use super::time::Wall;

/// What can stand between braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Absolute path of the file.
    Path,
    /// Its last component.
    Name,
    /// The name without its last extension; a leading dot begins no extension.
    Stem,
    /// The last extension without its dot, or empty.
    Ext,
    /// Absolute path of the file's directory.
    Dir,
    /// First directory below the watch's root, or empty.
    Dir1,
    /// Second directory below the watch's root, or empty.
    Dir2,
    /// Path below the watch's root.
    Rel,
    /// The expanded `key`.
    Key,
    /// Size in bytes.
    Size,
    /// Modification time, seconds since 1970.
    Mtime,
    /// Local date.
    Date,
    /// The job as users see it.
    Job,
    /// Number of the attempt.
    Attempt,
    /// Name of the watch.
    Watch,
}

/// Every field under its name.
pub const FIELDS: [(&str, Field); 15] = [
    ("path", Field::Path),
    ("name", Field::Name),
    ("stem", Field::Stem),
    ("ext", Field::Ext),
    ("dir", Field::Dir),
    ("dir1", Field::Dir1),
    ("dir2", Field::Dir2),
    ("rel", Field::Rel),
    ("key", Field::Key),
    ("size", Field::Size),
    ("mtime", Field::Mtime),
    ("date", Field::Date),
    ("job", Field::Job),
    ("attempt", Field::Attempt),
    ("watch", Field::Watch),
];

/// Every filter under its name.
const FILTERS: [(&str, Filter); 2] = [("slug", Filter::Slug), ("lower", Filter::Lower)];

/// What a value goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    /// See [`slug`].
    Slug,
    /// ASCII letters to lower case; every other byte untouched.
    Lower,
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Field(Field, Box<[Filter]>),
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    parts: Box<[Part]>,
}

/// What the fields stand for.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// Absolute path of the file.
    pub path: &'a [u8],
    /// Path below the watch's root.
    pub rel: &'a [u8],
    /// Name of the watch.
    pub watch: &'a str,
    /// The expanded key, or empty.
    pub key: &'a [u8],
    /// Size in bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: Wall,
    /// Local date, `YYYY-MM-DD`.
    pub date: &'a str,
    /// The job as users see it.
    pub job: &'a str,
    /// Number of the attempt, from 1.
    pub attempt: u32,
}

impl Template {
    /// Parses `text`; the error is a sentence that names the offending field or filter.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else if let Some(after) = from.strip_prefix('{') {
                let Some((inside, after)) = after.split_once('}') else {
                    return Err(format!(
                        "no '}}' follows {from:?}; a literal brace is written '{{{{'"
                    ));
                };
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal).into()));
                }
                parts.push(field(inside)?);
                rest = after;
            } else {
                return Err(format!(
                    "a '}}' closes nothing in {text:?}; a literal brace is written '}}}}'"
                ));
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Ok(Template {
            text: text.into(),
            parts: parts.into(),
        })
    }

    /// Expands; names are bytes and pass through untouched.
    pub fn expand(&self, values: &Values) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.text.len());
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Field(field, filters) if filters.is_empty() => push(&mut out, *field, values),
                Part::Field(field, filters) => {
                    let mut value = Vec::new();
                    push(&mut value, *field, values);
                    for filter in filters {
                        value = match filter {
                            Filter::Slug => slug(&value),
                            Filter::Lower => value.to_ascii_lowercase(),
                        };
                    }
                    out.extend_from_slice(&value);
                }
            }
        }
        out
    }

    /// Expands to a directory path: empty components and `.` vanish, and a `..` that a file's name
    /// has brought in (`{stem}` of `...x` is `..`) becomes `_`, so that no name can lead out of the
    /// directory that the template's own text names.
    pub fn expand_dir(&self, values: &Values) -> Vec<u8> {
        let expanded = self.expand(values);
        let mut out = Vec::with_capacity(expanded.len());
        for component in expanded.split(|&b| b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => out.extend_from_slice(b"/_"),
                _ => {
                    out.push(b'/');
                    out.extend_from_slice(component);
                }
            }
        }
        if out.is_empty() {
            out.push(b'/');
        }
        out
    }

    /// The template as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `field` occurs in it.
    pub fn uses(&self, field: Field) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Field(f, _) if *f == field))
    }

    /// Whether it says something of a file: not the same for every file of a batch. A batch has one key, where its
    /// command may use it.
    pub fn is_of_file(&self) -> bool {
        self.parts.iter().any(|part| {
            matches!(part, Part::Field(f, _) if !matches!(f, Field::Watch | Field::Date | Field::Key))
        })
    }

    /// How many fields it has, and how many bytes of text beside them.
    pub fn extent(&self) -> (usize, usize) {
        let text: usize = self.literals().map(str::len).sum();
        let texts = self.literals().count();
        (self.parts.len() - texts, text)
    }

    /// Whether it has no field at all: it expands to the same bytes for every file.
    pub fn is_fixed(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// The text before the first field, braces already single.
    pub fn fixed_prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// Its literal texts, in order.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(&**text),
            Part::Field(..) => None,
        })
    }

    /// Whether its first part is `field`, unfiltered.
    pub fn starts_with(&self, field: Field) -> bool {
        matches!(self.parts.first(), Some(Part::Field(f, filters)) if *f == field && filters.is_empty())
    }
}

/// Parses what stands between the braces.
fn field(inside: &str) -> Result<Part, String> {
    let mut words = inside.split('|');
    let name = words.next().unwrap_or_default();
    let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) else {
        if name == "sha256" {
            return Err("field {sha256} is not built in this version".into());
        }
        return Err(format!(
            "unknown field {{{}}} (nearest known field {{{}}}); a literal brace is written '{{{{'",
            name.escape_debug(),
            nearest(name, FIELDS.iter().map(|(known, _)| *known)),
        ));
    };
    let mut filters = Vec::new();
    for word in words {
        let Some((_, filter)) = FILTERS.iter().find(|(known, _)| *known == word) else {
            return Err(format!(
                "unknown filter |{} in {{{}}} (nearest known filter |{})",
                word.escape_debug(),
                inside.escape_debug(),
                nearest(word, FILTERS.iter().map(|(known, _)| *known)),
            ));
        };
        filters.push(*filter);
    }
    Ok(Part::Field(*field, filters.into()))
}

/// The word of `known` that is nearest to `word`: fewest edits, then the most common beginning.
/// Empty only if `known` is.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    // Distances are quadratic in time: what is far longer than any word is no misspelling of it.
    let word: String = word.chars().take(64).collect();
    known
        .min_by(|a, b| {
            let edits = |k: &str| strsim::damerau_levenshtein(&word, k);
            edits(a).cmp(&edits(b)).then_with(|| {
                strsim::jaro_winkler(&word, b).total_cmp(&strsim::jaro_winkler(&word, a))
            })
        })
        .unwrap_or_default()
}

/// Appends one field's value.
fn push(out: &mut Vec<u8>, field: Field, values: &Values) {
    match field {
        Field::Path => out.extend_from_slice(values.path),
        Field::Name => out.extend_from_slice(split_name(values.path).1),
        Field::Stem => out.extend_from_slice(split_ext(split_name(values.path).1).0),
        Field::Ext => out.extend_from_slice(split_ext(split_name(values.path).1).1),
        Field::Dir => out.extend_from_slice(split_name(values.path).0),
        Field::Dir1 => out.extend_from_slice(dir_below(values.rel, 0)),
        Field::Dir2 => out.extend_from_slice(dir_below(values.rel, 1)),
        Field::Rel => out.extend_from_slice(values.rel),
        Field::Key => out.extend_from_slice(values.key),
        Field::Size => out.extend_from_slice(values.size.to_string().as_bytes()),
        Field::Mtime => {
            let seconds = values.mtime.0.div_euclid(1_000_000_000);
            out.extend_from_slice(seconds.to_string().as_bytes());
        }
        Field::Date => out.extend_from_slice(values.date.as_bytes()),
        Field::Job => out.extend_from_slice(values.job.as_bytes()),
        Field::Attempt => out.extend_from_slice(values.attempt.to_string().as_bytes()),
        Field::Watch => out.extend_from_slice(values.watch.as_bytes()),
    }
}

/// Directory and name of an absolute path; the directory of `/f` is `/`.
fn split_name(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(0) => (b"/", path.get(1..).unwrap_or_default()),
        Some(at) => (
            path.get(..at).unwrap_or_default(),
            path.get(at + 1..).unwrap_or_default(),
        ),
        None => (b"", path),
    }
}

/// Stem and extension of a name, without the dot between them.
fn split_ext(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|&b| b == b'.').filter(|&at| at > 0) {
        Some(at) => (
            name.get(..at).unwrap_or_default(),
            name.get(at + 1..).unwrap_or_default(),
        ),
        None => (name, b""),
    }
}

/// The `nth` directory of a path below the root, or empty; the last component is the file's name.
fn dir_below(rel: &[u8], nth: usize) -> &[u8] {
    let Some(last) = rel.iter().rposition(|&b| b == b'/') else {
        return b"";
    };
    let dirs = rel.get(..last).unwrap_or_default();
    dirs.split(|&b| b == b'/').nth(nth).unwrap_or_default()
}

/// ASCII letters and digits, lower case, every run of other bytes one `_`, none at the ends;
/// `_` alone where nothing is left. `Front Door` gives `front_door`.
pub fn slug(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for word in value
        .split(|b| !b.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        if !out.is_empty() {
            out.push(b'_');
        }
        out.extend(word.to_ascii_lowercase());
    }
    if out.is_empty() {
        out.push(b'_');
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn values<'a>(path: &'a [u8], rel: &'a [u8]) -> Values<'a> {
        Values {
            path,
            rel,
            watch: "in",
            key: b"K",
            size: 12,
            mtime: Wall(-1),
            date: "2026-01-02",
            job: "j-7",
            attempt: 3,
        }
    }

    fn expand(text: &str, path: &[u8], rel: &[u8]) -> Vec<u8> {
        Template::parse(text).unwrap().expand(&values(path, rel))
    }

    #[test]
    fn every_field() {
        let all = "{path} {name} {stem} {ext} {dir} {dir1} {dir2} {rel} {key} {size} {mtime} {date} {job} {attempt} {watch}";
        assert_eq!(
            expand(all, b"/srv/in/A b/c/x.tar.gz", b"A b/c/x.tar.gz"),
            b"/srv/in/A b/c/x.tar.gz x.tar.gz x.tar gz /srv/in/A b/c A b c A b/c/x.tar.gz K 12 -1 2026-01-02 j-7 3 in"
        );
        for (name, field) in FIELDS {
            let one = Template::parse(&format!("a{{{name}|slug}}")).unwrap();
            assert!(one.uses(field) && !one.is_fixed() && one.fixed_prefix() == "a");
        }
    }

    #[test]
    fn fields_at_their_edges() {
        for (text, path, rel, out) in [
            ("{dir}", "/f", "f", "/"),
            ("[{dir1}{dir2}]", "/r/f", "f", "[]"),
            ("[{dir1}{dir2}]", "/r/a/f", "a/f", "[a]"),
            ("{stem}+{ext}", "/r/.profile", ".profile", ".profile+"),
            ("{stem}+{ext}", "/r/a.", "a.", "a+"),
            ("{stem}+{ext}", "/r/README", "README", "README+"),
            (
                "{dir1|slug}",
                "/r/Front Door/f",
                "Front Door/f",
                "front_door",
            ),
            ("{name|slug}", "/r/--", "--", "_"),
            ("{name|lower}", "/r/ABC.Csv", "ABC.Csv", "abc.csv"),
            ("{name|lower|slug}", "/r/-A-b-", "-A-b-", "a_b"),
            ("{{{name}}} {{x}}", "/r/n", "n", "{n} {x}"),
            ("plain", "/r/n", "n", "plain"),
            ("", "/r/n", "n", ""),
        ] {
            let got = expand(text, path.as_bytes(), rel.as_bytes());
            assert_eq!(String::from_utf8(got).unwrap(), out, "{text} of {path}");
        }
    }

    #[test]
    fn bytes_pass_untouched() {
        let name = b"-\n'\"$(x)\xff\xfe{path}";
        let path = [b"/r/".as_slice(), name].concat();
        assert_eq!(expand("{name}", &path, name), name);
        assert_eq!(
            expand("{name|lower}", b"/r/A\xc3\x84\xff", b"A\xc3\x84\xff"),
            b"a\xc3\x84\xff"
        );
    }

    #[test]
    fn errors_say_what_is_known() {
        for (text, part) in [
            ("{sha256}", "{sha256} is not built in this version"),
            ("{pth}", "nearest known field {path}"),
            ("{name|slugg}", "nearest known filter |slug"),
            ("{name|}", "unknown filter"),
            ("{", "no '}' follows"),
            ("a}b", "closes nothing"),
            ("{}", "unknown field {}"),
            ("awk '{print $1}'", "a literal brace is written '{{'"),
            ("{a\nb}", "{a\\nb}"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn no_name_leads_out_of_a_directory() {
        let target = Template::parse("/a/{stem}/{key}//./{dir1}").unwrap();
        let mut v = values(b"/r/...x", b"...x");
        assert_eq!(target.expand(&v), b"/a/../K//./");
        assert_eq!(target.expand_dir(&v), b"/a/_/K");
        v.key = b"../../etc";
        assert_eq!(target.expand_dir(&v), b"/a/_/_/_/etc");
        assert_eq!(Template::parse("/").unwrap().expand_dir(&v), b"/");
    }
}
