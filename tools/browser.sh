#!/bin/sh
# Makes sure that there is a Chromium for the tests that look at the site as a reader does.
set -eu
for name in chromium chromium-browser google-chrome; do
  command -v "$name" >/dev/null && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Debian's Chromium for the browser tests ..."
  log=$(mktemp)
  if { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; } >"$log" 2>&1; then
    rm -f "$log"
    exit 0
  fi
  echo "Installing Chromium failed; details are in $log." >&2
  exit 1
fi
echo "The browser tests need Chromium: install it (on Debian: sudo apt-get install chromium) and run make test again." >&2
exit 1
