"""A stand-in for gcloud: one queued resource in a folder, whose workers are folders too.

$TPU_STAND_IN holds what tests write and read:
  calls          every command line, as a Python list a line
  workers        how many a slice has (2)
  states         what describing a new slice says, one line after the other; the last one stays (ACTIVE)
  create_errors  what creating says, one line each time; an empty line, or none left: it works
  node_state     of the TPU VM (READY), until it is deleted
  preempted      while this is there, the slice is SUSPENDED and no worker answers; deleting takes it away
  dead           numbers of workers that do not answer, until the slice is deleted
  breaks         how many lines a connection that follows a run gives before it breaks, one line each time
  undeletable    while this is there, deleting fails
  slice/         the slice, while it exists: worker-0, worker-1, ... are home folders
  gs/            the buckets
"""

import glob
import os
import sys
import time
from typing import NoReturn

ROOT = os.environ["TPU_STAND_IN"]
WIDE = {"--project", "--format", "--quiet", "--flatten"}  # what gcloud takes everywhere
PLACE = {"--zone"}
COMMANDS = {
    "compute tpus queued-resources create": PLACE
    | {"--node-id", "--accelerator-type", "--runtime-version", "--valid-until-duration", "--spot"}
    | {"--service-account", "--scopes", "--network", "--internal-ips"},
    "compute tpus queued-resources delete": PLACE | {"--force"},
    "compute tpus queued-resources describe": PLACE,
    "compute tpus queued-resources list": PLACE,
    "compute tpus tpu-vm describe": PLACE,
    "compute tpus tpu-vm list": PLACE,
    "compute tpus tpu-vm ssh": PLACE | {"--worker", "--command", "--ssh-flag", "--internal-ip"},
    "compute tpus tpu-vm scp": PLACE | {"--worker", "--internal-ip"},
    "storage ls": set(),
    "storage du": set(),
    "storage rm": {"--recursive"},
    "storage rsync": {"--recursive", "--exclude"},
    "storage buckets create": {"--location", "--uniform-bucket-level-access"},
    "storage buckets add-iam-policy-binding": {"--member", "--role"},
    "auth login": set(),
    "projects create": set(),
    "billing accounts list": set(),
    "billing projects link": {"--billing-account"},
    "services enable": set(),
    "quotas info list": {"--service", "--filter"},
    "iam service-accounts create": set(),
}
SWITCHES = {
    "--spot",
    "--internal-ips",
    "--internal-ip",
    "--force",
    "--quiet",
    "--recursive",
    "--uniform-bucket-level-access",
}


def path(*names):
    return os.path.join(ROOT, *names)


def read(name, default=""):
    try:
        with open(path(name)) as file:
            return file.read()
    except FileNotFoundError:
        return default


def write(name, text, mode="w"):
    with open(path(name), mode) as file:
        file.write(text)


def pop(name, keep_last=False):
    """The first line of a file, taken out of it; None where there is none."""
    lines = read(name).splitlines()
    if not lines:
        return None
    if len(lines) > 1 or not keep_last:
        write(name, "".join(line + "\n" for line in lines[1:]))
    return lines[0]


def fail(message, code=1) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)


def split(words):
    """The command, its flags and its arguments; refuses those that gcloud's reference does not have."""
    name = next((" ".join(words[:n]) for n in (4, 3, 2) if " ".join(words[:n]) in COMMANDS), None)
    if name is None:
        fail(f"ERROR: (gcloud) Invalid choice: {words}", 2)
    flags, rest = {}, []
    for word in words[len(name.split()) :]:
        if not word.startswith("--"):
            rest.append(word)
            continue
        flag, is_set, value = word.partition("=")
        if flag not in COMMANDS[name] | WIDE or bool(is_set) == (flag in SWITCHES):
            fail(f"ERROR: (gcloud.{name.replace(' ', '.')}) unrecognized arguments: {word}", 2)
        flags[flag] = value
    return name, flags, rest


def is_there():
    return os.path.isdir(path("slice")) and not os.path.exists(path("preempted"))


def create(flags, rest):
    error = pop("create_errors")
    if error:
        fail(error)
    if os.path.isdir(path("slice")):
        fail("ERROR: (gcloud.compute.tpus.queued-resources.create) ALREADY_EXISTS: Resource already exists")
    for worker in range(int(read("workers", "2"))):
        os.makedirs(path("slice", f"worker-{worker}"))
    write("slice/states", read("states", "ACTIVE\n"))


def delete(flags, rest):
    if os.path.exists(path("undeletable")):
        fail("ERROR: (gcloud.compute.tpus.queued-resources.delete) INTERNAL: try later")
    if not os.path.isdir(path("slice")):
        fail("ERROR: (gcloud.compute.tpus.queued-resources.delete) NOT_FOUND: Resource was not found")
    os.system(f"cat {ROOT}/slice/*/s1_jax_jobs/*/pid 2>/dev/null | xargs -rI@ kill -9 -- -@ 2>/dev/null")
    os.system(f"rm -rf {ROOT}/slice {ROOT}/preempted {ROOT}/dead {ROOT}/node_state")


def describe(flags, rest):
    if not os.path.isdir(path("slice")):
        fail("ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource was not found")
    if "failedData" in flags["--format"]:
        print("no room until the time given")
    elif os.path.exists(path("preempted")):
        print("SUSPENDED")
    else:
        print(pop("slice/states", keep_last=True))


def describe_node(flags, rest):
    if not is_there():
        fail("ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Resource was not found")
    if "--flatten" in flags:
        for worker in range(int(read("workers", "2"))):
            print(f"10.0.0.{worker}")
    else:
        print(read("node_state", "READY"))


def answers(worker):
    return is_there() and worker not in read("dead").split()


def ssh(flags, rest):
    worker, command = flags["--worker"], flags["--command"]
    if not answers(worker):
        fail("ssh: connect to host 10.0.0.1 port 22: Connection timed out", 255)
    lines = pop("breaks") if " follow run " in command else None
    if lines:
        command = f"({command}) | head -n {lines}; exit 255"
    child = os.fork()
    if child == 0:
        os.setsid()
        home = path("slice", f"worker-{worker}")
        os.chdir(home)
        search = f"{path('worker_bin')}:{os.environ['PATH']}"
        os.execvpe("bash", ["bash", "-c", command], os.environ | {"HOME": home, "PATH": search, "WORKER": worker})
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            sys.exit(os.waitstatus_to_exitcode(status) & 255)
        if not answers(worker):
            os.killpg(child, 9)
            fail("client_loop: send disconnect: Broken pipe", 255)
        time.sleep(0.005)


def scp(flags, rest):
    worker = flags["--worker"]
    if not answers(worker):
        fail("ssh: connect to host 10.0.0.1 port 22: Connection timed out", 255)
    source, target = (name.replace(f"{os.environ['TPU_NAME']}:", f"{ROOT}/slice/worker-{worker}/") for name in rest)
    sys.exit(os.system(f"cp {source} {target}") and 1)


def storage(flags, rest):
    kind, *paths = rest
    first = paths[0].replace("gs://", f"{ROOT}/gs/")
    if kind == "ls":
        names = sorted(glob.glob(first))
        for name in names:
            print(name.replace(f"{ROOT}/gs/", "gs://"))
        sys.exit(0 if names else 1)
    elif kind == "du":
        sys.exit(os.system(f"du -b {first} 2>/dev/null") and 1)
    else:  # rsync
        import re

        for folder, _, files in os.walk(first):
            for name in files:
                inside = os.path.relpath(os.path.join(folder, name), first)
                if not ("--exclude" in flags and re.match(flags["--exclude"], inside)):
                    os.makedirs(os.path.dirname(os.path.join(paths[1], inside)), exist_ok=True)
                    os.system(f"cp {first}/{inside} {paths[1]}/{inside}")


def main():
    os.closerange(3, 64)  # ssh would not hand these on either
    words = sys.argv[1:]
    write("calls", repr(words) + "\n", "a")
    name, flags, rest = split(words)
    actions = {
        "compute tpus queued-resources create": create,
        "compute tpus queued-resources delete": delete,
        "compute tpus queued-resources describe": describe,
        "compute tpus tpu-vm describe": describe_node,
        "compute tpus tpu-vm ssh": ssh,
        "compute tpus tpu-vm scp": scp,
    }
    if name in ("storage ls", "storage du", "storage rsync"):
        storage(flags, [name.split()[1], *rest])
    elif name in actions:
        actions[name](flags, rest)


main()
