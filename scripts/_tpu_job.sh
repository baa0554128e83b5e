#!/usr/bin/env bash
# Runs on a worker of a TPU slice, called by tpu.sh over ssh: a job that outlives the connection which starts it.
#   start NAME COMMAND...   starts it in the checkout, unless the same is under way
#   follow NAME LINE        its log from this line to its end, then a line "@@ended CODE TIME"
#   status NAME             one line
#   stop NAME               Ctrl-C to it
#   install                 the project into .venv, for TPU (a job too)
# A job is a folder, ~/s1_jax_jobs/NAME: command, pid, log, and once it has ended `exit`, its code and when.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/_venv.sh
source scripts/_venv.sh

JOBS=${HOME:?}/s1_jax_jobs

# enter NAME: names the files of the job.
enter() {
    folder=$JOBS/$1
    command_file=$folder/command pid_file=$folder/pid log=$folder/log exit_file=$folder/exit
}

# under_way: whether its process runs; after a reboot the number may be another's.
under_way() {
    local pid
    [ -f "$pid_file" ] && [ ! -f "$exit_file" ] && read -r pid <"$pid_file" &&
        grep --quiet --no-messages --null-data --line-regexp "scripts/_tpu_job.sh" "/proc/$pid/cmdline"
}

start() {
    local name=$1 wanted
    enter "$name"
    mkdir -p "$folder"
    wanted=$(printf '%q ' "${@:2}")
    if under_way; then
        [ "$(cat "$command_file")" = "$wanted" ] || die "another command is under way here: $(cat "$command_file")"
        return
    fi
    if [ -f "$log" ]; then mv "$log" "$log.before"; fi
    rm -f "$exit_file"
    printf '%s\n' "$wanted" >"$command_file"
    setsid bash scripts/_tpu_job.sh run "$@" >"$log" 2>&1 </dev/null &
    echo $! >"$pid_file"
}

# run NAME COMMAND...: the process that stays. It ignores the signals that the command gets, to note how that ends.
run() {
    local code=0
    enter "$1"
    trap '' HUP INT TERM
    env --default-signal=INT,TERM "${@:2}" || code=$?
    echo "$code $(date +%s.%N)" >"$exit_file.part"
    mv "$exit_file.part" "$exit_file"
}

# ended: "CODE TIME" of a job that is over; one that left no code was killed, or its machine was started again.
ended() {
    cat "$exit_file" 2>/dev/null || echo "137 $(date +%s.%N)"
}

follow() {
    local line=$2 count over=""
    enter "$1"
    [ -f "$log" ] || die "nothing named '$1' was started here"
    while [ -z "$over" ]; do
        under_way || over=yes # asked before the log is read, so that nothing written till then is missed
        count=$(wc -l <"$log")
        if [ "$count" -ge "$line" ]; then sed -n "$line,${count}p" "$log"; fi
        line=$((count >= line ? count + 1 : line))
        [ -n "$over" ] || sleep "${TPU_FOLLOW_SECONDS:-1}"
    done
    tail -n "+$line" "$log" | grep . || true # a last line that was not ended
    echo "@@ended $(ended)"
}

status() {
    enter "$1"
    if [ ! -f "$pid_file" ]; then
        echo "nothing was started"
    elif under_way; then
        echo "under way; last line: $(tail -n 1 "$log")"
    else
        echo "ended with exit code $(ended | cut -d ' ' -f 1); last line: $(tail -n 1 "$log")"
    fi
}

stop() {
    enter "$1"
    if under_way; then kill -INT -- "-$(cat "$pid_file")"; fi
}

# The images have Python 3.10, which is too old: uv brings one that fits.
install() {
    if ! is_supported .venv/bin/python && ! (find_python) >/dev/null 2>&1; then
        say "Bringing Python 3.12."
        python3 -m pip install --quiet --user uv
        python3 -m uv venv --quiet --seed --clear --python 3.12 .venv
    fi
    ensure_venv base tpu gcs
    say "Installed."
}

"$@"
