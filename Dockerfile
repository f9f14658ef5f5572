# A wheel is built, then installed into a small image without build tools, where nothing runs as root.

FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY homeserver homeserver
COPY client_api client_api
COPY federation federation
COPY storage storage
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN pip wheel --no-deps --wheel-dir /wheels . \
 && python -m venv /opt/heliograph \
 && /opt/heliograph/bin/pip install "$(echo /wheels/*.whl)[s3]"

FROM python:3.11-slim
RUN groupadd --system --gid 991 heliograph \
 && useradd --system --uid 991 --gid 991 --home-dir /data --shell /usr/sbin/nologin heliograph \
 && install --directory --owner heliograph --group heliograph --mode 0700 /data
COPY --from=build /opt/heliograph /opt/heliograph
ENV PATH=/opt/heliograph/bin:$PATH HELIOGRAPH_CONFIG=/data/config.yaml PYTHONUNBUFFERED=1
# By number, so that an orchestrator can tell that it is not root.
USER 991:991
WORKDIR /data
VOLUME /data
EXPOSE 8008 8448
STOPSIGNAL SIGTERM
# HEALTH_URL names another listener that serves `health`.
ENV HEALTH_URL=http://127.0.0.1:8008/health
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(os.environ['HEALTH_URL'], timeout=4)"]
ENTRYPOINT ["homeserver"]
CMD ["run"]
