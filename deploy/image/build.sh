#!/bin/sh
# The commands that make the image, so that they can be run without a container engine too: `make image-steps` runs them in an
# empty folder. The Dockerfile calls one step per layer.
#
#   build.sh environment FOLDER EXTRA   a virtual environment with the dependencies of one extra, without the service
#   build.sh wheel FOLDER               the service as a wheel
#   build.sh install FOLDER WHEELS      that wheel into the environment, from nowhere else
#   build.sh check FOLDER EXTRA         that nothing contradicts, and no engine is there that was not asked for
#   build.sh sbom FOLDER FILE           what the environment holds, as CycloneDX
#
# Runs in the folder of pyproject.toml and constraints.txt, with `uv` on the path.
set -eu

export UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
: "${PYTHON:=python3}"
# Pinned here and not in constraints.txt: it never meets the service's environment.
SBOM_TOOL=cyclonedx-bom==7.3.1

environment() {
    uv venv --quiet --python "$PYTHON" "$1"
    VIRTUAL_ENV="$1" uv pip install --quiet --constraint constraints.txt --requirement pyproject.toml --extra "$2"
}

wheel() {
    uv build --quiet --wheel --build-constraints constraints.txt --out-dir "$1"
}

install() {
    VIRTUAL_ENV="$1" uv pip install --quiet --no-cache --no-deps --offline "$2"/*.whl
}

check() {
    VIRTUAL_ENV="$1" uv pip check --quiet
    for engine in tensorflow jax openvino; do
        case "$2/$engine" in
        openvino/openvino | jax/jax | gpu/tensorflow | cpu/tensorflow | cpu/openvino) expected=0 ;;
        *) expected=1 ;;
        esac
        found=0
        "$1/bin/python" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$engine') is None)" || found=1
        if [ "$found" != "$expected" ]; then
            echo "$engine: found=$found expected=$expected (0 is there, 1 is not) in an environment of $2" >&2
            return 1
        fi
    done
}

sbom() {
    uv tool run --quiet --from "$SBOM_TOOL" cyclonedx-py environment \
        --pyproject pyproject.toml --mc-type application --output-reproducible --output-file "$2" "$1/bin/python"
}

step=$1
shift
case "$step" in
environment | wheel | install | check | sbom) "$step" "$@" ;;
*)
    echo "no such step: $step" >&2
    exit 2
    ;;
esac
