# The application alone. What goes in is known by its hash: images by digest, packages by the locks. A package that would
# have to be built is refused, so nothing else is fetched. The digests are those of the tags named beside them, for every
# platform; `docker buildx imagetools inspect TAG` shows what a tag is now.
FROM python:3.11.13-slim-bookworm@sha256:86adf8dbadc3d6e82ee5dd2c74bec2e1c2467cdad47886280501df722372d2e1 AS build
WORKDIR /app
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /build && /build/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements-build.lock
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY native native
COPY streams streams
COPY schemas schemas
COPY api api
# With what stands in /build, and without a network: no isolation that fetches its own.
RUN /build/bin/python -m hatchling build -t wheel && /venv/bin/pip install --no-cache-dir --no-deps --no-index dist/*.whl

FROM python:3.11.13-slim-bookworm@sha256:86adf8dbadc3d6e82ee5dd2c74bec2e1c2467cdad47886280501df722372d2e1
RUN useradd --create-home --uid 10001 mdr && install -d -m 0700 -o mdr -g mdr /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH MDR_DATA_DIR=/data
USER mdr
VOLUME /data
ENTRYPOINT ["mdr"]
CMD ["up"]
