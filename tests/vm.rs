//! What judges the power cuts of a virtual machine is itself judged, on made-up stories: no machine is started.

use std::path::Path;
use std::process::Command;

#[test]
fn the_judge_of_power_cuts_sees_each_fault_and_only_faults() {
    let judge = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/judge-test");
    let judged = Command::new("python3")
        .arg(judge)
        .output()
        .expect("python3, as .ci/need brings it");
    let text = String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success(), "{text}");
}
