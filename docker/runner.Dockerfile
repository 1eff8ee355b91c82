# Two images on the same large layers: the worker program with cogames and torch (--target runner), and everything: the
# five services in one process, the client and the worker program (--target standalone). Layers by size and by how often they
# change; our own code is the last.
ARG BASE=python:3.12-slim-bookworm

# uv as uv.lock has it, and what installs by it.
FROM ${BASE} AS lock
COPY uv.lock /
RUN python -c 'import tomllib; print("uv==" + next(p["version"] for p in tomllib.load(open("/uv.lock", "rb"))["package"] if p["name"] == "uv"))' >/uv.txt

FROM ${BASE} AS tools
COPY --from=lock /uv.txt /
RUN pip install --quiet --root-user-action=ignore --no-compile --target /tools --requirement /uv.txt
COPY docker/install.py /tools/bin/

# The workspace: once without the code, so that no change of it reaches the layers of what we depend on.
FROM ${BASE} AS workspace
COPY . /src
RUN mkdir /manifests && cd /src && cp --parents pyproject.toml uv.lock libs/*/pyproject.toml services/*/pyproject.toml /manifests

FROM tools AS requirements
ENV PATH=/tools/bin:${PATH}
COPY --from=workspace /manifests /src
COPY docker/locked /tools/bin/
WORKDIR /src
RUN sh /tools/bin/locked daf-cogames runner >/all.txt \
    && mkdir /cudnn /cuda /torch /others /more \
    && grep -E '^nvidia-(cudnn|cusparselt|nccl)-' /all.txt >/cudnn/requirements.txt \
    && grep -E '^nvidia-.*-cu[0-9]+=' /all.txt | grep -vxFf /cudnn/requirements.txt >/cuda/requirements.txt \
    && grep -E '^(torch|triton)=' /all.txt >/torch/requirements.txt \
    && cat /cudnn/* /cuda/* /torch/* | grep -vxFf - /all.txt >/others/requirements.txt \
    && sh /tools/bin/locked daf-workspace | grep -vxFf /all.txt >/more/requirements.txt

FROM tools AS own
ENV PATH=/tools/bin:${PATH}
COPY --from=workspace /src /src
COPY docker/own docker/sbom.py /tools/bin/
WORKDIR /src

FROM own AS own-runner
RUN sh /tools/bin/own /own daf-cogames runner

FROM own AS own-standalone
RUN sh /tools/bin/own /own daf-workspace

FROM ${BASE} AS account
COPY docker/account /
RUN sh /account /rootfs

FROM ${BASE} AS dependencies
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8 HOME=/work DAF_CACHE=/work/cache
COPY --from=account /rootfs /
RUN --mount=from=tools,source=/tools/bin,target=/mnt python -B /mnt/install.py base
RUN --mount=from=tools,source=/tools/bin,target=/mnt --mount=from=requirements,source=/cudnn,target=/media \
    PATH=/mnt:$PATH python -B /mnt/install.py locked /media/requirements.txt
RUN --mount=from=tools,source=/tools/bin,target=/mnt --mount=from=requirements,source=/cuda,target=/media \
    PATH=/mnt:$PATH python -B /mnt/install.py locked /media/requirements.txt
RUN --mount=from=tools,source=/tools/bin,target=/mnt --mount=from=requirements,source=/torch,target=/media \
    PATH=/mnt:$PATH python -B /mnt/install.py locked /media/requirements.txt
RUN --mount=from=tools,source=/tools/bin,target=/mnt --mount=from=requirements,source=/others,target=/media \
    PATH=/mnt:$PATH python -B /mnt/install.py locked /media/requirements.txt
WORKDIR /work

FROM dependencies AS standalone
ENV DAF_HOME=/work
RUN --mount=from=tools,source=/tools/bin,target=/mnt --mount=from=requirements,source=/more,target=/media \
    PATH=/mnt:$PATH python -B /mnt/install.py locked /media/requirements.txt
RUN --mount=from=own,source=/tools/bin,target=/mnt --mount=from=own-standalone,source=/own,target=/media \
    PATH=/mnt:$PATH python -B /mnt/install.py own /media
USER 10001:10001
EXPOSE 50051 9090
ENTRYPOINT ["/opt/venv/bin/python", "-m", "daf_standalone"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title=daf-standalone \
      org.opencontainers.image.description="All services of DAF in one process, its client and its worker program" \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}

FROM dependencies AS runner
RUN --mount=from=own,source=/tools/bin,target=/mnt --mount=from=own-runner,source=/own,target=/media \
    PATH=/mnt:$PATH python -B /mnt/install.py own /media
USER 10001:10001
ENTRYPOINT ["/opt/venv/bin/daf-runner"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title=daf-runner \
      org.opencontainers.image.description="The worker program of DAF: training and evaluation with CoGames" \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}
