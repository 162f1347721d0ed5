# Sourced by the others: where the project is, and one line per stage with the seconds so far.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stage() { printf '[%4ds] %s\n' "$SECONDS" "$*"; }
die() {
    printf '%s\n' "$*" >&2
    exit 1
}
