# Everything: the five services in one process, the client and, from the image that it is built on, the worker program.
ARG BASE=python:3.12-slim-bookworm
ARG RUNNER

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
RUN mkdir /more \
    && sh /tools/bin/locked daf-cogames runner >/there.txt \
    && sh /tools/bin/locked daf-workspace >/all.txt \
    && grep -vxFf /there.txt /all.txt >/more/requirements.txt

FROM tools AS own
ENV PATH=/tools/bin:${PATH}
COPY --from=workspace /src /src
COPY docker/own docker/sbom.py /tools/bin/
WORKDIR /src
RUN sh /tools/bin/own /own daf-workspace

FROM ${RUNNER}
ENV DAF_HOME=/work
USER 0:0
RUN --mount=from=tools,source=/tools/bin,target=/mnt --mount=from=requirements,source=/more,target=/media \
    PATH=/mnt:$PATH python -B /mnt/install.py locked /media/requirements.txt
RUN --mount=from=own,source=/tools/bin,target=/mnt --mount=from=own,source=/own,target=/media \
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
