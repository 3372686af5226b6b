# electra-serve in a container:
#   docker build --tag electra-serve .                          for CPUs
#   docker build --tag electra-serve --build-arg EXTRA=gpu .    for NVIDIA GPUs, or EXTRA=jax
#   docker build --tag electra-serve --build-arg EXTRA=openvino .    for CPUs, without TensorFlow
# It runs as any user, on a read-only root file system with a tmpfs at /tmp, where libraries keep temporary files.

FROM python:3.11-slim-trixie AS base


# Dependencies before source: a change of the source leaves their layer, nearly all of the image, as it was.
FROM base AS dependencies
ARG EXTRA=cpu
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never \
    VIRTUAL_ENV=/opt/venv
WORKDIR /build
COPY pyproject.toml constraints.txt ./
RUN --mount=type=cache,target=/root/.cache,sharing=locked \
    PIP_ROOT_USER_ACTION=ignore python -m pip install --no-cache-dir --constraint constraints.txt uv \
    && uv venv "${VIRTUAL_ENV}" \
    && uv pip install --constraint constraints.txt --requirement pyproject.toml --extra "${EXTRA}"


FROM dependencies AS wheel
COPY README.md LICENSE ./
COPY service service
RUN --mount=type=cache,target=/root/.cache,sharing=locked \
    uv build --wheel --build-constraints constraints.txt --out-dir /dist


FROM base AS runtime
# No installer stays behind: the environment has none, and the base image's goes.
RUN PIP_ROOT_USER_ACTION=ignore python -m pip uninstall --yes pip setuptools wheel
COPY --from=dependencies /opt/venv /opt/venv
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    --mount=type=bind,from=dependencies,source=/usr/local/bin/uv,target=/usr/local/bin/uv \
    VIRTUAL_ENV=/opt/venv uv pip install --no-cache --no-deps --offline --compile-bytecode /dist/*.whl

# Bytecode is compiled above. HOME is where Keras and CUDA keep their caches.
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    ELECTRA_REST__HOST=0.0.0.0 \
    ELECTRA_GRPC__HOST=0.0.0.0

# A number, so that Kubernetes can tell that it is not root.
USER 10001:10001
EXPOSE 8080 50051
STOPSIGNAL SIGTERM
# The start period is for the largest preset's loading and warm-up; the first success ends it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 CMD ["electra-serve", "healthcheck"]
ENTRYPOINT ["electra-serve"]
CMD ["serve"]

ARG REVISION=unknown
LABEL org.opencontainers.image.title="electra-serve" \
      org.opencontainers.image.description="ELECTRA encoders behind REST and gRPC" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
