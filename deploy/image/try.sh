#!/bin/sh
# Runs the Dockerfile's steps without a container engine, in a folder with the files that .dockerignore includes, and with
# an empty environment. Then starts the service as the image does, from a folder without write permission.
#
#   try.sh FOLDER [EXTRA…]   FOLDER must not exist; the SBOM is written there as sbom.cdx.json
#
# EXTRA is openvino (the image cpu) by default; jax is the image gpu, and takes gigabytes. `bulk` may follow.
set -eu

folder=$1
shift
[ $# -gt 0 ] || set -- openvino
uv=$(command -v uv)
cd "$(dirname "$0")/../.."
mkdir "$folder"
folder=$(cd "$folder" && pwd)
mkdir "$folder/context" "$folder/tmp" "$folder/empty" "$folder/tools"
ln -s "$uv" "$folder/tools/uv"
sed -n 's/^!//p' .dockerignore | tar --create --exclude __pycache__ --files-from - | tar --extract --directory "$folder/context"

cd "$folder/context"
# Of the caller's environment only PATH is kept, so that no package of it is imported.
step() {
    env -u PYTHONPATH -u PYTHONHOME -u VIRTUAL_ENV PATH="$folder/tools:$PATH" sh deploy/image/build.sh "$@"
}
step environment "$folder/venv" "$@"
step wheel "$folder/dist"
step install "$folder/venv" "$folder/dist"
step check "$folder/venv" "$@"
step sbom "$folder/venv" "$folder/sbom.cdx.json"

chmod a-w "$folder/empty"
cd "$folder/empty"
run="env -i PATH=$folder/venv/bin:/usr/bin:/bin HOME=$folder/tmp TMPDIR=$folder/tmp PYTHONDONTWRITEBYTECODE=1
    ELECTRA_REST__PORT=18080 ELECTRA_GRPC__PORT=18051"
$run electra-serve serve 2>"$folder/service.log" &
service=$!
trap 'kill "$service" 2>/dev/null || true' EXIT
tries=0
until $run electra-serve healthcheck >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" = 60 ] || ! kill -0 "$service" 2>/dev/null; then
        cat "$folder/service.log" >&2
        exit 1
    fi
    sleep 1
done
kill -TERM "$service"
wait "$service"
trap - EXIT
case " $* " in *" bulk "*) $run electra-serve encode --help >/dev/null && $run python -c 'import electra_serve.bulk.job' ;; esac
echo "$*: built, served, stopped with 0; $(du -sh "$folder/venv" | cut -f1) of environment"
