#!/bin/sh
# Starts the tests' own program again, as the router. A link to this script stands in a folder of the test's own, beside a link
# to the program.
folder=$(dirname "$0")
printf '%s\n' "$@" >"$folder/arguments"
ARPANET_FAKE_WEAVER="$folder" exec "$folder/program" --exact fake::weaver --nocapture
