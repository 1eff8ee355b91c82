#!/usr/bin/env bash
# `make e2e`: the whole product on the cluster that KUBECONFIG names. IMAGE_PREFIX is a registry that the container engine
# here may push to and the cluster pulls from; IMAGE_TAG is worked out from the tree unless given. E2E_ADDRESS: where the
# gateway is found, if no port of a node can be reached from here. Further arguments are for pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${KUBECONFIG:?names no cluster: set it to the kubeconfig of one}"
: "${IMAGE_PREFIX:?names no registry: set it to one that the cluster pulls from, such as registry.example.com/team}"

changes=$({ git diff HEAD; git status --porcelain; } | sha1sum | cut -c1-8)
tag=${IMAGE_TAG:-$(git rev-parse --short=12 HEAD)$([ -z "$(git status --porcelain)" ] || echo "-$changes")}
make --no-print-directory images PUSH=1 IMAGE_TAG="$tag"
backing=$IMAGE_PREFIX/daf-test-backing:$tag
docker build --quiet ${DOCKER_BUILD_FLAGS-} --file tests/e2e_cluster/backing.Dockerfile --tag "$backing" tests/e2e_cluster
docker push --quiet "$backing"

# The version that is upgraded: its chart, code and locked dependencies, from the history; built as images are now, so that
# dependencies that have not changed are there already.
earlier=$(cat tests/earlier_version)
if git cat-file -e "$earlier^{commit}" 2>/dev/null; then
    source=$(mktemp -d)
    trap 'rm -rf "$source"' EXIT
    git archive "$earlier" | tar --extract --directory "$source"
    rm -r "$source/docker"
    cp --recursive docker "$source/docker"
    export E2E_EARLIER_SOURCE=$source E2E_EARLIER_TAG=${earlier:0:12}
    make --no-print-directory --directory "$source" images PUSH=1 IMAGE_TAG="$E2E_EARLIER_TAG" REVISION="$earlier" \
        IMAGES="scheduler training evaluation statistics deployment gateway runner"
fi
E2E_IMAGE_PREFIX=$IMAGE_PREFIX E2E_IMAGE_TAG=$tag .venv/bin/pytest tests/e2e_cluster -v -rs --capture=no --exitfirst "$@"
