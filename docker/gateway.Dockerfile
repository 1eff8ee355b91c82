# nginx, which passes each call to the service that answers it. Its configuration is mounted at /etc/nginx/nginx.conf.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS account
COPY docker/account /
RUN sh /account /rootfs

FROM ${BASE}
COPY --from=account /rootfs /
RUN --mount=source=docker,target=/mnt DEBIAN_FRONTEND=noninteractive python -B /mnt/install.py system nginx \
    && nginx -V 2>&1 | grep -q -- --with-http_v2_module
WORKDIR /work
USER 10001:10001
EXPOSE 8080 8443
STOPSIGNAL SIGQUIT
ENTRYPOINT ["/usr/sbin/nginx"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title=daf-gateway \
      org.opencontainers.image.description="nginx, which passes calls to the services of DAF" \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}
