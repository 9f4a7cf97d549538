#!/bin/sh
# Makes sure that the tests find what pip cannot install: debian.sh chromium, or debian.sh slurm.
set -eu
PATH=$PATH:/usr/sbin # where Debian keeps daemons
case ${1:-} in
  chromium) commands="chromium chromium-browser google-chrome" packages=chromium what="The browser tests need Chromium" ;;
  slurm) commands=slurmctld packages="slurmctld slurmd slurm-client munge" what="The program about Slurm needs Slurm" ;;
  *) echo "Name what is needed: chromium or slurm." >&2 && exit 1 ;;
esac
for name in $commands; do
  command -v "$name" >/dev/null && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Debian's $packages ..."
  log=$(mktemp)
  # shellcheck disable=SC2086 # several packages
  if { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $packages; } >"$log" 2>&1; then
    rm -f "$log"
    exit 0
  fi
  echo "Installing $packages failed; details are in $log." >&2
  exit 1
fi
echo "$what: install it (on Debian: sudo apt-get install $packages) and run make again." >&2
exit 1
