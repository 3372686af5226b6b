# Builds two images:
#   docker build --target cpu --tag electra-serve .        for CPUs: OpenVINO, no TensorFlow (the default)
#   docker build --target gpu --tag electra-serve:gpu .    for NVIDIA GPUs: JAX with CUDA
# `--build-arg ADD_EXTRA=bulk` adds an extra, here that of `electra-serve encode`.
# They run as any user, on a read-only root file system with a tmpfs at /tmp for temporary files of libraries.

# By tag, until `make image-digests` writes its digest here (docs/operations.md).
FROM python:3.11-slim-trixie AS base


FROM base AS builder
WORKDIR /build
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache,sharing=locked \
    PIP_ROOT_USER_ACTION=ignore python -m pip install --no-cache-dir --constraint constraints.txt uv
COPY deploy/image/build.sh ./
# Dependencies before source: a change of the source then keeps their layer, which is nearly all of the image.
COPY pyproject.toml ./


FROM builder AS cpu-dependencies
ARG ADD_EXTRA=
RUN --mount=type=cache,target=/root/.cache,sharing=locked \
    ./build.sh environment /opt/venv openvino ${ADD_EXTRA:+"$ADD_EXTRA"}


FROM builder AS gpu-dependencies
ARG ADD_EXTRA=
RUN --mount=type=cache,target=/root/.cache,sharing=locked \
    ./build.sh environment /opt/venv jax ${ADD_EXTRA:+"$ADD_EXTRA"}


FROM builder AS wheel
COPY README.md LICENSE NOTICE ./
COPY service service
RUN --mount=type=cache,target=/root/.cache,sharing=locked ./build.sh wheel /dist


FROM base AS runtime
# The image has no installer: the environment has none, and the base image's is removed.
RUN PIP_ROOT_USER_ACTION=ignore python -m pip uninstall --yes pip setuptools wheel

# Bytecode is compiled in the build. JAX and CUDA keep their caches in HOME.
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    ELECTRA_REST__HOST=0.0.0.0 \
    ELECTRA_GRPC__HOST=0.0.0.0

WORKDIR /tmp
EXPOSE 8080 50051
STOPSIGNAL SIGTERM
# The start period covers load and warm-up of the largest preset; the first success ends it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 CMD ["electra-serve", "healthcheck"]
ENTRYPOINT ["electra-serve"]
CMD ["serve"]

ARG REVISION=unknown
LABEL org.opencontainers.image.title="electra-serve" \
      org.opencontainers.image.description="ELECTRA encoders behind REST and gRPC" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"


FROM runtime AS gpu
COPY --from=gpu-dependencies /opt/venv /opt/venv
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    --mount=type=bind,from=builder,source=/build/build.sh,target=/build/build.sh \
    --mount=type=bind,from=builder,source=/usr/local/bin/uv,target=/usr/local/bin/uv \
    /build/build.sh install /opt/venv /dist && /build/build.sh check /opt/venv jax
# A number, so that Kubernetes can verify that it is not root.
USER 10001:10001


# The last stage is the default target.
FROM runtime AS cpu
COPY --from=cpu-dependencies /opt/venv /opt/venv
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    --mount=type=bind,from=builder,source=/build/build.sh,target=/build/build.sh \
    --mount=type=bind,from=builder,source=/usr/local/bin/uv,target=/usr/local/bin/uv \
    /build/build.sh install /opt/venv /dist && /build/build.sh check /opt/venv openvino
# A number, so that Kubernetes can verify that it is not root.
USER 10001:10001
