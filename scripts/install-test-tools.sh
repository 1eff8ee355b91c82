#!/usr/bin/env bash
# Installs what some tests use and pip cannot give: Prometheus with promtool, from Debian's package. Without it those tests
# are skipped, and say so.
set -euo pipefail
if command -v prometheus >/dev/null && command -v promtool >/dev/null; then exit; fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "install Prometheus (with promtool) yourself: this can only do it by apt-get, as root" >&2
    exit 1
fi
apt-get update -qq
# The package starts a server of its own where there is an init system: that of the tests is another.
DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq -y --no-install-recommends prometheus >/dev/null
prometheus --version 2>&1 | head -1
