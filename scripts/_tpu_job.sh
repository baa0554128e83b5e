#!/usr/bin/env bash
# Runs on a worker of a TPU slice, called by tpu.sh over ssh, and manages jobs that outlive the connection.
#   start NAME COMMAND...   starts the job in the checkout, unless the same command is running
#   follow NAME LINE        prints its log from this line to its end, then a line "@@ended CODE TIME"
#   status NAME             prints its state in one line
#   stop NAME               sends Ctrl-C to it
#   install                 installs the project for TPU into .venv (runs as a job too)
# A job is a folder, ~/s1_jax_jobs/NAME, with the files command, pid, log and, after its end, exit (code and time).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/_venv.sh
source scripts/_venv.sh

JOBS=${HOME:?}/s1_jax_jobs

# enter NAME: sets the paths of the job's files.
enter() {
    folder=$JOBS/$1
    command_file=$folder/command pid_file=$folder/pid log=$folder/log exit_file=$folder/exit
}

# is_running: succeeds if the job's process runs; after a reboot its pid may belong to another process.
is_running() {
    local pid
    [ -f "$pid_file" ] && [ ! -f "$exit_file" ] && read -r pid <"$pid_file" &&
        grep --quiet --no-messages --null-data --line-regexp "scripts/_tpu_job.sh" "/proc/$pid/cmdline"
}

start() {
    local name=$1 wanted
    enter "$name"
    mkdir -p "$folder"
    wanted=$(printf '%q ' "${@:2}")
    if is_running; then
        [ "$(cat "$command_file")" = "$wanted" ] || die "another command is running here: $(cat "$command_file")"
        return
    fi
    if [ -f "$log" ]; then mv "$log" "$log.before"; fi
    rm -f "$exit_file"
    printf '%s\n' "$wanted" >"$command_file"
    setsid bash scripts/_tpu_job.sh run "$@" >"$log" 2>&1 </dev/null &
    echo $! >"$pid_file"
}

# run NAME COMMAND...: the process that stays. It ignores the command's signals, so that it can save the exit code.
run() {
    local code=0
    enter "$1"
    trap '' HUP INT TERM
    env --default-signal=INT,TERM "${@:2}" || code=$?
    echo "$code $(date +%s.%N)" >"$exit_file.part"
    mv "$exit_file.part" "$exit_file"
}

# ended: prints "CODE TIME" of a job that has ended; without a saved code it was killed, or the machine was restarted.
ended() {
    cat "$exit_file" 2>/dev/null || echo "137 $(date +%s.%N)"
}

follow() {
    local line=$2 count over=""
    enter "$1"
    [ -f "$log" ] || die "no job '$1' was started here"
    while [ -z "$over" ]; do
        is_running || over=yes # checked before the log is read, so that no line is missed
        count=$(wc -l <"$log")
        if [ "$count" -ge "$line" ]; then sed -n "$line,${count}p" "$log"; fi
        line=$((count >= line ? count + 1 : line))
        [ -n "$over" ] || sleep "${TPU_FOLLOW_SECONDS:-1}"
    done
    tail -n "+$line" "$log" | grep . || true # a last line without a newline
    echo "@@ended $(ended)"
}

status() {
    enter "$1"
    if [ ! -f "$pid_file" ]; then
        echo "nothing was started"
    elif is_running; then
        echo "running; last line: $(tail -n 1 "$log")"
    else
        echo "ended with exit code $(ended | cut -d ' ' -f 1); last line: $(tail -n 1 "$log")"
    fi
}

stop() {
    enter "$1"
    if is_running; then kill -INT -- "-$(cat "$pid_file")"; fi
}

# The images have Python 3.10, which is too old; uv installs a newer one.
install() {
    if ! is_supported .venv/bin/python && ! (find_python) >/dev/null 2>&1; then
        say "Installing Python 3.12."
        python3 -m pip install --quiet --user uv
        python3 -m uv venv --quiet --seed --clear --python 3.12 .venv
    fi
    ensure_venv base tpu gcs serve
    say "Installed."
}

"$@"
