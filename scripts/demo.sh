#!/usr/bin/env bash
# The whole way through, on a landscape that is made here: simulate, fit, test, predict. Called by `make demo`.
# Usage: scripts/demo.sh LANDCOVER, the path of the `landcover` executable.
set -euo pipefail

landcover=${1:?"name the landcover executable, for example .venv/bin/landcover"}

# A corner of the simulated landscape: xmin, ymin, xmax, ymax in the units of its CRS.
bbox='[450000, 4580000, 453840, 4583840]'

"$landcover" simulate demo/data --size 768 --seed 0 --overwrite
"$landcover" fit --config configs/demo.yaml --data.root demo/data --trainer.default_root_dir demo/run
"$landcover" test --ckpt_path demo/run/best.ckpt --output.path demo/report
"$landcover" predict --ckpt_path demo/run/best.ckpt --data.bbox "$bbox" --output.path demo/map.tif

cat <<END

Made by the demo:
  demo/data           the simulated mosaics and labels
  demo/run/best.ckpt  the trained model
  demo/report         its scores on the test blocks
  demo/map.tif        the map of $bbox
END
