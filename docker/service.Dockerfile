# One service, with what it needs and no more: --build-arg SERVICE=training.
ARG BASE=python:3.12-slim-bookworm

# uv as uv.lock has it, and what installs by it.
FROM ${BASE} AS lock
COPY uv.lock /
RUN python -c 'import tomllib; print("uv==" + next(p["version"] for p in tomllib.load(open("/uv.lock", "rb"))["package"] if p["name"] == "uv"))' >/uv.txt

FROM ${BASE} AS tools
COPY --from=lock /uv.txt /
RUN pip install --quiet --root-user-action=ignore --no-compile --target /tools --requirement /uv.txt
RUN apt-get update -q && apt-get install -y -q --no-install-recommends binutils \
    && cp /usr/bin/strip $(ldd /usr/bin/strip | grep -oE '/\S+/lib(bfd|sframe|z|zstd|jansson)[-.]\S*') /tools/bin
COPY docker/install.py docker/trim.py /tools/bin/

# The workspace: once without the code, so that no change of it reaches the layers of what we depend on.
FROM ${BASE} AS workspace
COPY . /src
RUN mkdir /manifests && cd /src && cp --parents pyproject.toml uv.lock libs/*/pyproject.toml services/*/pyproject.toml /manifests

FROM tools AS requirements
ENV PATH=/tools/bin:${PATH}
COPY --from=workspace /manifests /src
COPY docker/locked /tools/bin/
WORKDIR /src
ARG SERVICE
RUN mkdir /common /service \
    && sh /tools/bin/locked daf-common service >/common/requirements.txt \
    && sh /tools/bin/locked daf-${SERVICE} >/all.txt \
    && { grep -vxFf /common/requirements.txt /all.txt >/service/requirements.txt || test $? = 1; } # 1: it needs no more

FROM tools AS own
ENV PATH=/tools/bin:${PATH}
COPY --from=workspace /src /src
COPY docker/own docker/sbom.py /tools/bin/
WORKDIR /src
ARG SERVICE
RUN sh /tools/bin/own /own daf-${SERVICE}

FROM ${BASE} AS account
COPY docker/account /
RUN sh /account /rootfs

FROM ${BASE}
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8 HOME=/work DAF_HOME=/work
COPY --from=account /rootfs /
RUN --mount=from=tools,source=/tools/bin,target=/mnt python -B /mnt/install.py base
# The same for every service: stored, pushed and pulled once.
RUN --mount=from=tools,source=/tools/bin,target=/mnt --mount=from=requirements,source=/common,target=/media \
    PATH=/mnt:$PATH python -B /mnt/install.py trimmed /media/requirements.txt
RUN --mount=from=tools,source=/tools/bin,target=/mnt --mount=from=requirements,source=/service,target=/media \
    PATH=/mnt:$PATH python -B /mnt/install.py trimmed /media/requirements.txt
ARG SERVICE
RUN --mount=from=own,source=/tools/bin,target=/mnt --mount=from=own,source=/own,target=/media \
    PATH=/mnt:$PATH python -B /mnt/install.py own /media daf_${SERVICE}.main
WORKDIR /work
USER 10001:10001
EXPOSE 50051 9090
ENTRYPOINT ["/opt/venv/bin/daf-service"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title=daf-${SERVICE} \
      org.opencontainers.image.description="The ${SERVICE} service of DAF" \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}
