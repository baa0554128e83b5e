# shellcheck shell=bash
# Sourced by tpu.sh: functions for the slice, its workers, and jobs on them. Names in capitals are tpu.sh's options.
#
# A function that fails sets REASON to one line. It returns LOST if the slice is gone or a worker does not answer, AGAIN if
# another try may help, 1 if it would not help, and MISTAKE and INTERRUPTED as all commands do.
LOST=69 AGAIN=75 MISTAKE=2 INTERRUPTED=130
REASON="" # reason of the last failure
INSTALLED="" # set if this slice has this checkout
FOLLOWERS=() # processes that each follow one worker

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit "$MISTAKE"
}

# try COMMAND...: runs it, or prints it with --dry-run. Its standard error is saved in $ERRORS.
try() {
    if [ -n "$DRY_RUN" ]; then
        show "$@"
        return
    fi
    "$@" 2>"$ERRORS" </dev/null
}

# last_error: prints the line of $ERRORS with the error.
last_error() { grep -m 1 ERROR "$ERRORS" || grep . "$ERRORS" | tail -n 1 || true; }

error_matches() { grep -qiE "$1" "$ERRORS"; }

show() {
    local words
    words=$(printf '%q ' "$@")
    printf '%s\n' "${words% }" >&3
}

# --- the slice: one queued resource, with one node of the same name

tpus() { try gcloud compute tpus "$@" --project="$PROJECT" --zone="$ZONE"; }

# slice_state: prints the request's state, or NONE if there is no request, GONE if its node is gone, REFUSED if gcloud
# denies access, UNKNOWN after another error.
slice_state() {
    local state node
    if [ -n "$DRY_RUN" ]; then
        tpus queued-resources describe "$NAME" --format="value(state.state)"
        echo "$DRY_STATE"
    elif ! state=$(tpus queued-resources describe "$NAME" --format="value(state.state)"); then
        if error_matches "PERMISSION_DENIED|has not been used|auth login|credentials"; then
            echo REFUSED
        elif error_matches "not.found"; then
            echo NONE
        else
            echo UNKNOWN
        fi
    elif [ "$state" = ACTIVE ]; then
        # the request can stay ACTIVE for a while after its node was preempted
        node=$(tpus tpu-vm describe "$NAME" --format="value(state)") || node=UNKNOWN
        case $node in
            PREEMPTED | TERMINATED | STOPPED | DELETING) echo GONE ;;
            *) echo ACTIVE ;;
        esac
    else
        echo "${state:-UNKNOWN}"
    fi
}

slice_is_there() {
    case $(slice_state) in ACTIVE | UNKNOWN) ;; *) return 1 ;; esac
}

# make_slice: requests the slice if there is none, replaces one that is gone, and waits until it is ready.
make_slice() {
    local state
    state=$(slice_state)
    case $state in
        ACTIVE) return 0 ;;
        NONE) ;;
        GONE | SUSPENDING | SUSPENDED | FAILED)
            say "$NAME is $state: requesting it again"
            delete_slice || return
            ;;
        *)
            wait_for_slice
            return
            ;;
    esac
    request_slice && wait_for_slice
}

request_slice() {
    local flags=("--accelerator-type=$TYPE" "--runtime-version=$RUNTIME" "--valid-until-duration=$((WAIT_SECONDS + 600))s")
    if [ -n "$SPOT" ]; then flags+=(--spot); fi
    if [ -n "$SERVICE_ACCOUNT" ]; then
        flags+=("--service-account=$SERVICE_ACCOUNT" --scopes=https://www.googleapis.com/auth/cloud-platform)
    fi
    flags+=(${CREATE_FLAGS[@]+"${CREATE_FLAGS[@]}"})
    INSTALLED=""
    say "requesting $TYPE in $ZONE${SPOT:+ (spot)} as $NAME"
    if tpus queued-resources create "$NAME" --node-id="$NAME" "${flags[@]}" --quiet; then
        if [ -n "$DRY_RUN" ]; then DRY_STATE=ACTIVE; fi
        return
    fi
    REASON="the request was refused: $(last_error)"
    if error_matches "quota|PERMISSION_DENIED|INVALID_ARGUMENT|has not been used|billing"; then return 1; fi
    return "$AGAIN"
}

wait_for_slice() {
    local state="" before="" unknown=0 deadline=$((SECONDS + WAIT_SECONDS))
    while :; do
        state=$(slice_state)
        if [ "$state" != "$before" ]; then say "$NAME is $state"; fi
        if [ "$state" = UNKNOWN ]; then unknown=$((unknown + 1)); else unknown=0; fi
        before=$state
        case $state in
            ACTIVE) return 0 ;;
            NONE | GONE | SUSPENDING | SUSPENDED)
                REASON="$NAME was lost during its setup ($state)"
                return "$LOST"
                ;;
            FAILED)
                REASON=$(tpus queued-resources describe "$NAME" --format="value(state.failedData.error.message)") || true
                REASON="the request failed: ${REASON:-no reason given}"
                return "$AGAIN"
                ;;
        esac
        if [ "$state" = REFUSED ] || [ "$unknown" -ge "$SSH_TRIES" ]; then
            REASON="gcloud does not report the state of $NAME: $(last_error)"
            return 1
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            REASON="$NAME is still $state after $WAIT_SECONDS s (--wait-seconds)"
            return 1
        fi
        sleep "$POLL_SECONDS"
    done
}

# delete_slice: deletes the node and the request; fails unless both are gone.
delete_slice() {
    local deadline=$((SECONDS + DELETE_SECONDS)) state=UNKNOWN
    say "deleting $NAME"
    tpus queued-resources delete "$NAME" --force --quiet || true
    if [ -n "$DRY_RUN" ]; then
        DRY_STATE=NONE
        return
    fi
    while state=$(slice_state) && [ "$state" != NONE ]; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            REASON="$NAME could not be deleted; it is $state and may be billed: $(last_error)"
            return 1
        fi
        sleep "$POLL_SECONDS"
        tpus queued-resources delete "$NAME" --force --quiet || true
    done
}

# count_workers: sets WORKERS; in a dry run, from the type of the slice.
count_workers() {
    local addresses number=${TYPE##*-}
    addresses=$(tpus tpu-vm describe "$NAME" --flatten="networkEndpoints[]" --format="value(networkEndpoints.ipAddress)") || true
    WORKERS=$(grep -c . <<<"$addresses") || true
    if [ -n "$DRY_RUN" ]; then
        case $TYPE in
            v5p-*) WORKERS=$(((number + 7) / 8)) ;; # two cores per chip, four chips per host
            *-*) WORKERS=$((number <= 8 ? 1 : number / 4)) ;;
            *) WORKERS=1 ;;
        esac
    elif [ "$WORKERS" -eq 0 ]; then
        REASON="$NAME has no workers: $(last_error)"
        return "$LOST"
    fi
}

# check_one_host: fails on a slice of several hosts, because a server takes the chips of one.
check_one_host() {
    count_workers || return
    [ "$WORKERS" -gt 1 ] || return 0
    REASON="$NAME has $WORKERS hosts, and a server takes the chips of one; start one on each host: scripts/tpu.sh run"
    REASON="$REASON --env TPU_PROCESS_BOUNDS=1,1,1 --env TPU_CHIPS_PER_PROCESS_BOUNDS=2,2,1 serve --host 0.0.0.0 ARGS..."
    return "$MISTAKE"
}

# --- its workers

# ssh_once WORKER COMMAND [FLAGS...]: prints the command's output, then "@@code N". That line is missing if the connection
# failed.
ssh_once() {
    tpus tpu-vm ssh "$NAME" --worker="$1" --quiet --command="{ $2; } 2>&1; echo \"@@code \$?\"" \
        --ssh-flag="-o ConnectTimeout=30" --ssh-flag="-o ServerAliveInterval=15" --ssh-flag="-o ServerAliveCountMax=4" \
        "${@:3}" ${SSH_FLAGS[@]+"${SSH_FLAGS[@]}"}
}

# on_worker WORKER COMMAND: runs a command on a worker, and tries again while the worker does not answer.
on_worker() {
    local answer code tries ERRORS=$SCRATCH/error.$1
    for ((tries = 1; ; tries++)); do
        answer=$(ssh_once "$1" "$2") || true
        if [ -n "$DRY_RUN" ]; then return 0; fi
        code=$(sed -n 's/^@@code //p' <<<"$answer")
        if [ -n "$code" ]; then break; fi
        if [ "$tries" -ge "$SSH_TRIES" ] || ! slice_is_there; then return "$LOST"; fi
        sleep "$POLL_SECONDS"
    done
    grep -v '^@@code ' <<<"$answer" | sed "s/^/[$1] /" || true
    return "$code"
}

# on_all FUNCTION ARGS...: calls the function for all workers at the same time, with the worker's number as first argument.
on_all() {
    local worker failed="" code result=0 pids=()
    for ((worker = 0; worker < WORKERS; worker++)); do
        if [ -n "$DRY_RUN" ]; then
            "$1" "$worker" "${@:2}"
        else
            "$1" "$worker" "${@:2}" &
            pids+=($!)
        fi
    done
    for worker in ${pids[@]+"${!pids[@]}"}; do
        code=0
        wait "${pids[worker]}" || code=$?
        if [ "$code" -ne 0 ]; then
            failed="$failed $worker"
            if [ "$result" -eq 0 ] || [ "$code" -eq "$MISTAKE" ]; then result=$code; fi
        fi
    done
    if [ "$result" -eq "$LOST" ]; then
        REASON=$(no_answer "$failed")
    elif [ "$result" -ne 0 ]; then
        REASON="failed on worker$failed of $WORKERS; see above"
    fi
    return "$result"
}

# no_answer WORKERS: prints that these workers do not answer, with ssh's error for the first of them.
no_answer() {
    local first=${1# }
    local ERRORS=$SCRATCH/error.${first%% *}
    echo "no answer from worker$1 of $WORKERS: $(last_error)"
}

# --- jobs on them

job() { printf 'bash s1_jax/scripts/_tpu_job.sh %s' "$*"; }

# install: copies this checkout, without files that git ignores, to all workers and installs it.
install() {
    local code=0
    count_workers || return
    say "installing on $WORKERS workers"
    if [ -n "$DRY_RUN" ]; then
        show tar -czf checkout.tar.gz .
    else
        git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
            if [ -e "$file" ]; then printf '%s\0' "$file"; fi
        done | tar --null -T - -czf "$SCRATCH/checkout.tar.gz"
    fi
    # one worker first, because gcloud may have to make and publish an ssh key
    on_worker 0 true || {
        REASON=$(no_answer " 0")
        return "$LOST"
    }
    on_all copy_checkout && on_all on_worker "$(job start install bash scripts/_tpu_job.sh install)" || return
    follow install || code=$?
    case $code in
        0 | "$LOST" | "$MISTAKE" | "$INTERRUPTED") return $code ;;
    esac
    REASON="the installation failed with exit code $code"
    return "$AGAIN"
}

# copy_checkout WORKER
copy_checkout() {
    local tries ERRORS=$SCRATCH/error.$1
    for ((tries = 1; ; tries++)); do
        if tpus tpu-vm scp "$SCRATCH/checkout.tar.gz" "$NAME:s1_jax.tar.gz" --worker="$1" --quiet \
            ${SSH_FLAGS[@]+"${SSH_FLAGS[@]}"}; then break; fi
        if [ "$tries" -ge "$SSH_TRIES" ] || ! slice_is_there; then return "$LOST"; fi
        sleep "$POLL_SECONDS"
    done
    on_worker "$1" "mkdir -p s1_jax && tar -xzf s1_jax.tar.gz -C s1_jax"
}

# start COMMAND...: starts the command on all workers, unless it is already running there.
start() {
    local words code=0
    count_workers || return
    words=$(printf '%q ' "$@")
    on_all on_worker "$(job start run "${words% }")" || code=$?
    # workers that did start it must not wait for the others; MISTAKE means that another run is in progress
    if [ "$code" -ne 0 ] && [ "$code" -ne "$MISTAKE" ]; then
        local why=$REASON
        on_all on_worker "$(job stop run)" >/dev/null || true
        REASON=$why
    fi
    return "$code"
}

# follow JOB: prints the logs of all workers to their ends, with the worker's number before each line. Returns the first
# exit code that is not 0, or LOST if a worker stops answering.
follow() {
    local worker first lost=""
    rm -f "$SCRATCH"/ended.*
    if [ -n "$DRY_RUN" ]; then
        on_all follow_worker "$1"
        return
    fi
    set -m # each gets its own process group, so that it can be ended with its children
    for ((worker = 0; worker < WORKERS; worker++)); do
        follow_worker "$worker" "$1" &
        FOLLOWERS+=($!)
    done
    set +m
    wait "${FOLLOWERS[@]}" || true
    FOLLOWERS=()
    for ((worker = 0; worker < WORKERS; worker++)); do
        if [ ! -s "$SCRATCH/ended.$worker" ]; then lost="$lost $worker"; fi
    done
    first=$(cat "$SCRATCH"/ended.* 2>/dev/null | grep -v '^0 ' | sort -n -k 2 | head -n 1) || true
    if [ -n "$first" ]; then
        REASON="the run ended with exit code ${first%% *}"
        return "${first%% *}"
    elif [ -n "$lost" ]; then
        REASON=$(no_answer "$lost")
        return "$LOST"
    fi
}

# follow_worker WORKER JOB: prints a worker's log; after a broken connection, continues after the last line. The connection
# is the tunnel too, if there is one.
follow_worker() {
    local line from=1 silent=0 ERRORS=$SCRATCH/error.$1
    while [ "$silent" -lt "$SSH_TRIES" ]; do
        silent=$((silent + 1))
        while IFS= read -r line; do # an incomplete line is read again
            case $line in
                "@@ended "*) echo "${line#@@ended }" >"$SCRATCH/ended.$1" ;;
                "@@code "*) ;;
                *)
                    printf '[%s] %s\n' "$1" "$line"
                    from=$((from + 1)) silent=0
                    ;;
            esac
        done < <(ssh_once "$1" "$(job follow "$2" "$from")" ${TUNNEL[@]+"${TUNNEL[@]}"})
        if [ -n "$DRY_RUN" ] || [ -s "$SCRATCH/ended.$1" ]; then return; fi
        slice_is_there || return 0
        sleep "$POLL_SECONDS"
    done
}

# --- the supervisor

# progress RUN_DIR: prints what a run has saved there: its newest checkpoint and the size of its records. Orbax writes this
# file when a checkpoint in a bucket is complete.
progress() {
    local step records
    step=$(try gcloud storage ls "$1/checkpoints/*/commit_success.txt" | grep -oE '/[0-9]+/c' | tr -d /c | sort -n | tail -n 1) || true
    records=$(try gcloud storage du "$1/records*" | awk '{ sum += $1 } END { print sum + 0 }') || true
    echo "checkpoint ${step:-none}, ${records:-0} bytes of records"
}

# supervise RUN_DIR COMMAND...: repeats attempts until the run is finished or cannot be; then REASON says why.
supervise() {
    local run_dir=$1 code kept now fruitless=0 lost=0
    shift
    kept=$(progress "$run_dir")
    while :; do
        code=0
        attempt "$@" || code=$?
        case $code in
            0) return 0 ;;
            1) if [ -z "$RUN_STARTED" ]; then return 1; fi ;;
            "$MISTAKE")
                REASON="a mistake in the command or its data, which another try cannot fix (exit code 2; see above)"
                return "$code"
                ;;
            "$INTERRUPTED")
                REASON="the run was stopped by hand (exit code 130)"
                return "$code"
                ;;
        esac
        now=$(progress "$run_dir")
        fruitless=$((fruitless + 1))
        if [ "$now" != "$kept" ]; then fruitless=1; fi
        kept=$now
        if [ "$fruitless" -ge "$MAX_FRUITLESS" ]; then
            REASON="$REASON; $fruitless starts in a row have saved nothing new ($kept)"
            return "$code"
        fi
        # a slice that seems healthy but has not answered twice is replaced
        if [ "$code" -eq "$LOST" ]; then lost=$((lost + 1)); else lost=0; fi
        if [ "$lost" -ge 2 ] && [ "$(slice_state)" = ACTIVE ]; then
            delete_slice || return 1
            lost=0
        fi
        say "starting again: $REASON ($kept; $fruitless of $MAX_FRUITLESS starts without anything new)"
        sleep "$POLL_SECONDS"
    done
}

# attempt COMMAND...: creates, installs and runs, starting from the current state.
attempt() {
    local code=0
    RUN_STARTED=""
    make_slice && count_workers || return
    if [ -z "$INSTALLED" ]; then
        # a run in progress is followed; installing would change its files
        is_running || code=$?
        if [ "$code" -eq "$LOST" ]; then return "$LOST"; fi
        if [ "$code" -ne 0 ]; then install || return; fi
        INSTALLED=yes
    fi
    start "$@" || return
    RUN_STARTED=yes
    follow run
}

is_running() { [ -z "$DRY_RUN" ] && on_all on_worker "$(job status run) | grep '^running'" >/dev/null; }
