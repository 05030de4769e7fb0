#!/usr/bin/env bash
# The first minutes on a machine with GPUs, in one command: what works there, how fast, in how much memory.
#
#   tools/gpu_check.sh [FILE]
#
# writes one text file (gpu_check.txt) to attach to an issue. A run that fails or takes too long is noted, and
# the next one begins; the end of the file lists what failed and what could not be checked. Without a GPU all
# parts run in small, which checks this script and the others, and tells nothing about GPUs.
#
# Environment: PYTHON, the interpreter (.venv's, else python); GPU_CHECK_LIMIT, seconds that a run may take;
# GPU_CHECK_CROP, _BATCH, _STEPS, _REPEATS, _NETWORKS, _PRECISIONS, _IMAGES and _SIZES make it larger or
# smaller; GPU_CHECK_PARTS, the parts to run, such as "devices steps": by default all that `begins` below.
set -uo pipefail

report=$(realpath -m "${1:-gpu_check.txt}")
cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/.." || exit 2
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
: > "$report" || exit 2

failed=() unchecked=()
# Lines that TensorFlow prints before it can be told not to.
noise='^[WIE]0000 \|^WARNING: All log messages before absl\|^To enable the following instructions'
say() { printf '%s\n' "$*" | tee -a "$report"; }
unchecked() { say "NOT CHECKED: $*"; unchecked+=("$*"); }

# begins PART: whether it is asked for; its title then.
begins() {
  [[ " ${GPU_CHECK_PARTS:-$1} " == *" $1 "* ]] || return 1
  say
  say "=== $1"
}

# run TITLE COMMAND...: its output, without the progress bars' earlier states, its status and its seconds.
run() {
  local title=$1 begun=$SECONDS status
  shift
  say "--- $title"
  say "\$ $(printf '%q ' "$@" | cut -c-600)"
  timeout --kill-after=10 "$limit" "$@" > "$scratch/output" 2>&1 < /dev/null
  status=$?
  sed 's/.*\r//' "$scratch/output" | grep -v "$noise" | tail -n 60 | tee -a "$report"
  say "($((SECONDS - begun)) s, status $status)"
  case $status in
    0) return 0 ;;
    124 | 137) failed+=("$title (stopped after $limit s)") ;;
    *) failed+=("$title (status $status)") ;;
  esac
  return "$status"
}

# run_watched TITLE COMMAND...: the same, and how much of each GPU's memory was in use meanwhile.
used() { nvidia-smi --query-gpu=index,memory.used --format=csv,noheader,nounits 2> /dev/null | tr -d ,; }
run_watched() {
  local title=$1 before watcher status
  before=$(used)
  [ -n "$before" ] || { unchecked "memory on the device in: $title (no nvidia-smi)"; run "$@"; return; }
  (while sleep 0.5; do used; done) > "$scratch/memory" &
  watcher=$!
  run "$@"
  status=$?
  kill "$watcher"
  wait "$watcher" 2> /dev/null
  say 'memory in use by all processes, MiB, one line for each GPU: its number, before, most, after'
  used > "$scratch/after"
  awk 'FILENAME == ARGV[1] { before[$1] = $2 } FILENAME == ARGV[2] && $2 > most[$1] { most[$1] = $2 }
       FILENAME == ARGV[3] { print $1, before[$1], most[$1], $2 }' \
    <(echo "$before") "$scratch/memory" "$scratch/after" | tee -a "$report"
  return "$status"
}

# measure NAME PERSISTENT FLAGS...: a training step by tools/benchmark.py, with cuDNN's fast batch norm for
# half precision (1) or without (0); its numbers stay for the table at the end.
measure() {
  local name=$1 persistent=$2
  shift 2
  run "train $name" env TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT="$persistent" "$python" tools/benchmark.py \
    train "${small[@]}" --steps "$steps" --warmup "$warmup" --repeats "$repeats" \
    --json "$scratch/train $name.json" "$@"
}

table() {
  "$python" - "$scratch" << 'PYTHON' 2>&1 | tee -a "$report"
import glob, json, os, sys
found = sorted(glob.glob(os.path.join(sys.argv[1], 'train *.json')), key=os.path.getmtime)
print(f'{"":52}{"images/s":>10}{"s/step":>10}{"TFLOP/s":>10}{"of peak":>10}{"device MiB":>12}')
for path in found:
  with open(path) as file:
    train = json.load(file)['train']
  for variant, row in train.items():
    if variant != 'faster':
      name = os.path.basename(path)[6:-5] + ('' if variant == 'ours' else ' ' + variant)
      cells = [row.get(key, {}).get('median') for key in (
          'images_per_s', 's_per_step', 'tflop_per_s', 'share_of_peak', 'peak_device_mib')]
      print(f'{name:52}' + ''.join(f'{"-" if cell is None else format(cell, ".4g"):>{width}}'
                                   for cell, width in zip(cells, (10, 10, 10, 10, 12))))
if not found:
  print('no training step was measured')
PYTHON
}

# --- What is here ---

commit=$(git rev-parse --short HEAD 2> /dev/null || echo unknown)
git diff --quiet HEAD 2> /dev/null || commit+=', changed'
say "gpu_check, $(date -u '+%Y-%m-%d %H:%M UTC'), commit $commit"
count='import tensorflow as tf; print(len(tf.config.list_physical_devices("GPU")))'
gpus=$("$python" -c "$count" 2> /dev/null) || gpus=
case $gpus in
  '' | *[!0-9]*) say "TensorFlow cannot be imported by $python; set PYTHON"; exit 1 ;;
  0) say 'TensorFlow sees no GPU: everything below ran on the CPU, in small. No figure here is one of a GPU.'
     unchecked 'anything on a GPU'
     crop=${GPU_CHECK_CROP:-65 97} batch=${GPU_CHECK_BATCH:-2} steps=${GPU_CHECK_STEPS:-1} warmup=1
     images=6 sizes=3 scene='72 96' limit=${GPU_CHECK_LIMIT:-240} ;;
  *) say "GPUs that TensorFlow sees: $gpus"
     crop=${GPU_CHECK_CROP:-513 513} batch=${GPU_CHECK_BATCH:-8} steps=${GPU_CHECK_STEPS:-20} warmup=5
     images=60 sizes=30 scene='375 500' limit=${GPU_CHECK_LIMIT:-600} ;;
esac
repeats=${GPU_CHECK_REPEATS:-1} images=${GPU_CHECK_IMAGES:-$images} sizes=${GPU_CHECK_SIZES:-$sizes}
networks=${GPU_CHECK_NETWORKS:-mobilenet_v2_dm05 resnet_v2_50 xception_65}
precisions=${GPU_CHECK_PRECISIONS:-fp32 fp16 bf16}
# shellcheck disable=SC2206 # numbers
small=(--crop_size $crop --batch_size "$batch")
first=${networks%% *}

if begins 'devices'; then
  run 'TensorFlow' "$python" -c '
import os, platform, tensorflow as tf
print("Python", platform.python_version(), "TensorFlow", tf.__version__)
print("build:", {k: str(v) for k, v in tf.sysconfig.get_build_info().items() if k != "cpu_compiler"})
for gpu in tf.config.list_physical_devices("GPU"):
  print(gpu.name, tf.config.experimental.get_device_details(gpu))
print("cores:", len(os.sched_getaffinity(0)))
print("environment:", {k: v for k, v in sorted(os.environ.items())
                       if k.startswith(("TF_", "CUDA_", "NCCL_", "NVIDIA_TF32", "XLA_")) and "CLI" not in k})'
  run 'packages' "$python" -c '
import importlib.metadata as metadata
for name, version in sorted({(found.name or "", found.version) for found in metadata.distributions()}):
  if name.lower().startswith(("tensorflow", "nvidia", "torch", "keras", "numpy")):
    print(name, version)'
  if command -v nvidia-smi > /dev/null; then
    run 'nvidia-smi' nvidia-smi
  else
    unchecked 'driver, cards and their memory (no nvidia-smi)'
  fi
fi

# --- Data, a training, and what follows from it ---

if begins 'data'; then
  # shellcheck disable=SC2086 # two numbers
  run 'scenes' "$python" dataset/make_sample_data.py --output_dir "$scratch/data" --num_train $((4 * batch)) \
    --num_val "$images" --size $scene
  # Each image of a group gets a size of its own; the next group has the same sizes again.
  run 'sizes of the validation images' "$python" -c '
import os, sys
from PIL import Image
folder, sizes, found = sys.argv[1], int(sys.argv[2]), []
for position, name in enumerate(open(os.path.join(folder, "val.txt")).read().split()):
  for kind in (f"JPEGImages/{name}.jpg", f"SegmentationClassAug/{name}.png"):
    path = os.path.join(folder, kind)
    image = Image.open(path)
    image.load()
    less = position % sizes
    image = image.crop((0, 0, image.width - less, image.height - less // 2))
    image.save(path)
  found.append(image.size)
print(f"{len(found)} images of {len(set(found))} sizes, from {min(found)} to {max(found)}, width first")' \
    "$scratch/data" "$sizes"
  run 'records' "$python" create_pascal_tf_record.py --dataset "$scratch/data/sample.json" \
    --data_dir "$scratch/data" --train_data_list "$scratch/data/train.txt" \
    --valid_data_list "$scratch/data/val.txt" --output_path "$scratch/data"
fi

data=(--dataset "$scratch/data/sample.json" --data_dir "$scratch/data")
training=("${data[@]}" --base_architecture "$first" --pre_trained_model none "${small[@]}"
          --batch_norm_decay 0.9)

if begins 'training'; then
  run_watched 'train.py' "$python" train.py "${training[@]}" --model_dir "$scratch/model" \
    --max_steps "$steps" --train_epochs 1000 --epochs_per_eval 1000
fi

# evaluate AUTOTUNE: scores all images; when each prediction was written tells the seconds of each image.
evaluate() {
  run "evaluate.py, TF_CUDNN_USE_AUTOTUNE=$1" env TF_CUDNN_USE_AUTOTUNE="$1" "$python" evaluate.py \
    --model_dir "$scratch/model" --image_data_dir "$scratch/data/JPEGImages" \
    --label_data_dir "$scratch/data/SegmentationClassAug" --evaluation_data_list "$scratch/data/val.txt" \
    --save_predictions "$scratch/predictions $1" || return
  "$python" -c '
import os, sys
folder, names = sys.argv[1], open(sys.argv[2]).read().split()
written = [os.stat(os.path.join(folder, f"{name}.png")).st_mtime_ns for name in names]
print("seconds from one image to the next, in order (the first is not known):",
      " ".join(f"{(now - before) / 1e9:.3f}" for before, now in zip(written, written[1:])))' \
    "$scratch/predictions $1" "$scratch/data/val.txt" 2>&1 | tee -a "$report"
}
if begins 'evaluation'; then
  evaluate 1
  evaluate 0
  [ "$gpus" -gt 0 ] || unchecked 'what autotuning costs (cuDNN alone has it)'
fi

if begins 'export'; then
  run 'export_inference_graph.py' "$python" export_inference_graph.py --model_dir "$scratch/model" \
    --export_dir "$scratch/export"
fi

# --- Speed ---

if begins 'steps'; then
  for network in $networks; do
    for precision in $precisions; do
      measure "$network $precision" 1 --base_architecture "$network" --precision "$precision"
    done
  done
fi

if begins 'variants'; then
  network=$([[ " $networks " == *' resnet_v2_50 '* ]] && echo resnet_v2_50 || echo "$first")
  flags=(--base_architecture "$network")
  if [ "$gpus" -gt 0 ]; then
    for precision in $precisions; do
      if [ "$precision" = fp32 ]; then
        measure "$network fp32 channels_last" 1 "${flags[@]}" --data_format channels_last
        measure "$network fp32 recompute" 1 "${flags[@]}" --recompute
      else
        measure "$network $precision slow batch norm" 0 "${flags[@]}" --precision "$precision"
        measure "$network $precision channels_first" 1 "${flags[@]}" --precision "$precision" \
          --data_format channels_first
      fi
      measure "$network $precision xla" 1 "${flags[@]}" --precision "$precision" --xla
    done
  else
    measure "$network fp32 recompute" 1 "${flags[@]}" --recompute
    unchecked 'channels first, the fast batch norm of half precision and XLA: CPUs have none of them'
  fi
fi

if begins 'pytorch'; then
  if "$python" -c 'import torch' 2> /dev/null; then
    for precision in $precisions; do
      measure "resnet_v2_50 $precision beside" 1 --base_architecture resnet_v2_50 --precision "$precision" \
        --vs pytorch
    done
  else
    unchecked 'PyTorch beside ours (torch is not installed)'
  fi
fi

# --- Memory ---

# predicted NAME FLAGS...: what tools/benchmark.py memory says beside what the step of that name needed.
predicted() {
  local name=$1
  shift
  run "memory $name" "$python" tools/benchmark.py memory "${small[@]}" --json "$scratch/memory.json" "$@" ||
    return
  "$python" -c '
import json, os, sys
memory, train, name = json.load(open(sys.argv[1]))["memory"], sys.argv[2], sys.argv[3]
total, workspace = (memory[key + "_bytes"] / 2**20 for key in ("total", "workspace"))
print(f"{name}: predicted {total:,.0f} MiB, of which {workspace:,.0f} are workspace, an estimate;", end=" ")
ours = json.load(open(train))["train"]["ours"] if os.path.exists(train) else {}
if "peak_device_mib" in ours:
  seen = ours["peak_device_mib"]["min"]  # of the first block: later, of plain products too
  print(f"measured {seen:,.0f} MiB; predicted / measured is {total / seen:.2f}")
else:
  print("no such step was measured on a GPU")' \
    "$scratch/memory.json" "$scratch/train $name.json" "$name" 2>&1 | tee -a "$report"
}
if begins 'memory'; then
  for network in $networks; do
    for precision in $precisions; do
      predicted "$network $precision" --base_architecture "$network" --precision "$precision"
    done
  done
  network=$([[ " $networks " == *' resnet_v2_50 '* ]] && echo resnet_v2_50 || echo "$first")
  predicted "$network fp32 recompute" --base_architecture "$network" --recompute
  [ "$gpus" -gt 0 ] || unchecked 'predicted memory beside the measured peak of a GPU'
fi

if begins 'auto'; then
  if [ "$gpus" -gt 0 ]; then
    run_watched 'train.py --batch_size auto' "$python" train.py "${training[@]}" --batch_size auto \
      --base_architecture resnet_v2_50 --model_dir "$scratch/auto" --max_steps 2
  else
    unchecked '--batch_size auto (it needs a GPU)'
  fi
fi

if begins 'gpus'; then
  if [ "$gpus" -gt 1 ]; then
    for sync in on off; do
      run_watched "train.py --num_gpus 2 --sync_batch_norm $sync" "$python" train.py "${training[@]}" \
        --batch_size $((2 * batch)) --num_gpus 2 --sync_batch_norm "$sync" --model_dir "$scratch/two $sync" \
        --max_steps "$steps" --train_epochs 1000 --epochs_per_eval 1000
    done
  else
    unchecked "two GPUs (here: $gpus)"
  fi
fi

# --- The end ---

say
say "=== training steps, $crop, batch $batch, $steps steps$([ "$gpus" -gt 0 ] ||
  echo ', on the CPU: such small steps say nothing of speed')"
table
say
say "=== the end, after $SECONDS s"
say "failed: ${#failed[@]}"
[ ${#failed[@]} -eq 0 ] || printf '  %s\n' "${failed[@]}" | tee -a "$report"
say "not checked: ${#unchecked[@]}"
[ ${#unchecked[@]} -eq 0 ] || printf '  %s\n' "${unchecked[@]}" | tee -a "$report"
say "This is in $report"
[ ${#failed[@]} -eq 0 ]
