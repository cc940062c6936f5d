#!/usr/bin/python3
# A worker for settled, see settled-worker(7): it counts the lines of each file. Takes batches, too.
import json
import sys

answers = sys.stdout
sys.stdout = sys.stderr  # Whatever else is printed goes to the log.


def work(path):  # As bytes; "bytes" and "str" are the same file for open().
    with open(path, encoding="utf-8") as file:
        return sum(1 for _ in file)


def answer(job):
    try:
        path = job["path"].encode("utf-8", "surrogateescape")
        print(f"{job['job']}: {work(path)} lines")
        return {"result": "done"}
    except UnicodeDecodeError as error:  # It will not get better.
        return {"result": "dead", "message": str(error)}
    except OSError as error:
        return {"result": "retry", "after": 5, "message": str(error)}


print('{"ready": true}', file=answers, flush=True)
for line in sys.stdin.buffer:
    message = json.loads(line)
    for job in message.get("jobs", [message]):
        said = {"job": job["job"], **answer(job)}
        print(json.dumps(said), file=answers, flush=True)
