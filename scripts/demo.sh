#!/usr/bin/env bash
# 32 users ask one shop: the shop's text is held, computed and read once. Usage: scripts/demo.sh BUILD
set -euo pipefail
cd "$(dirname "$0")/.."
coppice=$1/tools/coppice
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$coppice" eval --facts "${FACTS:-32}" --samples 32 --per-shop 32 --write-batch "$work/shop.jsonl"
for round in 1 2 3 4 5; do  # in turn: a run is short, and the machine's other work falls on both
  for attention in two-phase per-sequence; do
    "$coppice" generate --batch "$work/shop.jsonl" --attention $attention --json > "$work/$attention.$round.jsonl"
  done
done
"$coppice" bench attention --heads 32 --kv-heads 32 --head-dim 128 --batch 32 --shared 4096 \
  --private 128 --json > "$work/bench.jsonl"
python3 scripts/demo_report.py "$work"
