//! What happened, in words, kept only where somebody will read it.

use settled::core::Input;
use settled::core::ask::{Answer, Question};
use std::cell::RefCell;

thread_local! {
    static STORY: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Begins to keep (or not to).
pub fn begin(keep: bool) {
    STORY.with(|story| *story.borrow_mut() = keep.then(Vec::new));
}

/// Whether lines are kept.
pub fn kept() -> bool {
    STORY.with(|story| story.borrow().is_some())
}

/// Adds a line.
pub fn say(at: u64, text: String) {
    STORY.with(|story| {
        if let Some(lines) = story.borrow_mut().as_mut() {
            lines.push(format!("{:>14.6}  {text}", at as f64 / 1e9));
        }
    });
}

/// Takes all lines.
pub fn take() -> Vec<String> {
    STORY.with(|story| story.borrow_mut().take().unwrap_or_default())
}

/// Bytes for people.
pub fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A line of the story, formatted only where kept.
#[macro_export]
macro_rules! story {
    ($at:expr, $($arg:tt)*) => {
        if $crate::story::kept() {
            $crate::story::say($at, format!($($arg)*));
        }
    };
}

/// An event's mask.
pub fn bits(mask: u32) -> String {
    use settled::core::mask as m;
    [
        (m::CLOSE_WRITE, "CLOSE_WRITE"),
        (m::MOVED_FROM, "MOVED_FROM"),
        (m::MOVED_TO, "MOVED_TO"),
        (m::CREATE, "CREATE"),
        (m::DELETE, "DELETE"),
        (m::DELETE_SELF, "DELETE_SELF"),
        (m::MOVE_SELF, "MOVE_SELF"),
        (m::IGNORED, "IGNORED"),
        (m::ISDIR, "ISDIR"),
    ]
    .iter()
    .filter(|(bit, _)| mask & bit != 0)
    .map(|(_, name)| *name)
    .collect::<Vec<_>>()
    .join("|")
}

/// A question, short.
pub fn question_words(question: &Question) -> String {
    match question {
        Question::Resolve { path } => format!("resolve {}", show(path)),
        Question::Moved { place } => format!("moved {}", show(&place.path())),
        Question::Exports => "what is exported".into(),
        Question::Bind { place, watch } => format!("bind {} watch {watch}", show(&place.path())),
        Question::Probe {
            place, lock, lease, ..
        } => format!("probe {} lock {lock} lease {lease}", show(&place.path())),
        Question::Dispose { place, act, .. } => {
            format!("dispose {} {act:?}", show(&place.path()))
        }
    }
}

/// An input, short.
pub fn words(input: &Input) -> String {
    match input {
        Input::Answer(ask, Answer::Entries(entries)) => {
            let names: Vec<String> = entries.iter().map(|entry| show(&entry.name)).collect();
            format!("answer {} entries {}", ask.0, names.join(" "))
        }
        Input::Answer(ask, answer) => format!("answer {} {answer:?}", ask.0),
        other => format!("{other:?}"),
    }
}
