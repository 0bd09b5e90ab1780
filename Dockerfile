# The application alone: what it runs with comes hash-checked from requirements.lock.
FROM python:3.11.13-slim-bookworm AS build
WORKDIR /app
COPY requirements.lock pyproject.toml hatch_build.py README.md LICENSE ./
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY native native
COPY streams streams
COPY schemas schemas
COPY api api
RUN /venv/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11.13-slim-bookworm
RUN useradd --create-home --uid 10001 mdr && mkdir /data && chown mdr /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH
USER mdr
VOLUME /data
ENTRYPOINT ["mdr"]
CMD ["up"]
