#!/usr/bin/env bash
# The memory of a GPT-2 small with matrices at 4 bits and embeddings at 8: the artefact on disk, and what an evaluation
# of it holds. Weights are random, sizes are those of any GPT-2 small.
#
#   SQUAD_DATA    folder with squad/ and gpt2-tokenizer/
#   PEFT_PYTHON   Python with torch and transformers, which makes the model
#   EXAMPLES      folder of the built examples; target/release/examples
set -euo pipefail
cd "$(dirname "$0")/.."
examples=${EXAMPLES:-${CARGO_TARGET_DIR:-target}/release/examples}
if [[ -z "${SQUAD_DATA:-}" || -z "${PEFT_PYTHON:-}" ]]; then
  echo "skipped: SQUAD_DATA or PEFT_PYTHON is not set"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$PEFT_PYTHON" - "$work/model" <<'PYTHON' 2>/dev/null
import sys
import torch
from transformers import GPT2Config, GPT2ForQuestionAnswering

torch.manual_seed(0)
GPT2ForQuestionAnswering(GPT2Config()).save_pretrained(sys.argv[1])
PYTHON
cp "$SQUAD_DATA"/gpt2-tokenizer/* "$work/model"

at_most() { # NAME VALUE BOUND
  awk -v name="$1" -v value="$2" -v bound="$3" 'BEGIN {
    printf "%s %s, at most %s\n", name, value, bound; exit !(value + 0 > 0 && value + 0 <= bound + 0) }'
}
"$examples/pack_gpt2" --model "$work/model" --bits 4 --embedding-bits 8 --quantizer per-channel,symmetric,min-max \
  --out "$work/artefact" | tee "$work/packed"
at_most "largest difference of a logit, relative" \
  "$(awk '/largest difference/ { print ($(NF - 3) + 0) / $NF }' "$work/packed")" 1e-5
bytes=$(du -sb "$work/artefact" | cut -f1)
at_most "artefact, bytes" "$bytes" 92000000
at_most "share of the model in f32" "$(awk -v bytes="$bytes" 'BEGIN { print bytes / (4 * 124439808) }')" 0.19
"$examples/evaluate" --model "$work/artefact" --data "$SQUAD_DATA/squad/dev-v1.1-part.json" --limit 24 --untimed --quiet \
  | tee "$work/evaluated"
at_most "resident in all, MB" "$(awk '/^resident:/ { print $(NF - 1) }' "$work/evaluated")" 400
