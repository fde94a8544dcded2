#!/usr/bin/env bash
#
# Half an hour with a GPU: what is built here trains the reader of real English there.
#
#     scripts/gpu-day.sh build [FOLDER]       archives of programs and data into FOLDER, none above 32 MB; needs cargo and
#                                             SQUAD_DATA, no GPU
#     scripts/gpu-day.sh run [FOLDER] [OUT]   trains from them: 10 minutes on an H100 with 16 cores; results into OUT in pieces
#                                             of at most 15 MB. Needs python3 with torch, tokenizers, safetensors and
#                                             pyarrow; no cargo, no network
#     scripts/gpu-day.sh join OUT MODEL       the pieces as a model folder, and MODEL-int8, a quarter as large
#     scripts/gpu-day.sh rehearse [FOLDER]    all of it at toy size on the CPU, in some minutes
#
# FOLDER is runs/gpu-day by default and holds a copy of this script; OUT is FOLDER/out. Archives are `archive-*`: a machine
# that takes little at once can be given one after the other. With the folder of `scripts/cuda-check.sh build` as
# FOLDER/cuda-check its checks run beside the training, and leave their logs in OUT.
#
# PYTHON           the Python that runs the training, python3
# TEXT_TOKENS      tokens of running text, 110,000,000
# CLOZE_QUESTIONS  cloze questions, 1,000,000
# SQUAD_EPOCHS     passes over the real questions, 7
# DEVICE           cuda; cpu for a rehearsal

set -euo pipefail

python=${PYTHON:-python3}
shape=(--layers 12 --embedding 192 --heads 6 --positions 512 --context-reads 2 --initializer-range 0.03 --matching)

usage() {
    sed -n '3,26s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

# pack NAME PATH..: an archive of paths below the current folder.
pack() {
    local name=$1
    shift
    tar --create --xz --file "$folder/archive-$name.tar.xz" "$@"
}

build() {
    local data=${SQUAD_DATA:?names no folder of data}
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    cargo build --release -p switchable-quant-examples --example pretrain --example cloze_questions
    stage=$(mktemp -d)
    trap 'rm -rf "$stage"' EXIT
    cp "${CARGO_TARGET_DIR:-target}"/release/examples/{pretrain,cloze_questions} "$stage/"
    strip "$stage/pretrain" "$stage/cloze_questions"
    # The tokenizer, and random weights that a seed makes again.
    "$stage/pretrain" --device cpu --text "$data/wikipedia/train-0.txt.zst" --vocabulary 8192 --tokenizer-documents 2500 \
        "${shape[@]}" --window 64 --steps 1 --batch 1 --micro-batches 1 --learning-rate 1e-9 --seed 1 --quiet \
        --out "$stage/start"
    mkdir "$stage/tokenizer"
    cp "$stage/start/model/"*.json "$stage/tokenizer/"
    cp -r "$data/squad/train" "$stage/squad"
    chmod -R u+w "$stage/squad"
    cp scripts/train_reader.py "$stage/"
    (cd "$stage" && pack programs pretrain cloze_questions tokenizer squad train_reader.py)
    for text in "$data"/wikipedia/train-*.txt.zst; do
        cp "$text" "$folder/archive-$(basename "$text")"
        chmod u+w "$folder/archive-$(basename "$text")"
    done
    cp scripts/gpu-day.sh "$folder/"
    du -sh "$folder"
}

run() {
    local out=${1:-$folder/out} work text name checks=
    mkdir -p "$out"
    out=$(cd "$out" && pwd)
    cd "$folder"
    work=$folder/work
    rm -rf "$work"
    mkdir "$work"
    "$python" - "$work" <<'PYTHON'
import sys, tarfile
with tarfile.open("archive-programs.tar.xz") as archive:
    archive.extractall(sys.argv[1], filter="data")
PYTHON
    cd "$work"
    chmod +x pretrain cloze_questions
    if [ -x "$folder/cuda-check/cuda-check.sh" ]; then
        ("$folder/cuda-check/cuda-check.sh" run "$folder/cuda-check" >"$out/cuda-check.log" 2>&1 || true) &
        checks=$!
    fi
    "$python" -c "print('a word here and a word there. ' * 200)" >words.txt
    ./pretrain --device cpu --text words.txt --tokenizer tokenizer "${shape[@]}" --window 16 --steps 1 --batch 1 \
        --micro-batches 1 --learning-rate 1e-9 --seed 1 --quiet --out start
    local texts=() questions=() jobs=() number=0
    for text in "$folder"/archive-train-*.txt*; do
        name=$(basename "$text")
        name=${name#archive-}
        ln -s "$text" "$name"
        texts+=("$name")
        questions+=("cloze-$number/cloze.json")
        ./cloze_questions --text "$name" --questions $((${CLOZE_QUESTIONS:-1000000} / 4)) --words 100 --seed "$number" \
            --out "cloze-$number" &
        jobs+=($!)
        number=$((number + 1))
    done
    for job in "${jobs[@]}"; do wait "$job"; done
    PYTHONUNBUFFERED=1 "$python" train_reader.py --device "${DEVICE:-cuda}" --model start/model --text "${texts[@]}" \
        --cloze "${questions[@]}" --squad squad/squad-v1.1-train-12-articles.json squad/squadshifts-*.json \
        --held-out squad/squad-v1.1-train-sampled-paragraphs.json --out trained \
        --text-tokens "${TEXT_TOKENS:-110000000}" --cloze-questions "${CLOZE_QUESTIONS:-1000000}" \
        --squad-epochs "${SQUAD_EPOCHS:-7}" ${TRAIN_FLAGS:-} 2>&1 | tee "$out/train.log"
    split --bytes 15000000 trained/squad/model.safetensors "$out/model.safetensors.part-"
    cp trained/squad/*.json trained/train_reader.json trained/train.jsonl "$out/"
    if [ -n "$checks" ]; then
        wait "$checks"
        tail -n 20 "$out/cuda-check.log"
    fi
    echo "wrote $out"
}

join() {
    local out=$1 model=$2
    mkdir -p "$model"
    cat "$out"/model.safetensors.part-* >"$model/model.safetensors"
    cp "$out"/config.json "$out"/tokenizer*.json "$model/"
    "$python" "$(dirname "${BASH_SOURCE[0]}")/store_int8.py" "$model" "$model-int8"
    du -sh "$model" "$model-int8"
}

rehearse() {
    # A small model, and archives that are packed in a hurry: only the way is tried.
    shape=(--layers 2 --embedding 48 --heads 2 --positions 512 --context-reads 2 --initializer-range 0.03 --matching)
    export XZ_OPT=-0
    build
    # One text, cut short.
    rm -f "$folder"/archive-train-*
    (set +o pipefail && zstd -dc "$SQUAD_DATA/wikipedia/validation.txt.zst" | head -c 400000) >"$folder/archive-train-0.txt"
    export DEVICE=cpu TEXT_TOKENS=4000 CLOZE_QUESTIONS=80 SQUAD_EPOCHS=0.0002
    export TRAIN_FLAGS="--tokens 2048 --held-out-questions 20"
    (run "$folder/out")
    join "$folder/out" "$folder/model"
}

command=${1:-}
case $command in
    build | run | rehearse)
        folder=${2:-runs/gpu-day}
        mkdir -p "$folder"
        folder=$(cd "$folder" && pwd)
        "$command" "${@:3}"
        ;;
    join) [ $# -eq 3 ] || usage; join "$2" "$3" ;;
    *) usage ;;
esac
