#!/usr/bin/env bash
# Stops what start-cluster.sh has started.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/config.sh"

workers=$(hosts_in "$MILLSTREAM_CONF_DIR/workers")
[[ -n $workers ]] || workers=$(hosts_in "$MILLSTREAM_CONF_DIR/slaves")
for host in $(sort -u <<<"$workers"); do
  if is_local "$host"; then
    "$MILLSTREAM_HOME/bin/taskmanager.sh" stop-all
  else
    ssh ${MILLSTREAM_SSH_OPTS:-} "$host" "$(printf '%q ' "$MILLSTREAM_HOME/bin/taskmanager.sh" stop-all)" </dev/null
  fi
done
"$MILLSTREAM_HOME/bin/jobmanager.sh" stop-all
