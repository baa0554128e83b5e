#!/usr/bin/env bash
# Manages a TPU slice on Google Cloud from its request to its deletion, and runs on it. See docs/guides/tpu.md.
set -euo pipefail
# Scripts start background jobs with SIGINT ignored, which bash itself cannot undo.
if [ -n "$(trap -p INT)" ] && env --default-signal=INT true 2>/dev/null; then
    exec env --default-signal=INT "$BASH" "${BASH_SOURCE[0]}" "$@"
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/_tpu.sh
source scripts/_tpu.sh

usage() {
    cat <<'END'
usage: scripts/tpu.sh COMMAND [options] [arguments]

  create                       request a slice (a queued resource) and wait until it is ready
  install                      copy this checkout to all workers and install it there
  run MODULE [ARGS...]         start python -m s1_jax.MODULE on all workers and follow it; the run outlives this terminal
  serve [ARGS...]              start python -m s1_jax.serve on a slice of one host, with a tunnel: it answers at
                               http://127.0.0.1:8000 of this machine (--port N among ARGS), and outlives this terminal
  follow                       follow the current run
  status                       print the state of the slice and its run
  stop                         send Ctrl-C to the run, which saves its work
  fetch RUN_DIR [FOLDER]       copy a run's results here, without checkpoints and weights
  supervise MODULE [ARGS...]   create, install and run; recreate a slice that is preempted or lost, and resume the run
  delete                       delete the slice and its request

options, before the arguments; the environment variable of an option follows it in capitals
  --project P          TPU_PROJECT            --zone Z             TPU_ZONE
  --name N             TPU_NAME (s1)          --type T             TPU_TYPE, for instance v5p-64 or v6e-8
  --spot               TPU_SPOT=1             --runtime-version R  TPU_RUNTIME_VERSION (by type)
  --service-account A  TPU_SERVICE_ACCOUNT, with which the workers access the bucket
  --env NAME=VALUE     environment variable of the run; may be repeated
  --everything         fetch checkpoints and weights too
  --delete-on-failure  delete the slice if the command fails or is interrupted
  --delete-when-done   delete the slice if the command succeeds
  --wait-seconds S     TPU_WAIT_SECONDS (86400): seconds to wait for a slice; then its request expires
                       TPU_CREATE_FLAGS, TPU_SSH_FLAGS: more flags for gcloud, such as --network=N and --internal-ip
  --dry-run            print every command without running it

The exit code is that of the run: the first worker's that is not 0. It is 69 if the slice is gone or a worker does not
answer.
END
}

option() { printf '%s' "${!1:-${2:-}}"; } # VARIABLE [DEFAULT]

case ${1:-help} in
    create | install | run | serve | follow | status | stop | fetch | supervise | delete) COMMAND=$1 && shift ;;
    help | --help | -h) usage && exit ;;
    *) die "no command '$1'; scripts/tpu.sh help lists them" ;;
esac

PROJECT=$(option TPU_PROJECT) ZONE=$(option TPU_ZONE) NAME=$(option TPU_NAME s1) TYPE=$(option TPU_TYPE)
SPOT=$(option TPU_SPOT) RUNTIME=$(option TPU_RUNTIME_VERSION) SERVICE_ACCOUNT=$(option TPU_SERVICE_ACCOUNT)
WAIT_SECONDS=$(option TPU_WAIT_SECONDS 86400) POLL_SECONDS=$(option TPU_POLL_SECONDS 20)
DELETE_SECONDS=$(option TPU_DELETE_SECONDS 900) SSH_TRIES=$(option TPU_SSH_TRIES 10) MAX_FRUITLESS=$(option TPU_MAX_FRUITLESS 5)
read -ra CREATE_FLAGS <<<"$(option TPU_CREATE_FLAGS)"
read -ra SSH_FLAGS <<<"$(option TPU_SSH_FLAGS)"
RUN_ENV=() TUNNEL=() EVERYTHING="" DELETE_ON_FAILURE="" DELETE_WHEN_DONE="" DRY_RUN=""
DRY_STATE=ACTIVE
if [ "$COMMAND" = create ] || [ "$COMMAND" = supervise ]; then DRY_STATE=NONE; fi

while [ $# -gt 0 ]; do
    case $1 in
        --project | --zone | --name | --type | --runtime-version | --service-account | --env | --wait-seconds)
            [ $# -gt 1 ] || die "$1 needs a value"
            ;;
    esac
    case $1 in
        --project) PROJECT=$2 && shift ;;
        --zone) ZONE=$2 && shift ;;
        --name) NAME=$2 && shift ;;
        --type) TYPE=$2 && shift ;;
        --runtime-version) RUNTIME=$2 && shift ;;
        --service-account) SERVICE_ACCOUNT=$2 && shift ;;
        --env) RUN_ENV+=("$2") && shift ;;
        --wait-seconds) WAIT_SECONDS=$2 && shift ;;
        --spot) SPOT=1 ;;
        --everything) EVERYTHING=1 ;;
        --delete-on-failure) DELETE_ON_FAILURE=1 ;;
        --delete-when-done) DELETE_WHEN_DONE=1 ;;
        --dry-run) DRY_RUN=1 ;;
        -*)
            if [ "$COMMAND" = serve ]; then break; fi # the server's own
            die "no option $1; scripts/tpu.sh help lists them"
            ;;
        *) break ;;
    esac
    shift
done

case $WAIT_SECONDS in "" | *[!0-9]*) die "--wait-seconds takes a number of seconds, not '$WAIT_SECONDS'" ;; esac
[ -n "$PROJECT" ] || die "which project? --project or TPU_PROJECT"
[ -n "$ZONE" ] || die "which zone? --zone or TPU_ZONE"
if [ "$COMMAND" = create ] || [ "$COMMAND" = supervise ]; then
    case ${RUNTIME:+given}$TYPE in
        given?*) ;;
        v5p-*) RUNTIME=v2-alpha-tpuv5 ;;
        v5litepod-*) RUNTIME=v2-alpha-tpuv5-lite ;;
        v6e-*) RUNTIME=v2-alpha-tpuv6e ;;
        "" | given) die "which slice? --type or TPU_TYPE, for instance v5p-64 or v6e-8" ;;
        *) die "no runtime version is known for $TYPE: --runtime-version" ;;
    esac
fi
# run_command MODULE ARGS...: sets RUN, the command for the workers.
run_command() {
    [ $# -gt 0 ] || die "run what? For instance: scripts/tpu.sh $COMMAND train configs/s1_32b_v5p64.py --run-dir gs://BUCKET/s1_32b"
    RUN=(.venv/bin/python -m "s1_jax.$1" "${@:2}")
    if [ ${#RUN_ENV[@]} -gt 0 ]; then RUN=(env "${RUN_ENV[@]}" "${RUN[@]}"); fi
}

# value_of OPTION ARGS...: prints the last value of an option of the run, whose name has hyphens or underscores.
value_of() {
    local option=$1 value=""
    while shift && [ $# -gt 0 ]; do
        case ${1//_/-} in
            "--$option") value=${2:-} ;;
            "--$option="*) value=${1#*=} ;;
        esac
    done
    printf '%s' "$value"
}

# open_tunnel ARGS...: sets TUNNEL, the flags of a connection that forwards the server's port.
open_tunnel() {
    local port
    port=$(value_of port "$@")
    port=${port:-8000}
    case $port in 0 | *[!0-9]*) die "--port is '$port'; a tunnel needs a number above 0" ;; esac
    if [ -z "$DRY_RUN" ] && (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        die "port $port of this machine is taken; choose another: scripts/tpu.sh serve ... --port N"
    fi
    TUNNEL=(--ssh-flag="-L $port:127.0.0.1:$port" --ssh-flag="-o ExitOnForwardFailure=yes")
}

case $COMMAND in
    run | supervise) run_command "$@" ;;
    serve) run_command serve "$@" && open_tunnel "$@" ;;
    fetch) [ $# -gt 0 ] || die "fetch what? A run_dir: gs://BUCKET/FOLDER, or a folder on worker 0" ;;
    *) [ $# -eq 0 ] || die "$COMMAND takes no arguments, got '$1'" ;;
esac
if [ "$COMMAND" = supervise ]; then
    RUN_DIR=$(value_of run-dir "$@")
    [[ $RUN_DIR == gs://* ]] || die "a recreated slice has empty disks: supervise needs --run-dir gs://BUCKET/FOLDER"
fi

[ -n "$DRY_RUN" ] || command -v gcloud >/dev/null || die "gcloud is not installed: https://cloud.google.com/sdk/docs/install"

DELETE="scripts/tpu.sh delete --project $PROJECT --zone $ZONE --name $NAME"
exec 3>&1 # for the output of --dry-run, also within $(...)
SCRATCH=$(mktemp -d)
ERRORS=$SCRATCH/error
LEAVE_ALONE="" # if set, the script ends without a message about the slice
trap 'exit 130' INT
trap 'exit 143' TERM HUP
trap leave EXIT

# leave: runs at the end of every command; deletes the slice if asked to, and says what still exists and may be billed.
# shellcheck disable=SC2329 # the trap calls it
leave() {
    local code=$? follower
    trap '' INT TERM HUP # the rest must not be interrupted
    if [ ${#FOLLOWERS[@]} -gt 0 ]; then
        for follower in "${FOLLOWERS[@]}"; do kill -- "-$follower" 2>/dev/null || true; done
        say "no longer followed; the run continues on the workers"
    fi
    if [ -z "$DRY_RUN" ] && [ -z "$LEAVE_ALONE" ]; then
        if { [ "$code" -ne 0 ] && [ -n "$DELETE_ON_FAILURE" ]; } || { [ "$code" -eq 0 ] && [ -n "$DELETE_WHEN_DONE" ]; }; then
            delete_slice || say "error: $REASON"
        fi
        say_what_exists
    fi
    rm -rf "$SCRATCH"
    exit "$code"
}

# shellcheck disable=SC2329
say_what_exists() {
    local state
    state=$(slice_state)
    case $state in
        NONE) say "nothing is billed: there is no $NAME in $ZONE" ;;
        REFUSED | UNKNOWN) say "$NAME may exist and be billed (its state is unknown); to delete it: $DELETE" ;;
        *) say "$NAME ($state) still exists and may be billed; to delete it: $DELETE" ;;
    esac
}

# finish CODE: ends the script, with the reason of a failure.
finish() {
    if [ "$1" -ne 0 ]; then say "error: ${REASON:-$(last_error)}"; fi
    exit "$1"
}

# fetch RUN_DIR FOLDER
fetch() {
    local excluded="checkpoints|hf|profile" source=${1%/}
    mkdir -p "$2"
    if [[ $source == gs://* ]]; then
        local flags=(--recursive)
        if [ -z "$EVERYTHING" ]; then flags+=("--exclude=^($excluded)/.*"); fi
        try gcloud storage rsync "$source" "$2" "${flags[@]}"
        return
    fi
    # a folder on worker 0, relative to its checkout
    local skipped=""
    if [ -z "$EVERYTHING" ]; then skipped="--exclude=./${excluded//|/ --exclude=./}"; fi
    on_worker 0 "tar -czf fetched.tar.gz -C s1_jax $skipped -C $(printf %q "$source") ." || {
        REASON="$source could not be read on worker 0"
        return 1
    }
    tpus tpu-vm scp "$NAME:fetched.tar.gz" "$SCRATCH/fetched.tar.gz" --worker=0 --quiet ${SSH_FLAGS[@]+"${SSH_FLAGS[@]}"} || return
    try tar -xzf "$SCRATCH/fetched.tar.gz" -C "$2"
}

code=0
case $COMMAND in
    create)
        make_slice || code=$?
        if [ "$code" -eq 0 ]; then say "$NAME is ready, and billed until: $DELETE" && LEAVE_ALONE=1; fi
        ;;
    install) install || code=$? ;;
    run)
        start "${RUN[@]}" && follow run || code=$?
        ;;
    serve)
        check_one_host && start "${RUN[@]}" && follow run || code=$?
        ;;
    follow) count_workers && follow run || code=$? ;;
    status)
        LEAVE_ALONE=1
        state=$(slice_state)
        say "$NAME is $state"
        if [ "$state" = ACTIVE ]; then count_workers && on_all on_worker "$(job status run)" || code=$?; fi
        ;;
    stop) count_workers && on_all on_worker "$(job stop run)" || code=$? ;;
    fetch)
        LEAVE_ALONE=1
        fetch "$1" "${2:-runs/$(basename "$1")}" || code=$?
        ;;
    supervise)
        supervise "${RUN_DIR%/}" "${RUN[@]}" || code=$?
        if [ "$code" -ne 0 ]; then REASON="giving up: $REASON"; fi
        ;;
    delete)
        LEAVE_ALONE=1
        delete_slice || code=$?
        ;;
esac
finish "$code"
