#!/bin/sh
# Builds the image. The Dockerfile calls one step per layer. `make image-steps` runs the steps in an empty folder, without
# a container engine.
#
#   build.sh environment FOLDER EXTRA…  makes a virtual environment with the dependencies of extras, without the service
#   build.sh wheel FOLDER               builds the service as a wheel
#   build.sh install FOLDER WHEELS      installs that wheel into the environment, without other sources
#   build.sh check FOLDER EXTRA…        checks that requirements agree, and that only the engines of the first extra are there
#   build.sh sbom FOLDER FILE           lists the environment's packages, as CycloneDX
#
# Runs in the folder of pyproject.toml and constraints.txt, with `uv` on the path.
set -eu

export UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
: "${PYTHON:=python3}"
# Pinned here, not in constraints.txt: it is never in the service's environment.
SBOM_TOOL=cyclonedx-bom==7.3.1

environment() {
    folder=$1
    shift
    uv venv --quiet --python "$PYTHON" "$folder"
    for extra; do
        VIRTUAL_ENV="$folder" uv pip install --quiet --constraint constraints.txt --requirement pyproject.toml --extra "$extra"
    done
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
            echo "$engine: found=$found expected=$expected (0: installed, 1: not) in an environment of $2" >&2
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
