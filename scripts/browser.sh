#!/usr/bin/env bash
# Finds chromium and chromedriver, or installs Debian's, for the tests that look at pages in a browser.
#
# Looks at $FISSFUSE_CHROMIUM and $FISSFUSE_CHROMEDRIVER, then at $PATH, and installs with apt-get only where one of
# the two is missing: as root, or through sudo if that asks for no password.
# Prints the browser and the driver it settled on as the last two lines of stdout.
set -euo pipefail

say() { echo "browser: $*" >&2; }
die() { say "error: $1"; shift; for line in "$@"; do say "  $line"; done; exit 1; }
advice=("install Chromium and its driver (Debian: apt-get install chromium chromium-driver), or name them in"
    "FISSFUSE_CHROMIUM and FISSFUSE_CHROMEDRIVER")

# The first of these programs that is there.
first() { for name in "$@"; do command -v "$name" && return; done; return 1; }

find_browser() { first ${FISSFUSE_CHROMIUM:+"$FISSFUSE_CHROMIUM"} chromium chromium-browser google-chrome; }
find_driver() { first ${FISSFUSE_CHROMEDRIVER:+"$FISSFUSE_CHROMEDRIVER"} chromedriver; }

for named in FISSFUSE_CHROMIUM FISSFUSE_CHROMEDRIVER; do
    path=${!named:-}
    [ -z "$path" ] || command -v "$path" > /dev/null ||
        die "$named=$path is no program" "set it to the full path of one, or unset it"
done

if ! find_browser > /dev/null || ! find_driver > /dev/null; then
    command -v apt-get > /dev/null ||
        die "there is no chromium with chromedriver, and no apt-get to install them" "${advice[@]}"
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo > /dev/null && sudo -n true 2> /dev/null ||
            die "there is no chromium with chromedriver, and only root may install them" "${advice[@]}"
        as_root=(sudo -n)
    fi
    say "installing chromium and chromium-driver"
    # Lists of packages may be old or none: what they name is not there any more.
    "${as_root[@]}" apt-get update -qq >&2 || say "apt-get update failed; trying with the lists that are there"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        chromium chromium-driver fonts-liberation >&2 ||
        die "apt-get could not install chromium and chromium-driver (see above)" "${advice[@]}"
fi
browser=$(find_browser) || die "there is no chromium" "${advice[@]}"
driver=$(find_driver) || die "there is no chromedriver" "${advice[@]}"

# Asks each for its version: a browser that lacks a library does not start.
version() { "$1" --version 2> /dev/null | sed -n 's/[^0-9]*\([0-9][0-9]*\)\..*/\1/p' | head -1; }
browser_version=$(version "$browser" || true)
driver_version=$(version "$driver" || true)
[ -n "$browser_version" ] || die "$browser does not say its version" "${advice[@]}"
[ -n "$driver_version" ] || die "$driver does not say its version" "${advice[@]}"
[ "$browser_version" = "$driver_version" ] ||
    die "$browser is of version $browser_version and $driver of $driver_version: they must be of one" "${advice[@]}"
say "chromium $browser_version at $browser, its driver at $driver"
echo "$browser"
echo "$driver"
