//! inotify(7): a bounded queue, merging with the event before, overflow.

use std::collections::{BTreeMap, VecDeque};

pub const ENOSPC: i32 = 28;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub wd: i32,
    pub mask: u32,
    pub cookie: u32,
    pub name: Vec<u8>,
}

#[derive(Debug)]
pub struct Notify {
    pub queue: VecDeque<Option<Event>>,
    pub queue_max: usize,
    pub watches_max: usize,
    pub overflows: u64,
    wds: BTreeMap<i32, usize>,
    last: i32,
}

impl Notify {
    pub fn new(queue_max: usize, watches_max: usize) -> Notify {
        Notify {
            queue: VecDeque::new(),
            queue_max,
            watches_max,
            overflows: 0,
            wds: BTreeMap::new(),
            last: 0,
        }
    }

    pub fn push(&mut self, wd: i32, mask: u32, cookie: u32, name: &[u8]) {
        let event = Event {
            wd,
            mask,
            cookie,
            name: name.to_vec(),
        };
        if let Some(Some(last)) = self.queue.back()
            && (last.wd, last.mask, &last.name) == (event.wd, event.mask, &event.name)
            && last.mask & settled::core::mask::IGNORED == 0
        {
            return;
        }
        if self.queue.len() >= self.queue_max {
            if !self.queue.iter().any(Option::is_none) {
                self.queue.push_back(None);
                self.overflows += 1;
            }
            return;
        }
        self.queue.push_back(Some(event));
    }

    pub fn add(&mut self, dir: usize) -> Result<i32, i32> {
        if self.wds.len() >= self.watches_max {
            return Err(ENOSPC);
        }
        self.last += 1;
        self.wds.insert(self.last, dir);
        Ok(self.last)
    }

    pub fn remove(&mut self, wd: i32) {
        self.wds.remove(&wd);
    }

    pub fn dir_of(&self, wd: i32) -> Option<usize> {
        self.wds.get(&wd).copied()
    }

    pub fn close(&mut self) {
        self.queue.clear();
        self.wds.clear();
        self.last = 0;
    }
}
