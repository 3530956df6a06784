#!/usr/bin/env bash
# Stops what start-cluster.sh has started.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/config.sh"

failed=0
for host in $(workers | sort -u); do
  on_host "$host" taskmanager.sh stop-all || failed=1
done
"$MILLSTREAM_HOME/bin/jobmanager.sh" stop-all
exit $failed
