#!/usr/bin/env bash
# Starts or stops a JobManager for one application on this host, whose executable is in usrlib/:
# standalone-job.sh start|start-foreground [-Dkey=value]... [--artifact NAME] [ARGS]... | stop | stop-all
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/config.sh"
control standalone-job "$@"
