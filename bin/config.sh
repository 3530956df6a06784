# What the scripts beside this one share. Sourced, not run.
#
#   MILLSTREAM_HOME      the folder with bin/ and conf/
#   MILLSTREAM_CONF_DIR  config.yaml, masters, workers
#   MILLSTREAM_BIN       the program `millstream`
#   MILLSTREAM_LOG_DIR   logs; without it env.log.dir of the configuration
#   MILLSTREAM_PID_DIR   which processes run; without it env.pid.dir
#   MILLSTREAM_SSH_OPTS  options of ssh; without it env.ssh.opts

MILLSTREAM_HOME=${MILLSTREAM_HOME:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)}
export MILLSTREAM_CONF_DIR=${MILLSTREAM_CONF_DIR:-$MILLSTREAM_HOME/conf}

die() {
  echo "error: $*" >&2
  exit 1
}

# The program: named, installed beside this file, or built here.
find_program() {
  program_is_there ||
    die "the program 'millstream' is neither in $MILLSTREAM_HOME/bin nor built (cargo build --release -p millstream-cli);" \
      "MILLSTREAM_BIN can name it"
}

program_is_there() {
  local place
  for place in "${MILLSTREAM_BIN:-}" "$MILLSTREAM_HOME/bin/millstream" \
    "${CARGO_TARGET_DIR:-$MILLSTREAM_HOME/target}/release/millstream"; do
    if [[ -n $place && -x $place ]]; then
      MILLSTREAM_BIN=$place
      return
    fi
  done
  return 1
}

# Takes from the configuration what no variable says.
configure() {
  local log='' pid='' ssh='' values
  if program_is_there; then
    values=$("$MILLSTREAM_BIN" config env.log.dir env.pid.dir env.ssh.opts) || die "the configuration cannot be used"
    { read -r log && read -r pid && read -r ssh; } <<<"$values" || true
  fi
  MILLSTREAM_LOG_DIR=${MILLSTREAM_LOG_DIR:-${log:-$MILLSTREAM_HOME/log}}
  MILLSTREAM_PID_DIR=${MILLSTREAM_PID_DIR:-${pid:-${TMPDIR:-/tmp}/millstream-$(id -u)}}
  MILLSTREAM_SSH_OPTS=${MILLSTREAM_SSH_OPTS:-$ssh}
}

# Lines of a file without comments and blanks.
hosts_in() {
  [[ -r $1 ]] || return 0
  sed -e 's/#.*//' -e 's/[[:space:]]//g' "$1" | grep -v '^$' || true
}

# The hosts of TaskManagers, once for each TaskManager.
workers() {
  local named
  named=$(hosts_in "$MILLSTREAM_CONF_DIR/workers")
  [[ -n $named ]] || named=$(hosts_in "$MILLSTREAM_CONF_DIR/slaves")
  echo "$named"
}

# Runs a script of this folder on a host. One that cannot be reached is not waited for by the others; it is named, and the
# status is not 0.
on_host() {
  local host=$1 script=$MILLSTREAM_HOME/bin/$2 name=$2
  shift 2
  if is_local "$host"; then
    "$script" "$@"
  else
    # shellcheck disable=SC2086 # they are several words
    ssh $MILLSTREAM_SSH_OPTS "$host" "$(printf '%q ' "$script" "$@")" </dev/null
  fi || {
    echo "error: $name $1 has failed on $host" >&2
    return 1
  }
}

is_local() {
  [[ $1 == localhost || $1 == 127.0.0.1 || $1 == ::1 || $1 == "$(uname -n)" ]]
}

# The processes of a kind that were started here and still run, one per line, oldest first: process, start time, number of
# its log. What has ended is forgotten.
running() {
  local file=$MILLSTREAM_PID_DIR/$1.pid pid started number kept=''
  [[ -r $file ]] || return 0
  while read -r pid started number; do
    if [[ -n $started && $(start_time "$pid") == "$started" ]]; then
      kept+="$pid $started $number"$'\n'
    fi
  done <"$file"
  printf '%s' "$kept" >"$file"
  printf '%s' "$kept"
}

# When a process was started, in the kernel's count: ids of processes are used again, and this tells them apart. Nothing if
# it has ended, also if nobody has looked at its exit status yet.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  # The name, in parentheses, may have blanks.
  set -- ${stat##*) }
  [[ $1 == [ZX] ]] || echo "${20}"
}

# Moves what a process has printed out of the way: out.1 is the last one, out.5 the oldest that is kept.
keep_older() {
  local number
  for number in 4 3 2 1; do
    [[ ! -e $1.$number ]] || mv "$1.$number" "$1.$((number + 1))"
  done
  [[ ! -e $1 ]] || mv "$1" "$1.1"
}

# Starts a process of a kind in the background and waits until it says that it is ready.
start() {
  local kind=$1 log out pid tries
  shift
  find_program
  mkdir -p "$MILLSTREAM_LOG_DIR" "$MILLSTREAM_PID_DIR"
  chmod 700 "$MILLSTREAM_PID_DIR"
  # The first that no running process writes to.
  local number=0 taken
  taken=$(running "$kind" | cut -d' ' -f3)
  while grep -qx "$number" <<<"$taken"; do
    number=$((number + 1))
  done
  # What it logs, which it divides into files of limited size itself, and what it prints.
  log=$MILLSTREAM_LOG_DIR/millstream-$(id -un)-$kind-$number-$(uname -n).log
  out=${log%.log}.out
  keep_older "$out"
  (cd "$MILLSTREAM_HOME" && MILLSTREAM_LOG_FILE=$log exec setsid "$MILLSTREAM_BIN" "$kind" "$@" >"$out" 2>&1 </dev/null) &
  pid=$!
  for ((tries = 0; tries < 1000; tries++)); do
    if grep -qE '^(JobManager: clients|TaskManager: registered)' "$out" 2>/dev/null; then
      echo "$pid $(start_time "$pid") $number" >>"$MILLSTREAM_PID_DIR/$kind.pid"
      echo "Started $kind, process $pid; its log is $log"
      return
    fi
    kill -0 "$pid" 2>/dev/null || die "the $kind has ended at once:"$'\n'"$(tail -n 5 "$out")"
    # A TaskManager may be told to wait for a JobManager that comes later.
    if [[ $kind == taskmanager && $tries -ge 200 ]]; then
      echo "$pid $(start_time "$pid") $number" >>"$MILLSTREAM_PID_DIR/$kind.pid"
      echo "Started $kind, process $pid; it waits for its JobManager, see $log"
      return
    fi
    sleep 0.01
  done
  kill "$pid" 2>/dev/null
  die "the $kind has not become ready within 10 s; see $log and $out"
}

# Ends processes of a kind: the newest, or all.
stop() {
  local kind=$1 which=$2 pids pid rest tries
  pids=$(running "$kind" | cut -d' ' -f1)
  [[ $which == all ]] || pids=$(tail -n 1 <<<"$pids")
  if [[ -z $pids ]]; then
    echo "No $kind runs here."
    return
  fi
  for pid in $pids; do
    kill "$pid" 2>/dev/null || true
  done
  for pid in $pids; do
    for ((tries = 0; tries < 1000; tries++)); do
      [[ -n $(start_time "$pid") ]] || break
      sleep 0.01
    done
    if [[ -n $(start_time "$pid") ]]; then
      echo "The $kind $pid does not end; it is killed." >&2
      kill -9 "$pid" 2>/dev/null || true
    fi
    echo "Stopped $kind, process $pid"
  done
  running "$kind" >/dev/null
}

# What jobmanager.sh and taskmanager.sh do: control KIND start|start-foreground|stop|stop-all [-Dkey=value]...
control() {
  local kind=$1 verb=${2:-}
  shift $(($# < 2 ? $# : 2))
  case $verb in
    start) start "$kind" "$@" ;;
    start-foreground)
      find_program
      exec "$MILLSTREAM_BIN" "$kind" "$@"
      ;;
    stop) stop "$kind" newest ;;
    stop-all) stop "$kind" all ;;
    *)
      echo "usage: $kind.sh start|start-foreground [-Dkey=value]... | stop | stop-all" >&2
      exit 2
      ;;
  esac
}

configure
