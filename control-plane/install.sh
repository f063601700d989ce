#!/bin/sh
# Image build step: installs into /opt/airbridge/venv, by hash.
# Usage: install.sh requirements FILE | install.sh project FOLDER
set -eu
if [ -s /run/secrets/ca_bundle ]; then
  SSL_CERT_FILE=/run/secrets/ca_bundle
  export SSL_CERT_FILE
fi
export UV_SYSTEM_CERTS=1 UV_LINK_MODE=copy UV_NO_PROGRESS=1
uv=/build/tools/bin/uv
venv=/opt/airbridge/venv

case "$1" in
  requirements)
    "$uv" venv --quiet --python /usr/bin/python3 "$venv"
    # Bytecode is compiled here because the containers run read-only: without it every start would
    # compile Airflow again, in memory.
    "$uv" pip install --quiet --no-config --compile-bytecode --require-hashes \
      --python "$venv/bin/python" --requirements "$2"
    # The project itself comes in a folder, and a layer, of its own: a change of it moves kilobytes.
    echo /opt/airbridge/project > "$venv/lib/python3.11/site-packages/airbridge-project.pth"
    # What the image was locked to, so that a start against another lock can be refused.
    sha256sum "$2" | cut -d ' ' -f 1 > /opt/airbridge/lock.sha256
    ;;
  project)
    (cd "$2" && /build/tools/bin/python -m hatchling build --target wheel >/dev/null)
    "$uv" pip install --quiet --no-config --no-index --no-deps --compile-bytecode \
      --python /usr/bin/python3 --target /opt/airbridge/project "$2"/dist/*.whl
    # Console scripts must start the interpreter that sees the requirements too.
    find /opt/airbridge/project/bin -type f -exec sed -i '1s|.*|#!/opt/airbridge/venv/bin/python|' {} + 2>/dev/null || true
    ;;
  *)
    echo "install.sh: unknown step '$1'" >&2
    exit 2
    ;;
esac
