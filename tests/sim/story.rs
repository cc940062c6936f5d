//! What happened, in words, kept only where somebody will read it.

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
