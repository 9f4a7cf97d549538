#!/bin/sh
# Makes a virtual environment, or says in one sentence why it cannot: environment.sh FOLDER REQUIREMENTS [BASE]
# With BASE, another environment: the new one sees its packages too, and has a Ray of its own, so that Ray's commands
# find the packages of both.
set -eu
folder=$1
requirements=$2
base=${3:-}

fail() {
  echo "$1" >&2
  exit 1
}

# Two `make` at once in one checkout: the second waits, then finds the work done.
exec 9>"$folder.lock"
flock 9
stamp="$folder/.installed"
if [ -f "$stamp" ] && cmp -s "$stamp" "$requirements"; then
  touch "$stamp"
  exit 0
fi

# pymdown-extensions needs 3.11.5; Debian 12 has 3.11.2.
fits='import sys; sys.exit(not (3, 11, 5) <= sys.version_info[:3] < (3, 12))'
python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3.11 python3 python; do
    if command -v "$candidate" >/dev/null && "$candidate" -c "$fits" 2>/dev/null; then
      python=$candidate
      break
    fi
  done
fi
[ -n "$python" ] || fail "Python 3.11.5 or a later 3.11 is needed and none was found: install one, or name it with: make PYTHON=/path/to/python3.11"
command -v "$python" >/dev/null || fail "There is no Python at $python: name a Python 3.11 with: make PYTHON=/path/to/python3.11"
found=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])') || fail "$python is not a Python that runs: name a Python 3.11 with: make PYTHON=/path/to/python3.11"
"$python" -c "$fits" || fail "Python 3.11.5 or a later 3.11 is needed, because the pinned packages are tested with it, but $python is Python $found: name another with: make PYTHON=/path/to/python3.11"

echo "Installing $requirements into $folder ..."
rm -rf "$folder"
"$python" -m venv "$folder" >"$folder.log" 2>&1 || {
  rm -rf "$folder"
  fail "Python's venv module cannot make $folder: install it (python3.11-venv on Debian) and run make again; details are in $folder.log."
}
install() {
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >>"$folder.log" 2>&1
}
packages() {
  "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}
stand_on_base() {
  packages "$base" >"$(packages "$folder")/base.pth" &&
    install --ignore-installed --no-deps "$(sed -n 's/^ray\(\[.*\]\)*\(==[^ ]*\).*/ray\2/p' "$requirements")"
}
fill() {
  if [ -n "$base" ]; then stand_on_base || return; fi
  install --requirement "$requirements"
}
fill || {
  rm -rf "$folder"
  fail "Installing $requirements failed, most often for want of a network or of disk space: run make again; details are in $folder.log."
}
cp "$requirements" "$stamp"
rm -f "$folder.log"
