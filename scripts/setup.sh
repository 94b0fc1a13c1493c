#!/usr/bin/env bash
# Installs what is missing of the named groups of scripts/apt.txt. Usage: scripts/setup.sh build [test] [train]
set -euo pipefail
cd "$(dirname "$0")"
groups=" $* "
[[ $# -gt 0 ]] || { echo "usage: scripts/setup.sh GROUP...; groups are build, test and train" >&2; exit 2; }
for group; do
  [[ "$group" =~ ^(build|test|train)$ ]] ||
    { echo "setup: no group \"$group\"; groups are build, test and train" >&2; exit 2; }
done
missing=()
while read -r group package; do
  [[ -z "${package:-}" || "$group" == \#* || "$groups" != *" $group "* ]] && continue
  state=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
  [[ "$state" == "install ok installed" ]] || missing+=("$package")
done < apt.txt
[[ ${#missing[@]} -eq 0 ]] && exit 0
command -v apt-get >/dev/null || { echo "setup: needs ${missing[*]} and this is no Debian system" >&2; exit 1; }
sudo=""
if [[ $(id -u) -ne 0 ]]; then
  command -v sudo >/dev/null || { echo "setup: run as root, or install: ${missing[*]}" >&2; exit 1; }
  sudo=sudo
fi
echo "setup: installing ${missing[*]}"
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
