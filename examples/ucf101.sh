#!/usr/bin/env bash
# UCF101 split 1 from videos to the fused accuracy of two streams: extract flow, train a network on
# flow and one on frames, test each on 250 views, fuse.
#
#   examples/ucf101.sh UCF-101 ucfTrainTestlist WORK
#   examples/ucf101.sh --small demo-output/clips/videos demo-output/clips/annotations WORK
#
# The first is TSN's recipe, for machines with GPUs; --small is the same way in small networks on
# small frames, a minute on a laptop with the clips that scripts/demo makes and ends with. Run it
# again after an interruption: extraction and training go on where they stopped. Environment:
#
#   FLOWPREP=.venv/bin/flowprep     the command
#   PROCESSES=4                     train in so many processes, each on a GPU where there are some
#   ADDRESS=auto                    extract and train on this Ray cluster
#   WEIGHTS=resnet50.pth            begin with ImageNet's weights, as TSN does (torchvision's file)
set -euo pipefail

small=
if [ "${1-}" = --small ]; then
    small=1
    shift
fi
if [ $# -ne 3 ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
videos=$1 annotations=$2 work=$3
flowprep=${FLOWPREP:-flowprep}
cluster=(${ADDRESS:+--address "$ADDRESS"})

if [ "$small" ]; then
    extraction=()
    # The classes of the clips are directions, and a mirror makes left into right: no flips.
    training=(--model resnet18 --width .25 --crop 64 --no-flip --optimizer adamw
              --learning-rate .004 --warmup .2 --batch-size 16 --steps 60 --test-every 20)
    testing=(--clips 5 --crops 5)
    training_views=(--clips 3 --crops 1)
else
    extraction=(--preset tsn)
    training=(--recipe tsn --precision bf16 ${WEIGHTS:+--weights "$WEIGHTS"}
              ${PROCESSES:+--workers "$PROCESSES" "${cluster[@]}"})
    testing=(--views 250 --precision bf16)
    training_views=(--clips 3 --crops 1 --precision bf16)
fi

"$flowprep" extract "$videos" "$work/flow" --annotations "$annotations" --split 1 \
    "${extraction[@]}" "${cluster[@]}"
"$flowprep" verify "$work/flow"

for stream in rgb flow; do
    run="$work/$stream-stream"
    "$flowprep" train "$work/flow" --run "$run" --stream "$stream" "${training[@]}"
    "$flowprep" evaluate "$work/flow" --checkpoint "$run" --to "$run/test" "${testing[@]}"
    # The scores of the training videos, for the support vector machine that fuses.
    "$flowprep" evaluate "$work/flow" --checkpoint "$run" --to "$run/train" --split train \
        "${training_views[@]}"
done

"$flowprep" fuse "$work/rgb-stream/test" "$work/flow-stream/test" --method all --to "$work/fused" \
    --train-scores "$work/rgb-stream/train" --train-scores "$work/flow-stream/train"
