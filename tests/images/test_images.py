"""Images start as pods start them, and hold what they should and nothing else."""

from __future__ import annotations

import json
import os
import re
import time

import pytest

from tests.images.images import ALL, AS_IN_A_POD, SERVICES, WITH_PYTHON, docker, image, inspect, python, run
from tests.images.layers import layers_of, written_as_it_was

MEGABYTE = 10**6
ABOVE_BASE = {"scheduler": 150, "training": 150, "evaluation": 150, "deployment": 150, "statistics": 350, "gateway": 30}
"""Megabytes that an image may have above its base."""
BASE = os.environ.get("IMAGE_BASE", "python:3.12-slim-bookworm")


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_an_image_runs_as_a_user_without_rights(name: str) -> None:
    program = (
        "import os, getpass; print(os.getuid(), os.getgid(), getpass.getuser(), os.path.expanduser('~'), os.getcwd())"
    )

    assert python(name, program) == "10001 10001 daf /work /work"


@pytest.mark.parametrize("name", ALL)
def test_no_shell_starts_what_an_image_is_for(name: str) -> None:
    config = inspect(image(name))["Config"]

    assert config["User"] == "10001:10001"
    assert config["Entrypoint"][0].startswith("/")
    assert not {"sh", "bash", "-c"} & set(config["Entrypoint"])
    assert not config["Cmd"]


@pytest.mark.parametrize("name", ALL)
def test_labels_say_what_an_image_is_made_of(name: str) -> None:
    labels = inspect(image(name))["Config"]["Labels"]

    assert labels["org.opencontainers.image.title"] == f"daf-{name}"
    assert labels["org.opencontainers.image.version"] == image(name).rpartition(":")[2]
    assert re.match(r"[0-9a-f]{40}", labels["org.opencontainers.image.revision"])


@pytest.mark.parametrize("name", ABOVE_BASE)
def test_an_image_is_small(name: str) -> None:
    sizes = docker("history", "--human=false", "--format={{.Size}}", image(name)).stdout.split()
    *ours, _base = (int(size) for size in sizes if int(size))  # the base came as one layer, or as several

    assert sum(ours) <= ABOVE_BASE[name] * MEGABYTE


@pytest.mark.parametrize("name", SERVICES)
def test_the_image_of_a_service_has_no_learning_in_it(name: str) -> None:
    installed = python(
        name, "from importlib.metadata import distributions as d; print(*sorted(one.name.lower() for one in d()))"
    ).split()

    assert f"daf-{name}" in installed
    assert not {"torch", "cogames", "mettagrid", "pufferlib-core", "pytest", "uv", "pip"} & set(installed)
    assert not {f"daf-{other}" for other in SERVICES if other != name} & set(installed)


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_the_bill_of_materials_is_what_is_installed(name: str) -> None:
    bill = json.loads(python(name, "print(open('/usr/share/doc/daf/sbom.cdx.json').read())"))
    program = "from importlib.metadata import distributions as d; print(*(f'{one.name}=={one.version}' for one in d()))"
    installed = {re.sub(r"[-_.]+", "-", one).lower() for one in python(name, program).split()}

    root = bill["metadata"]["component"]["name"]
    listed = {f"{one['name']}=={one['version']}" for one in (*bill["components"], bill["metadata"]["component"])}
    named = {re.sub(r"[-_.]+", "-", one).lower() for one in listed if one.partition("==")[0] != "daf-workspace"}

    assert bill["bomFormat"] == "CycloneDX"
    assert root in (f"daf-{name}", "daf-cogames", "daf-workspace")
    assert any(one.startswith("grpcio==") for one in named)
    assert named == installed


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_nothing_of_the_build_is_left_in_an_image(name: str) -> None:
    program = """
import os
files = [os.path.join(folder, name) for top in ('/etc', '/opt', '/root', '/src', '/tools', '/tmp', '/var', '/work')
         for folder, _, names in os.walk(top) for name in names]
print([path for path in files if path.startswith(('/src', '/tools', '/root/.cache', '/work', '/tmp'))
       or path.endswith(('.whl', 'uv.lock', '.env', 'uv_cache.json', 'direct_url.json')) or '/.git/' in path
       or '/site-packages/daf' in path and '/tests/' in path])
"""
    assert python(name, program) == "[]"


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_our_code_is_compiled(name: str) -> None:
    program = """
import importlib.util, pathlib, sysconfig
sources = list(pathlib.Path(sysconfig.get_path('purelib')).glob('daf*/**/*.py'))
compiled = [pathlib.Path(importlib.util.cache_from_source(str(path))).exists() for path in sources]
print(bool(sources), [str(path) for path, there in zip(sources, compiled) if not there])
"""
    assert python(name, program) == "True []"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_brings_its_database_up_to_date(name: str) -> None:
    program = """
import os, subprocess
for time in ('first', 'second'):  # when there is nothing to do
    subprocess.run(['/opt/venv/bin/daf-service', 'migrate'], check=True)
print(*sorted(os.listdir('/work/state')))
"""
    assert f"{name}.db" in python(name, program).split()


@pytest.mark.parametrize("name", SERVICES)
def test_all_that_a_service_imports_is_in_its_image(name: str) -> None:
    program = f"""
import importlib, pkgutil, sys
import daf_common, daf_{name}
for package in (daf_common, daf_{name}):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):
        if '.migrations' not in module.name:
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                # Those that start no workloads do without the client of Kubernetes.
                assert module.name.startswith('daf_common.kube') and {name not in ("training", "evaluation")}, error
print('torch' in sys.modules)
"""
    assert python(name, program) == "False"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deployment", "scheduler", "gateway"])
def test_a_layer_holds_nothing_that_is_as_it_was(name: str) -> None:
    assert written_as_it_was(image(name), BASE) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deployment", "gateway"])
def test_an_unchanged_tree_gives_unchanged_layers(name: str) -> None:
    image(name)  # or skip
    kind = "service" if name in SERVICES else name
    flags = [
        *os.environ.get("DOCKER_BUILD_FLAGS", "").split(),
        f"--build-arg=BASE={BASE}",
        f"--build-arg=SERVICE={name}",
    ]
    build = ("build", "--quiet", *flags, f"--file=docker/{kind}.Dockerfile")
    cached, anew = (docker(*build, *more, ".").stdout.strip() for more in ((), ("--no-cache",)))

    # Not by their digests: Docker's older store lists a layer's files in one of two orders, by what it shares.
    assert list(layers_of(anew)) == list(layers_of(cached))


def test_a_worker_without_a_verb_says_what_it_wants() -> None:
    done = run("runner", check=False)

    assert done.returncode == 2
    assert "usage: daf-runner train|evaluate" in done.stderr


def test_a_worker_plays_and_learns_on_a_root_that_it_cannot_write() -> None:
    program = (
        "import torch, cogames, daf_cogames.training.worker, daf_cogames.evaluation.worker; print(torch.__version__)"
    )

    assert python("runner", program).startswith("2.")


def test_everything_in_one_container_plays_an_evaluation() -> None:
    name = image("standalone")
    tmpfs = "--tmpfs=/work:uid=10001,gid=10001,exec"
    container = docker("run", "--detach", "--rm", *AS_IN_A_POD[:2], tmpfs, *AS_IN_A_POD[3:], name).stdout.strip()
    try:
        deadline = time.monotonic() + 240
        while "serving on" not in docker("logs", container).stderr + docker("logs", container).stdout:
            assert time.monotonic() < deadline, docker("logs", container)
            time.sleep(0.2)
        command = "daf evaluate -p random -m cogsguard_machina_1.miner_tutorial --cogs 2 --steps 20 --episodes 2"
        played = docker("exec", container, *command.split())
    finally:
        docker("rm", "--force", container, check=False)

    assert "random" in played.stdout


def test_the_gateway_has_what_its_configuration_needs() -> None:
    done = run("gateway", "-V")

    assert "--with-http_v2_module" in done.stderr
    assert "--with-http_ssl_module" in done.stderr
    assert "--without-http_grpc_module" not in done.stderr
