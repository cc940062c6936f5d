#![allow(clippy::unwrap_used)]

use super::*;

const JOB: JobLine<'static> = JobLine {
    job: "5e771ed0-18",
    attempt: 1,
    recovered: false,
    watch: "w",
    path: b"/srv/in/a.csv",
    rel: b"a.csv",
    name: b"a.csv",
    dir: b"/srv/in",
    key: b"",
    size: 123,
    mtime_ns: 1_750_000_013_312_888_797,
};

fn line(job: &JobLine<'_>) -> Vec<u8> {
    let mut line = Vec::new();
    push_job(&mut line, job);
    line
}

fn named(name: &[u8]) -> String {
    let text = String::from_utf8(line(&JobLine { name, ..JOB })).unwrap();
    let from = text.find(",\"name\":").unwrap() + 1;
    let to = text.find(",\"dir\":").unwrap();
    text[from..to].to_owned()
}

/// A name as a worker in a language with lone surrogates reads it.
fn read_back(name: &[u8]) -> Vec<u8> {
    let line = line(&JobLine { name, ..JOB });
    assert_eq!(line.iter().filter(|&&byte| byte < b' ').count(), 1);
    assert_eq!(line.last(), Some(&b'\n'));
    let members: std::collections::BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&without_surrogates(&line)).unwrap();
    let hex = members.get("name_hex").map(|hex| {
        let hex = hex.as_str().unwrap().as_bytes();
        hex.chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect::<Vec<u8>>()
    });
    assert_eq!(hex.is_none(), std::str::from_utf8(name).is_ok());
    if let Some(hex) = hex {
        assert_eq!(hex, name);
    }
    #[derive(Deserialize)]
    struct Name {
        name: Text,
    }
    serde_json::from_slice::<Name>(&line).unwrap().name.0
}

fn without_surrogates(line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(line.to_vec()).unwrap();
    text.replace("\\udc", "\\u00").into_bytes()
}

#[test]
fn the_line_of_a_job() {
    assert_eq!(
        String::from_utf8(line(&JOB)).unwrap(),
        "{\"job\":\"5e771ed0-18\",\"attempt\":1,\"recovered\":false,\"watch\":\"w\",\"path\":\"/srv/in/a.csv\",\
         \"rel\":\"a.csv\",\"name\":\"a.csv\",\"dir\":\"/srv/in\",\"key\":\"\",\"size\":123,\"mtime\":1750000013,\
         \"mtime_ns\":1750000013312888797}\n"
    );
    let edge = JobLine {
        attempt: u32::MAX,
        recovered: true,
        size: u64::MAX,
        mtime_ns: -1,
        ..JOB
    };
    let text = String::from_utf8(line(&edge)).unwrap();
    for member in [
        "\"attempt\":4294967295,\"recovered\":true",
        "\"size\":18446744073709551615,\"mtime\":-1,\"mtime_ns\":-1}",
    ] {
        assert!(text.contains(member), "{text}");
    }
}

#[test]
fn the_line_of_a_batch() {
    let other = JobLine {
        job: "5e771ed0-19",
        ..JOB
    };
    let one = String::from_utf8(line(&JOB)).unwrap();
    let two = String::from_utf8(line(&other)).unwrap();
    let mut batch = Vec::new();
    push_batch(&mut batch, [JOB, other]);
    push_batch(&mut batch, [JOB]);
    assert_eq!(
        String::from_utf8(batch).unwrap(),
        format!(
            "{{\"jobs\":[{},{}]}}\n{{\"jobs\":[{}]}}\n",
            one.trim_end(),
            two.trim_end(),
            one.trim_end()
        )
    );
}

#[test]
fn names_in_quotes() {
    for (name, expected) in [
        (
            b"a\"b\\c/\n\t\r\x01\x7f".as_slice(),
            r#""name":"a\"b\\c/\n\t\u000d\u0001"#.to_owned() + "\x7f\"",
        ),
        (
            "ä€😀\u{2028}".as_bytes(),
            "\"name\":\"ä€😀\u{2028}\"".into(),
        ),
        (b"\xff", r#""name":"\udcff","name_hex":"ff""#.into()),
        // Latin-1, and what is left of a euro sign cut off.
        (
            b"caf\xe9.txt",
            r#""name":"caf\udce9.txt","name_hex":"636166e92e747874""#.into(),
        ),
        (
            b"\xe2\x82",
            r#""name":"\udce2\udc82","name_hex":"e282""#.into(),
        ),
        (
            b"\xf0\x9f\x98",
            r#""name":"\udcf0\udc9f\udc98","name_hex":"f09f98""#.into(),
        ),
        // A surrogate in UTF-8 is no UTF-8, nor is a character in more bytes than it takes, or one beyond the last.
        (
            b"\xed\xa0\x80",
            r#""name":"\udced\udca0\udc80","name_hex":"eda080""#.into(),
        ),
        (
            b"\xed\xb2\x80",
            r#""name":"\udced\udcb2\udc80","name_hex":"edb280""#.into(),
        ),
        (
            b"\xc0\xaf",
            r#""name":"\udcc0\udcaf","name_hex":"c0af""#.into(),
        ),
        (
            b"\xf4\x90\x80\x80",
            r#""name":"\udcf4\udc90\udc80\udc80","name_hex":"f4908080""#.into(),
        ),
        // Where a name begins to look like the line that it is in.
        (b"\",\"job\":\"x", r#""name":"\",\"job\":\"x""#.into()),
    ] {
        assert_eq!(named(name), expected, "{name:x?}");
        assert_eq!(read_back(name), name);
    }
}

#[test]
fn every_byte_comes_back() {
    let all: Vec<u8> = (1..=255).collect();
    assert_eq!(read_back(&all), all);
    for byte in 0..=255 {
        assert_eq!(read_back(&[byte]), [byte]);
        for other in [0x00, 0x22, 0x5c, 0x80, 0xbf, 0xc3, 0xe2, 0xed, 0xf0] {
            assert_eq!(read_back(&[other, byte, other]), [other, byte, other]);
        }
    }
    // Wherever in a name it is.
    for at in 0..70 {
        for byte in [b'"', b'\\', b'\n', 0x1f, 0xff] {
            let mut name = vec![b'x'; 70];
            name[at] = byte;
            assert_eq!(read_back(&name), name);
        }
    }
    let mut random = Random(7);
    for _ in 0..2_000 {
        let name = random.bytes(40);
        assert_eq!(read_back(&name), name);
    }
}

#[test]
fn other_fields_have_their_bytes_in_hexadecimal_too() {
    let text = line(&JobLine {
        path: b"/\xe4/\xff",
        rel: b"\xff",
        dir: b"/\xe4",
        key: b"\xe4",
        ..JOB
    });
    let text = String::from_utf8(text).unwrap();
    for member in [
        r#""path":"/\udce4/\udcff","path_hex":"2fe42fff","#,
        r#""rel":"\udcff","rel_hex":"ff","name":"a.csv","#,
        r#""dir":"/\udce4","dir_hex":"2fe4","#,
        r#""key":"\udce4","key_hex":"e4","#,
    ] {
        assert!(text.contains(member), "{text}");
    }
}

fn answers(line: &[u8]) -> Answers {
    match read_line(line) {
        Ok(Said::Answers(answers)) => answers,
        other => panic!("{}: {other:?}", String::from_utf8_lossy(line)),
    }
}

fn job(journal: u32, job: u64) -> Named {
    Named::Job {
        journal,
        job: JobId(job),
    }
}

#[test]
fn answers_of_every_kind() {
    let one = answers(br#"{"job":"5e771ed0-18","result":"done"}"#);
    assert_eq!(
        one,
        Answers {
            jobs: vec![job(0x5e77_1ed0, 18)],
            answer: Answer::Done,
            message: vec![],
        }
    );
    let several = answers(
        b" {\"message\" : \"no disk\", \"after\":2.5, \"x\":{\"y\":[1,\"\\ud800\",null]}, \
          \"result\":\"retry\", \"jobs\":[\"00000000-0\",\"ffffffff-18446744073709551615\"] }\r",
    );
    assert_eq!(several.jobs, [job(0, 0), job(u32::MAX, u64::MAX)]);
    assert_eq!(
        several.answer,
        Answer::Retry(Some(Duration::from_millis(2500)))
    );
    assert_eq!(several.message, b"no disk");
    let dead = answers(br#"{"job":"x","result":"dead","after":null,"message":null,"ready":null}"#);
    assert_eq!(
        (dead.jobs[0].clone(), dead.answer),
        (Named::Other("x".into()), Answer::Dead)
    );
    assert_eq!(read_line(br#"{"ready":true,"version":1}"#), Ok(Said::Ready));
    // What an escape stands for is the same in a name.
    assert_eq!(
        answers(br#"{"\u006aob":"x","result":"d\u006fne"}"#).answer,
        Answer::Done
    );
}

#[test]
fn what_is_no_job_is_kept_for_the_log() {
    for (text, back) in [
        ("5e771ed0-18", true),
        ("5e771ed0-0", true),
        ("5E771ED0-18", false),
        ("5e771ed0-018", false),
        ("5e771ed0-+18", false),
        ("5e771ed0-", false),
        ("5e771ed0", false),
        ("+e771ed0-18", false),
        ("5e771ed0-18446744073709551616", false),
        ("5e771ed0-1a", false),
        ("", false),
        ("ééééé-1", false),
    ] {
        let named = Named::read(text.as_bytes());
        assert_eq!(matches!(named, Named::Job { .. }), back, "{text}");
        assert_eq!(named.to_string(), text);
    }
    let long = Named::read("é".repeat(1000).as_bytes()).to_string();
    assert!(long.len() <= WORDS_MAX && long.starts_with("éé"));
}

#[test]
fn waits() {
    let wait = |after: &str| {
        let line = format!("{{\"job\":\"x\",\"result\":\"retry\",\"after\":{after}}}");
        match read_line(line.as_bytes()) {
            Ok(Said::Answers(Answers {
                answer: Answer::Retry(after),
                ..
            })) => Ok(after),
            Ok(other) => panic!("{other:?}"),
            Err(nonsense) => Err(nonsense.to_string()),
        }
    };
    let seconds = |s| Ok(Some(Duration::from_secs_f64(s)));
    for (after, expected) in [
        ("0", seconds(0.0)),
        ("-0.0", seconds(0.0)),
        ("0.001", seconds(0.001)),
        ("7", seconds(7.0)),
        ("1e3", seconds(1000.0)),
        ("1e-320", seconds(0.0)),
        ("1e12", Ok(Some(AFTER_MAX))),
        ("1e300", Ok(Some(AFTER_MAX))),
        ("99999999999999999999999999", Ok(Some(AFTER_MAX))),
        ("null", Ok(None)),
    ] {
        assert_eq!(wait(after), expected, "{after}");
    }
    for after in [
        "-1",
        "-1e-9",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "\"5\"",
        "true",
        "[1]",
        "{}",
        "01",
        "",
    ] {
        assert!(wait(after).is_err(), "{after}");
    }
    assert!(wait("-1").unwrap_err().contains("after"));
    // It means nothing without a retry, but is a number there too.
    let done = |after: &str| {
        read_line(format!("{{\"job\":\"x\",\"result\":\"done\",\"after\":{after}}}").as_bytes())
    };
    assert!(done("3").is_ok() && done("-3").is_err());
}

#[test]
fn nonsense_is_named() {
    for (line, words) in [
        (b"".as_slice(), "EOF"),
        (b"done", "expected"),
        (b"{", "EOF"),
        (b"[]", "an object"),
        (b"\"x\"", "an object"),
        (b"{}", "neither"),
        (b"{\"result\":\"done\"}", "neither"),
        (b"{\"job\":\"x\"}", "\"result\" is missing"),
        (b"{\"job\":\"x\",\"result\":null}", "\"result\" is missing"),
        (b"{\"job\":\"x\",\"result\":\"ok\"}", "but \"ok\""),
        (b"{\"job\":\"x\",\"result\":\"Done\"}", "but \"Done\""),
        (b"{\"job\":\"x\",\"result\":true}", "a string"),
        (b"{\"job\":18,\"result\":\"done\"}", "a string"),
        (b"{\"job\":[1,2],\"result\":\"done\"}", "a string"),
        (b"{\"jobs\":\"x\",\"result\":\"done\"}", "sequence"),
        (b"{\"jobs\":[],\"result\":\"done\"}", "empty"),
        (b"{\"jobs\":[1],\"result\":\"done\"}", "a string"),
        (
            b"{\"job\":\"x\",\"jobs\":[\"y\"],\"result\":\"done\"}",
            "both",
        ),
        (
            b"{\"job\":\"x\",\"job\":\"y\",\"result\":\"done\"}",
            "twice",
        ),
        (
            b"{\"job\":\"x\",\"result\":\"done\",\"result\":\"dead\"}",
            "twice",
        ),
        (b"{\"ready\":false}", "not true"),
        (b"{\"ready\":1}", "boolean"),
        (
            b"{\"ready\":true,\"job\":\"x\",\"result\":\"done\"}",
            "both",
        ),
        (b"{\"job\":\"x\",\"result\":\"done\"} {}", "trailing"),
        (b"{\"job\":\"x\",\"result\":\"done\",}", "trailing comma"),
        (b"{\"job\":\"x\",\"result\":\"done\"", "EOF"),
        (b"{'job':'x','result':'done'}", "must be a string"),
        (b"\xef\xbb\xbf{\"ready\":true}", "expected"),
        (b"{\"ready\":true}\0", "trailing"),
        (b"{\"job\":\"\\x\",\"result\":\"done\"}", "escape"),
        (b"{\"job\":\"\\ud8\",\"result\":\"done\"}", "escape"),
    ] {
        let nonsense = read_line(line).unwrap_err().to_string();
        let text = String::from_utf8_lossy(line);
        assert!(nonsense.contains(words), "{text}: {nonsense}");
    }
    let long = format!("{{\"job\":\"x\",\"result\":\"{}\"}}", "é".repeat(10_000));
    assert!(read_line(long.as_bytes()).unwrap_err().to_string().len() <= WORDS_MAX);
}

#[test]
fn a_message_may_hold_a_name() {
    // As Python writes a name with surrogates in it; as a shell does, which knows bytes only; and a surrogate that
    // stands for no byte.
    let message = |text: &[u8]| {
        let line = [
            b"{\"job\":\"x\",\"result\":\"dead\",\"message\":\"",
            text,
            b"\"}",
        ]
        .concat();
        answers(&line).message
    };
    assert_eq!(message(br"caf\udce9: \u00fc"), b"caf\xe9: \xc3\xbc");
    assert_eq!(message(b"caf\xe9 \xff"), b"caf\xe9 \xff");
    assert_eq!(
        message(br"\ud800 \ud83d\ude00"),
        b"\xed\xa0\x80 \xf0\x9f\x98\x80"
    );
    assert_eq!(message(&b"x".repeat(5000)), b"x".repeat(MESSAGE_MAX));
}

#[test]
fn the_longest_line_and_the_deepest() {
    let fill = ANSWER_MAX - br#"{"job":"x","result":"done","y":""}"#.len();
    let whole = |fill| {
        format!(
            "{{\"job\":\"x\",\"result\":\"done\",\"y\":\"{}\"}}",
            "z".repeat(fill)
        )
    };
    assert_eq!(whole(fill).len(), ANSWER_MAX);
    assert!(read_line(whole(fill).as_bytes()).is_ok());
    let nonsense = read_line(whole(fill + 1).as_bytes()).unwrap_err();
    assert_eq!(nonsense.to_string(), "longer than 65536 bytes");
    // No depth ends the stack, whether something is to be read there or not.
    let depth = 30_000;
    for (before, open, close, after) in [
        ("", "[", "]", ""),
        ("", "{\"x\":", "}", ""),
        ("{\"job\":\"x\",\"result\":\"done\",\"y\":", "[", "]", "}"),
        ("{\"jobs\":", "[", "]", ",\"result\":\"done\"}"),
        (
            "{\"message\":",
            "[",
            "]",
            ",\"job\":\"x\",\"result\":\"done\"}",
        ),
        (
            "{\"after\":",
            "[",
            "]",
            ",\"job\":\"x\",\"result\":\"done\"}",
        ),
    ] {
        let levels =
            depth.min((ANSWER_MAX - before.len() - after.len()) / (open.len() + close.len()));
        let text = [before, &open.repeat(levels), &close.repeat(levels), after].concat();
        let whole = read_line(text.as_bytes());
        let open_ended = read_line([before, &open.repeat(levels)].concat().as_bytes());
        assert!(open_ended.is_err());
        assert_eq!(whole.is_ok(), before.ends_with("\"y\":"), "{before}");
    }
}

/// Numbers that are the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) as usize % below
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.next(most + 1))
            .map(|_| self.next(256) as u8)
            .collect()
    }
}

#[test]
fn no_line_makes_it_panic() {
    let good: [&[u8]; 4] = [
        br#"{"job":"5e771ed0-18","result":"retry","after":2.5,"message":"\udce9\ud83d\ude00\n"}"#,
        br#"{"jobs":["5e771ed0-18","x"],"result":"done","y":[{"z":null},1e9,true]}"#,
        br#"{"ready":true}"#,
        b"{\"job\":\"\xff\",\"result\":\"dead\"}",
    ];
    let pieces: [&[u8]; 14] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b":",
        b",",
        b"\\u",
        b"\\udc80",
        b"\"job\"",
        b"\"after\"",
        b"1e999",
        b"-",
        b"null",
    ];
    let mut random = Random(1);
    let (mut sense, mut nonsense) = (0, 0);
    for round in 0..200_000 {
        let mut line = match round % 4 {
            0 => random.bytes(60),
            1 => (0..random.next(20))
                .flat_map(|_| pieces[random.next(pieces.len())].to_vec())
                .collect(),
            _ => good[random.next(good.len())].to_vec(),
        };
        if round % 4 > 1 {
            for _ in 0..=random.next(3) {
                let at = random.next(line.len().max(1)).min(line.len());
                match random.next(4) {
                    0 if at < line.len() => line[at] = random.next(256) as u8,
                    1 if at < line.len() => drop(line.remove(at)),
                    2 => line.truncate(at),
                    _ => {
                        drop(line.splice(at..at, pieces[random.next(pieces.len())].iter().copied()))
                    }
                }
            }
        }
        match read_line(&line) {
            Ok(Said::Answers(answers)) => {
                assert!(!answers.jobs.is_empty() && answers.message.len() <= MESSAGE_MAX);
                if let Answer::Retry(Some(after)) = answers.answer {
                    assert!(after <= AFTER_MAX);
                }
                sense += 1;
            }
            Ok(Said::Ready) => sense += 1,
            Err(words) => {
                assert!(!words.to_string().is_empty() && words.to_string().len() <= WORDS_MAX);
                nonsense += 1;
            }
        }
    }
    assert!(sense > 1_000 && nonsense > 1_000, "{sense} {nonsense}");
}
