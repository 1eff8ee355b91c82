# What an installation under test needs around it: a PostgreSQL, and an S3 that keeps everything in memory (moto).
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-15 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --no-create-home daf
RUN pip install --no-cache-dir "moto[server]>=5.1"
COPY --chmod=755 start-postgresql /usr/local/bin/
USER 10001:10001
ENV PATH=/usr/lib/postgresql/15/bin:$PATH
