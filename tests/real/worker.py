# A worker for the tests. `worker.py LEDGER [WORD...]`; words: `until=FILE` (answers nothing before it is there), `ready`
# (says that it is, when `ready=FILE` is there, if it has a value), `never` (ends at once), `tag=TEXT` (for the ledger),
# `linger` (does not end at the end of its input), `slow=SECONDS` (before each answer),
# `poison` (ends at a file called `*poison`).
#
# What it does with a job is told by the beginning of its file's name: see `answer`. The ledger gets a line with one append
# for each thing that happens: `start PID TAG`, `got PID NAME ATTEMPT RECOVERED UNANSWERED` before anything is done with a
# job, `did PID NAME` before it is answered, `end PID` at the end of input. Names are in hexadecimal.
import json
import os
import select
import signal
import sys
import time

ledger, *words = sys.argv[1:]
words = dict(word.partition("=")[::2] for word in words)
pid = os.getpid()


def note(*what):
    line = " ".join(str(word) for word in what) + "\n"
    # It is made with the first line: at the end of a test nothing is made in a directory that goes away.
    made = os.O_CREAT if what[0] == "start" else 0
    try:
        file = os.open(ledger, os.O_WRONLY | os.O_APPEND | made, 0o644)
    except FileNotFoundError:
        os._exit(0)
    os.write(file, line.encode())
    os.close(file)


def say(**what):
    write(json.dumps(what).encode() + b"\n")


def write(data):
    while data:
        data = data[os.write(1, data):]


def answer(job):
    path = job["path"].encode("utf-8", "surrogateescape")
    if "path_hex" in job:
        assert bytes.fromhex(job["path_hex"]) == path, job
    name = os.path.basename(path)
    os.stat(path)  # The exact bytes name the file.
    kind = name.split(b"-")[0]
    if "slow" in words:
        time.sleep(float(words["slow"]))
    if "poison" in words and name.endswith(b"poison"):
        os._exit(3)
    if kind == b"die" or (kind == b"once" and job["attempt"] == 1):
        os._exit(3)
    if kind == b"kill":
        os.kill(pid, signal.SIGKILL)
    if kind == b"hang":
        time.sleep(10000)
    if kind == b"stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(10000)
    note("did", pid, name.hex())
    if kind == b"nonsense":
        write(b"done with it\n")
        time.sleep(10000)
    if kind == b"long":
        write(b"x" * 70000)
        time.sleep(10000)
    if kind == b"retry" and job["attempt"] == 1:
        return say(job=job["job"], result="retry", after=0.01, message="not yet")
    if kind == b"later" and job["attempt"] == 1:
        return say(job=job["job"], result="retry", after=2)
    if kind == b"dead":
        return say(job=job["job"], result="dead", message="no good")
    if kind == b"foreign":
        say(job="00000000-1", result="done")
        say(job=job["job"].split("-")[0] + "-987654321", result="done")
        say(job="what?", result="dead")
    say(job=job["job"], result="done", unknown=[1, {}])
    if kind == b"twice":
        say(job=job["job"], result="done")
        say(job=job["job"], result="dead")


note("start", pid, words.get("tag", "-"))
if "never" in words:
    sys.exit(1)
ready = "ready" not in words
buffer, held, ended = b"", [], False
while True:
    if not ready and (not words["ready"] or os.path.exists(words["ready"])):
        ready = True
        say(ready=True)
    if held and ("until" not in words or os.path.exists(words["until"])):
        answer(held.pop(0))
        continue
    if ended and not held:
        break
    if ended or not select.select([0], [], [], 0.01)[0]:
        time.sleep(0.005)
        continue
    data = os.read(0, 1 << 20)
    ended = not data
    buffer += data
    *lines, buffer = buffer.split(b"\n")
    for line in lines:
        message = json.loads(line)
        jobs = message.get("jobs", [message])
        if "jobs" in message:
            note("batch", pid, len(jobs))
        for job in jobs:
            held.append(job)
            name = job["name"].encode("utf-8", "surrogateescape")
            note("got", pid, name.hex(), job["attempt"], int(job["recovered"]), len(held))
note("end", pid)
while "linger" in words:
    time.sleep(1000)
