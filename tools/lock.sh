#!/bin/sh
# `make lock`: pins every package, transitive ones included, in requirements.txt, -site.txt and -cluster.txt.
# Run it with the full environment's pip-compile after an edit to a .in file.
set -eu
bin=$1
compile() {
  "$bin/pip-compile" --quiet --strip-extras --no-header --annotation-style=line \
    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --allow-unsafe "$@"
}
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
compile --output-file "$new/requirements.txt" requirements.in || {
  echo "The packages in requirements.in cannot be installed together; the lines above say why." >&2
  exit 1
}
# The pin is for every build of torch: a local label such as +cpu would exclude the others.
sed -i 's/+cpu//' "$new/requirements.txt"
compile --constraint "$new/requirements.txt" --output-file "$new/requirements-site.txt" requirements-site.in || {
  echo "The packages in requirements-site.in cannot be installed together; the lines above say why." >&2
  exit 1
}
compile --constraint "$new/requirements.txt" --output-file "$new/requirements-cluster.txt" requirements-cluster.in || {
  echo "The packages in requirements-cluster.in cannot be installed together; the lines above say why." >&2
  exit 1
}
for file in requirements.txt requirements-site.txt requirements-cluster.txt; do
  # Paths of this run's temporary folder have no place in the result.
  sed -i "s|$new/||g" "$new/$file"
  { echo "# Pinned by \`make lock\` from ${file%.txt}.in; edit that file, not this one."; cat "$new/$file"; } > "$file"
done
