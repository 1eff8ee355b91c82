#!/usr/bin/env bash
# Installs what some tests use and pip cannot give, from Debian's packages: Prometheus with promtool, and nginx. Without them
# those tests are skipped, and say so.
set -euo pipefail
if command -v prometheus >/dev/null && command -v promtool >/dev/null && command -v nginx >/dev/null; then exit; fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "install Prometheus (with promtool) and nginx yourself: this can only do it by apt-get, as root" >&2
    exit 1
fi
apt-get update -qq
# The packages start servers of their own where there is an init system: those of the tests are others.
DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq -y --no-install-recommends prometheus nginx >/dev/null
prometheus --version 2>&1 | head -1
nginx -v
