#!/usr/bin/env bash
# Starts the JobManager here and the TaskManagers of conf/workers (or the older conf/slaves): those of other hosts over
# SSH, where Millstream must be in the same folder.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/config.sh"

[[ -z $(running jobmanager) ]] || die "a JobManager runs here already; bin/stop-cluster.sh ends it"
"$MILLSTREAM_HOME/bin/jobmanager.sh" start "$@"
workers=$(workers)
[[ -n $workers ]] || echo "No host is named in $MILLSTREAM_CONF_DIR/workers: there are no TaskManagers." >&2
failed=0
for host in $workers; do
  on_host "$host" taskmanager.sh start "$@" || failed=1
done
exit $failed
