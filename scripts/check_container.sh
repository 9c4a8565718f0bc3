#!/usr/bin/env bash
# What the Dockerfile does, where no container can be built: the steps of its builder stage in a folder, then the demo.
# Usage: scripts/check_container.sh [FOLDER]    about 8 GB in FOLDER (default: a temporary one, removed at the end)
#
# COPY, WORKDIR, ARG and ENV of the builder stage are obeyed, each RUN is run as it stands, with the paths of the image
# (/build, /opt/landcover) below the folder. The other stage (apt-get, useradd) needs an image and is left out. A RUN that
# does not work, or names a file that .dockerignore withholds, ends it. With hadolint on the path the file is linted first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=${1:-}
if [[ -z $root ]]; then
  root=$(mktemp -d)
  trap 'rm -rf "$root"' EXIT
fi
mkdir -p "$root"
root=$(realpath "$root")
unset PYTHONPATH VIRTUAL_ENV
python=$(.venv/bin/python -c 'import sys; print(sys._base_executable)')

if command -v hadolint >/dev/null; then
  hadolint Dockerfile
fi

# The paths of the image, in the folder.
here() { sed "s#/opt/landcover#$root/opt/landcover#g; s#/build#$root/build#g; s#^python #$python #" <<<"$1"; }

workdir=$root
mkdir -p "$root/opt"
while IFS= read -r line; do
  echo "== ${line:0:110}"
  words=${line#* }
  case $line in
    ARG*) # as a build argument does, a variable of the caller wins over the default
      name=${words%%=*}
      export "$name=${!name:-${words#*=}}" ;;
    ENV*) for pair in $words; do export "${pair?}"; done ;;
    WORKDIR*) workdir=$(here "$words"); mkdir -p "$workdir" ;;
    COPY*)
      read -ra names <<<"$words"
      target=${names[-1]}
      for name in "${names[@]::${#names[@]}-1}"; do
        grep -qxF "!$name" .dockerignore || { echo ".dockerignore withholds $name" >&2; exit 1; }
        cp -r "$name" "$workdir/$target"
      done ;;
    RUN*) (cd "$workdir" && bash -euo pipefail -c "$(here "$words")") ;;
  esac
done < <(sed -e :a -e '/\\$/N; s/ *\\\n */ /; ta' Dockerfile | sed -n '/ AS builder/,/ AS runtime/{/^#/d; /^$/d; /^FROM/d; p}')

mkdir -p "$root/work/scripts"
cp -r configs "$root/work/configs"
cp scripts/demo.sh "$root/work/scripts"
cd "$root/work"
PATH=$root/opt/landcover/bin:$PATH bash scripts/demo.sh landcover
test -s demo/map.tif
echo 'the steps of the image and the demo work'
