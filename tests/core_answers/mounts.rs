//! Mounts that come and go while it is being looked for what lies where.

use super::*;

impl Bed {
    fn mounts(&mut self, over: &[(u64, &[u8])]) {
        let over = over.iter().map(|(id, point)| mount(*id, point));
        let all = [mount(1, b"/")].into_iter().chain(over);
        self.input(Input::Mounts(all.collect()));
    }
}

#[test]
fn what_is_mounted_over_a_root_while_that_is_looked_for_is_looked_for_again() {
    let mut bed = Bed::start(Vec::new());
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), Vec::new());
    bed.mounts(&[(5, b"/srv/in")]);
    // The answer is on its way when that is unmounted, and another one mounted.
    bed.mounts(&[(6, b"/srv/in")]);
    assert!(bed.finds(b"/srv/in", 5, version(3, 0)));
    assert!(bed.finds(b"/srv/in", 6, version(4, 0)), "{:?}", bed.asked);
    bed.list(b"", 2, version(4, 0), Vec::new());
    assert!(bed.asked.is_empty(), "{:?}", bed.asked);
}
