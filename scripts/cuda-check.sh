#!/usr/bin/env bash
#
# Checks everything that needs a CUDA device, on one machine, in about a quarter of an hour.
#
#     scripts/cuda-check.sh build [FOLDER]    builds the programs into FOLDER; needs cargo, no GPU
#     scripts/cuda-check.sh run [FOLDER]      runs them; needs a GPU, its driver and the CUDA
#                                             toolkit's run-time compiler (libnvrtc), no cargo
#
# FOLDER is runs/cuda-check by default, and holds all that `run` needs: it can be copied to another
# machine of the same architecture, and this script, which is copied into it, run there:
#
#     FOLDER/cuda-check.sh run FOLDER
#
# `run` prints a line for each check and a summary, leaves what the programs print in FOLDER/logs,
# and exits with 1 if any of them failed.
#
# Not all of it passes yet: docs/CONTRIBUTING.md, section "Tests on a GPU", says what a run on an H100 gave.

set -euo pipefail

usage() {
    sed -n '3,19s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

# The program that the last `cargo --message-format=json` line of this target names.
executable_of() {
    sed -n "s/.*\"name\":\"$1\".*\"executable\":\"\([^\"]*\)\".*/\1/p" "$2" | tail -n 1
}

build() {
    local folder=$1 messages program
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    mkdir -p "$folder"
    messages=$(mktemp)
    trap 'rm -f "$messages"' RETURN

    # The same packages and features both times, so that burn is built once. Apart, because a library
    # and a test program are both called `experiments`.
    local tests=(--release --no-run --message-format=json-render-diagnostics
        -p quant-kernels -p switchable-lora -p switchable-model -p gpt2-model -p llama-model -p experiments
        --features quant-kernels/autodiff,quant-kernels/cuda,quant-kernels/flex,quant-kernels/ndarray
        --features switchable-lora/test-cuda,switchable-model/test-cuda,gpt2-model/test-cuda,llama-model/test-cuda,experiments/test-cuda)
    cargo test "${tests[@]}" --lib >"$messages"
    cp "$(executable_of quant_kernels "$messages")" "$folder/kernel-units"
    cp "$(executable_of switchable_model "$messages")" "$folder/model-units"
    cargo test "${tests[@]}" --test cube --test switching --test model --test llama --test experiments >"$messages"
    cp "$(executable_of cube "$messages")" "$folder/kernels"
    for program in switching model llama experiments; do
        cp "$(executable_of "$program" "$messages")" "$folder/$program"
    done
    # What the tests compare with; `run` says where it is.
    for crate in switchable-lora gpt2-model llama-model; do
        mkdir -p "$folder/crates/$crate/tests"
        cp -r "crates/$crate/tests/golden" "$folder/crates/$crate/tests/"
    done

    cargo bench -p quant-kernels --features cuda,flex --bench cube --no-run \
        --message-format=json-render-diagnostics >"$messages"
    cp "$(executable_of cube "$messages")" "$folder/kernel-benches"

    cargo build --release -p commands --features cuda --message-format=json-render-diagnostics >"$messages"
    cp "$(executable_of switchable-quant "$messages")" "$folder/"
    strip "$folder/switchable-quant"

    cp benches/peers/*.py "$folder/"
    cp scripts/cuda-check.sh "$folder/"
    du -sh "$folder"
}

# start NAME SECONDS PROGRAM [ARGUMENT..]: runs it in FOLDER beside the others, at most so long.
names=()
start() {
    local name=$1 limit=$2
    shift 2
    names+=("$name")
    printf '%-16s %s\n' "$name" "$*"
    {
        local begun=$SECONDS status=0
        timeout "$limit" "$@" >"logs/$name.log" 2>&1 || status=$?
        echo "$status $((SECONDS - begun)) $limit" >"logs/$name.status"
    } &
}

# What the log of a check must say, since its success alone does not show that it did anything.
declare -A expected=()
expect() {
    expected[$1]=$2
}

# Waits for what was started, and says how it went.
failed=0
summary=()
finish() {
    local name status seconds limit verdict pattern
    wait
    for name in "${names[@]}"; do
        read -r status seconds limit <"logs/$name.status"
        pattern=${expected[$name]:-}
        case $status in
            0) verdict="ok" ;;
            124) verdict="FAILED: not done after $limit s" ;;
            *) verdict="FAILED: exit code $status" ;;
        esac
        if [ "$status" -eq 0 ] && [ -n "$pattern" ] && ! grep -Eq "$pattern" "logs/$name.log"; then
            status=1 verdict="FAILED: the log has no line with $pattern"
        fi
        if [ "$status" -ne 0 ]; then
            failed=1
            grep -E '^test .*FAILED$|panicked' "logs/$name.log" | sed 's/^/    /' | head -n 20 || true
            tail -n 8 "logs/$name.log" | sed 's/^/    /'
        fi
        summary+=("$(printf '%-16s %4d s  %s' "$name" "$seconds" "$verdict")")
    done
    names=()
}

skip() {
    summary+=("$(printf '%-16s         skipped: %s' "$1" "$2")")
}

run() {
    cd "$1"
    rm -rf logs out
    mkdir logs out
    # Kernels that one program has compiled are there for the others.
    printf '[compilation]\ncache = "local"\n' >cubecl.toml
    if command -v nvidia-smi >/dev/null; then
        nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
    fi
    export SWITCHABLE_QUANT_REQUIRE_CUDA=1

    # Beside one another: they wait for the compiler of the kernels more than for the GPU.
    start kernel-units 300 ./kernel-units cube:: --nocapture
    expect kernel-units 'test result: ok\. [1-9]'
    start kernels 400 ./kernels --nocapture --test-threads 4
    expect kernels 'test result: ok\. [1-9]'
    # The tests of the layers, the models and the experiments, on the GPU in place of the CPU.
    # `what_peft_wrote..` writes into the folder that the tests were built in.
    start layers 400 env CARGO_MANIFEST_DIR="$PWD/crates/switchable-lora" ./switching --nocapture \
        --skip what_peft_wrote_is_written_again_under_the_same_names
    expect layers 'test result: ok\. [1-9]'
    start model-units 400 ./model-units --nocapture
    expect model-units 'test result: ok\. [1-9]'
    start model 400 env CARGO_MANIFEST_DIR="$PWD/crates/gpt2-model" ./model --nocapture
    expect model 'test result: ok\. [1-9]'
    start llama 400 env CARGO_MANIFEST_DIR="$PWD/crates/llama-model" ./llama --nocapture
    expect llama 'test result: ok\. [1-9]'
    start experiments 500 ./experiments --nocapture
    expect experiments 'test result: ok\. [1-9]'
    start search 400 ./switchable-quant search --device cuda --limit 60 --quiet --out out/search
    expect search 'device +cuda:0'
    start train 300 ./switchable-quant train-default --device cuda --base-steps 40 --bank-steps 40 --quiet --out out/default
    expect train 'running on cuda:0'
    finish

    # What is timed has the GPU to itself.
    if [ -x ./kernel-benches ]; then
        start kernel-benches 60 ./kernel-benches --bench --warm-up-time 0.2 --measurement-time 0.5 --sample-size 10
        finish
        grep -E '^fake_quant|time:|thrpt:' logs/kernel-benches.log || true
    fi
    if ! python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
        skip pytorch "no python3 with a torch that sees a CUDA device"
    else
        start pytorch 90 python3 pytorch.py --device cuda --seconds 0.2 --repetitions 3 --json out/pytorch.json
        finish
        cat logs/pytorch.log
    fi

    echo
    printf '%s\n' "${summary[@]}"
    if [ "$failed" -ne 0 ]; then
        echo "FAILED"
    else
        echo "all passed"
    fi
    return "$failed"
}

folder=${2:-runs/cuda-check}
case ${1:-} in
    build) build "$folder" ;;
    run) run "$folder" ;;
    *) usage ;;
esac
