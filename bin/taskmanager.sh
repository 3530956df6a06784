#!/usr/bin/env bash
# Starts or stops a TaskManager on this host: taskmanager.sh start|stop|stop-all|start-foreground [-Dkey=value]...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/config.sh"
kind=$(basename "$0" .sh)

verb=${1:-}
shift || true
case $verb in
  start) start "$kind" "$@" ;;
  start-foreground)
    find_program
    exec "$MILLSTREAM_BIN" "$kind" "$@"
    ;;
  stop) stop "$kind" newest ;;
  stop-all) stop "$kind" all ;;
  *)
    echo "usage: $(basename "$0") start|start-foreground [-Dkey=value]... | stop | stop-all" >&2
    exit 2
    ;;
esac
