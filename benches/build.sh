#!/usr/bin/env bash
# What runspan adds to a clean build, and how long the first look takes from a clone.
#
#   $ bash benches/build.sh            # both; a quarter of an hour on two cores
#   $ bash benches/build.sh added      # seconds and packages that runspan adds to the rig example
#   $ bash benches/build.sh clone      # from `git clone` to the first tree, by the README's first command
#
# Method. "added": the rig example stands in a package of its own, once with runspan and once with its two lines left
# out; each is built from nothing (`cargo build`, then `cargo build --release`) into an empty folder, with all packages
# fetched before, and once more in the other order, so that neither has the warmer disk cache. Printed are wall seconds,
# the smaller of the two times, and the packages that `cargo tree` counts. "clone": a clone of this commit, an empty
# target folder, the packages in Cargo's cache, two cores at most (`taskset`). It fails when the examples record nothing,
# or the demo shows no tree.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never CARGO_TERM_QUIET=true
unset CARGO_TARGET_DIR
cores=(taskset -c 0,1)
command -v taskset >/dev/null || cores=()

what=${1:-all}
case $what in all | added | clone) ;; *) echo "usage: build.sh [added|clone]" >&2; exit 2 ;; esac

seconds() { # command...: wall seconds with one decimal on stdout, what it says on stderr
    local start end
    start=$(date +%s%N)
    "$@" >&2
    end=$(date +%s%N)
    printf '%d.%d\n' $(((end - start) / 1000000000)) $(((end - start) / 100000000 % 10))
}

less() { sort -g | head -1; }

# The versions are those of this repository's lock file: a newer one of the day would be another build.
package() { # folder, with or without
    mkdir -p "$1/src"
    cp -r "$root/src/cli/demo/model_server" "$1/src/model_server"
    sed 's|#\[path = .*model_server/mod.rs"\]|#[path = "model_server/mod.rs"]|' "$root/examples/rig.rs" >"$1/src/main.rs"
    cp "$root/Cargo.lock" "$1/Cargo.lock"
    {
        printf '[package]\nname = "rig-example"\nversion = "0.0.0"\nedition = "2024"\n\n[workspace]\n\n[dependencies]\n'
        sed -n '/^\[dev-dependencies\]/,/^$/{/^\(futures\|rig\|tokio\) = /p}' "$root/Cargo.toml"
        sed -n '/^\[dependencies\]/,/^$/{/^serde_json = /p}' "$root/Cargo.toml"
    } >"$1/Cargo.toml"
    if [[ $2 == with ]]; then
        printf 'runspan = { path = "%s" }\n' "$root" >>"$1/Cargo.toml"
    else
        sed -i '/runspan::init()/d' "$1/src/main.rs"
    fi
    (cd "$1" && cargo fetch >&2)
}

packages() { (cd "$1" && cargo tree -e normal,build --prefix none --no-dedupe | sed 's/ (\*)$//' | sort -u | grep -vc '^rig-example '); }

build() { # folder, flags...
    local folder=$1
    shift
    rm -rf "$folder/target"
    (cd "$folder" && seconds "${cores[@]}" cargo build "$@")
}

added() {
    local with=$work/with without=$work/without flag profile
    package "$with" with
    package "$without" without
    printf 'the rig example, %s cores of %s, %s\n' "$([[ ${cores[*]} ]] && echo 2 || nproc)" "$(nproc)" "$(rustc --version)"
    printf '%-24s %10s %10s %10s\n' '' without with added
    printf '%-24s %10d %10d %10d\n' packages "$(packages "$without")" "$(packages "$with")" \
        $(($(packages "$with") - $(packages "$without")))
    for flag in '' --release; do
        profile=${flag:-dev}
        build "$without" $flag >"$work/times-without"
        build "$with" $flag >"$work/times-with"
        check "$with" "${profile#--}"
        build "$with" $flag >>"$work/times-with"
        build "$without" $flag >>"$work/times-without"
        awk -v profile="${profile#--}" -v without="$(less <"$work/times-without")" -v with="$(less <"$work/times-with")" \
            'BEGIN { printf "%-24s %10.1f %10.1f %10.1f\n", "seconds, " profile, without, with, with - without }'
    done
}

check() { # folder, profile: the example records its two runs
    local folder=$1 profile=$2
    [[ $profile == dev ]] && profile=debug
    rm -rf "$work/store"
    RUNSPAN_STORE=$work/store "$folder/target/$profile/rig-example" >&2
    (($(find "$work/store/agents" -name run.yaml | wc -l) == 2)) || { echo 'the example did not record two runs' >&2; exit 1; }
}

first_tree() {
    cd "$work/clone" && "${cores[@]}" cargo run --release --features cli -- demo >"$work/demo"
}

clone_and_look() {
    git clone --quiet "$root" "$work/clone"
    first_tree
}

clone() {
    (cd "$root" && cargo fetch --locked >&2)
    printf 'git clone to the first tree: %s s\n' "$(seconds clone_and_look)"
    grep -q 'agent trip-planner' "$work/demo" || { echo 'the demo showed no tree' >&2; exit 1; }
}

[[ $what == clone ]] || added
[[ $what == added ]] || clone
