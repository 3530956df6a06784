#!/usr/bin/env bash
# Starts or stops a TaskManager on this host: taskmanager.sh start|start-foreground [-Dkey=value]... | stop | stop-all
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/config.sh"
control taskmanager "$@"
