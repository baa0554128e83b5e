# shellcheck shell=bash
# Sourced by tpu.sh: the slice, its workers, and jobs on them. Names in capitals are tpu.sh's options.
#
# A function that fails sets REASON, one line. Its return code: LOST where the slice is gone or a worker does not answer,
# AGAIN where another try may help, MISTAKE and INTERRUPTED as everywhere, 1 where trying again would not help.
LOST=69 AGAIN=75 MISTAKE=2 INTERRUPTED=130
REASON="" # why the last thing failed
INSTALLED="" # whether this slice has this checkout
FOLLOWERS=() # processes that follow a worker each

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit "$MISTAKE"
}

# try COMMAND...: runs it; with --dry-run prints it instead. What it says on standard error is kept in $ERRORS.
try() {
    if [ -n "$DRY_RUN" ]; then
        show "$@"
        return
    fi
    "$@" 2>"$ERRORS" </dev/null
}

# last_error: the line of $ERRORS that says what went wrong.
last_error() { grep -m 1 ERROR "$ERRORS" || grep . "$ERRORS" | tail -n 1 || true; }

error_matches() { grep -qiE "$1" "$ERRORS"; }

show() {
    local words
    words=$(printf '%q ' "$@")
    printf '%s\n' "${words% }" >&3
}

# --- the slice: one queued resource, with one node of the same name

tpus() { try gcloud compute tpus "$@" --project="$PROJECT" --zone="$ZONE"; }

# slice_state: prints the request's state; NONE where there is none, GONE where its node is, UNKNOWN where gcloud does not
# say, REFUSED where it will not.
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

# make_slice: asks for the slice where there is none, replaces one that is gone, and waits until it is there.
make_slice() {
    local state
    state=$(slice_state)
    case $state in
        ACTIVE) return 0 ;;
        NONE) ;;
        GONE | SUSPENDING | SUSPENDED | FAILED)
            say "$NAME is $state: asking for it anew"
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
    say "asking for $TYPE in $ZONE${SPOT:+ (spot)} as $NAME"
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
                REASON="$NAME was taken away while it was set up ($state)"
                return "$LOST"
                ;;
            FAILED)
                REASON=$(tpus queued-resources describe "$NAME" --format="value(state.failedData.error.message)") || true
                REASON="the request failed: ${REASON:-no reason given}"
                return "$AGAIN"
                ;;
        esac
        if [ "$state" = REFUSED ] || [ "$unknown" -ge "$SSH_TRIES" ]; then
            REASON="gcloud does not say how $NAME is: $(last_error)"
            return 1
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            REASON="$NAME is still $state after $WAIT_SECONDS s (--wait-seconds)"
            return 1
        fi
        sleep "$POLL_SECONDS"
    done
}

# delete_slice: the node and the request; fails unless both are gone.
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
            REASON="$NAME could not be deleted, it is $state and may be billed: $(last_error)"
            return 1
        fi
        sleep "$POLL_SECONDS"
        tpus queued-resources delete "$NAME" --force --quiet || true
    done
}

# count_workers: sets WORKERS. Dry, the number that such a slice has.
count_workers() {
    local addresses number=${TYPE##*-}
    addresses=$(tpus tpu-vm describe "$NAME" --flatten="networkEndpoints[]" --format="value(networkEndpoints.ipAddress)") || true
    WORKERS=$(grep -c . <<<"$addresses") || true
    if [ -n "$DRY_RUN" ]; then
        case $TYPE in
            v5p-*) WORKERS=$(((number + 7) / 8)) ;; # two cores a chip, four chips a host
            *-*) WORKERS=$((number <= 8 ? 1 : number / 4)) ;;
            *) WORKERS=1 ;;
        esac
    elif [ "$WORKERS" -eq 0 ]; then
        REASON="$NAME has no workers: $(last_error)"
        return "$LOST"
    fi
}

# --- its workers

# ssh_once WORKER COMMAND: what it prints, then "@@code N". Without that line the worker did not answer, or the connection broke.
ssh_once() {
    tpus tpu-vm ssh "$NAME" --worker="$1" --quiet --command="{ $2; } 2>&1; echo \"@@code \$?\"" \
        --ssh-flag="-o ConnectTimeout=30" --ssh-flag="-o ServerAliveInterval=15" --ssh-flag="-o ServerAliveCountMax=4" \
        ${SSH_FLAGS[@]+"${SSH_FLAGS[@]}"}
}

# on_worker WORKER COMMAND: repeated while the worker does not answer.
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

# on_all FUNCTION ARGS...: the function with each worker's number before the arguments, at the same time.
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
        REASON="failed on worker$failed of $WORKERS, see above"
    fi
    return "$result"
}

# no_answer WORKERS: the sentence for it, with what ssh said of the first of them.
no_answer() {
    local first=${1# }
    local ERRORS=$SCRATCH/error.${first%% *}
    echo "no answer from worker$1 of $WORKERS: $(last_error)"
}

# --- jobs on them

job() { printf 'bash s1_jax/scripts/_tpu_job.sh %s' "$*"; }

# install: this checkout, as it is here (what git ignores stays), on every worker.
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
    # one alone first: gcloud may have to make an ssh key and to publish it
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

# start COMMAND...: on every worker. A run that is under way with the same command is left alone.
start() {
    local words code=0
    count_workers || return
    words=$(printf '%q ' "$@")
    on_all on_worker "$(job start run "${words% }")" || code=$?
    # where some did start it, they shall not wait for the others; a mistake is that another run is under way
    if [ "$code" -ne 0 ] && [ "$code" -ne "$MISTAKE" ]; then
        local why=$REASON
        on_all on_worker "$(job stop run)" >/dev/null || true
        REASON=$why
    fi
    return "$code"
}

# follow JOB: all workers' logs, each line after its worker's number, to the end. Returns the first code that is not 0,
# LOST where a worker does not answer any more.
follow() {
    local worker first lost=""
    rm -f "$SCRATCH"/ended.*
    if [ -n "$DRY_RUN" ]; then
        on_all follow_worker "$1"
        return
    fi
    set -m # each in a process group of its own, so that it can be ended with all it started
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
        REASON="it ended with exit code ${first%% *}"
        return "${first%% *}"
    elif [ -n "$lost" ]; then
        REASON=$(no_answer "$lost")
        return "$LOST"
    fi
}

# follow_worker WORKER JOB: a connection that breaks is made again and goes on at the line after the last.
follow_worker() {
    local line from=1 silent=0 ERRORS=$SCRATCH/error.$1
    while [ "$silent" -lt "$SSH_TRIES" ]; do
        silent=$((silent + 1))
        while IFS= read -r line; do # a line without its end is read again
            case $line in
                "@@ended "*) echo "${line#@@ended }" >"$SCRATCH/ended.$1" ;;
                "@@code "*) ;;
                *)
                    printf '[%s] %s\n' "$1" "$line"
                    from=$((from + 1)) silent=0
                    ;;
            esac
        done < <(ssh_once "$1" "$(job follow "$2" "$from")")
        if [ -n "$DRY_RUN" ] || [ -s "$SCRATCH/ended.$1" ]; then return; fi
        slice_is_there || return 0
        sleep "$POLL_SECONDS"
    done
}

# --- the supervisor

# progress RUN_DIR: what a run has kept there, as one line: its newest checkpoint and the size of its records. A checkpoint in a bucket is whole
# when this file of Orbax's is there.
progress() {
    local step records
    step=$(try gcloud storage ls "$1/checkpoints/*/commit_success.txt" | grep -oE '/[0-9]+/c' | tr -d /c | sort -n | tail -n 1) || true
    records=$(try gcloud storage du "$1/records*" | awk '{ sum += $1 } END { print sum + 0 }') || true
    echo "checkpoint ${step:-none}, ${records:-0} bytes of records"
}

# supervise RUN_DIR COMMAND...: until the run is finished, or cannot be. REASON says why not.
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
                REASON="a mistake in the command or its data, which no other try mends (exit code 2, see above)"
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
            REASON="$REASON; $fruitless starts in a row have kept nothing new ($kept)"
            return "$code"
        fi
        # a slice that looks well but has twice not answered is replaced
        if [ "$code" -eq "$LOST" ]; then lost=$((lost + 1)); else lost=0; fi
        if [ "$lost" -ge 2 ] && [ "$(slice_state)" = ACTIVE ]; then
            delete_slice || return 1
            lost=0
        fi
        say "again, because $REASON ($kept; $fruitless of $MAX_FRUITLESS starts without anything new)"
        sleep "$POLL_SECONDS"
    done
}

# attempt COMMAND...: everything that a run needs, from wherever things stand.
attempt() {
    local code=0
    RUN_STARTED=""
    make_slice && count_workers || return
    if [ -z "$INSTALLED" ]; then
        # a run that is under way is followed: installing would change the files beneath it
        run_is_under_way || code=$?
        if [ "$code" -eq "$LOST" ]; then return "$LOST"; fi
        if [ "$code" -ne 0 ]; then install || return; fi
        INSTALLED=yes
    fi
    start "$@" || return
    RUN_STARTED=yes
    follow run
}

run_is_under_way() { [ -z "$DRY_RUN" ] && on_all on_worker "$(job status run) | grep '^under way'" >/dev/null; }
