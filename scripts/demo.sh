#!/usr/bin/env bash
# The whole way through, on a landscape that is made here: simulate, fit, test, predict. Called by `make demo`.
# Usage: scripts/demo.sh LANDCOVER, the path of the `landcover` executable.
set -euo pipefail

landcover=${1:?"name the landcover executable, for example .venv/bin/landcover"}

# A corner of the simulated landscape: xmin, ymin, xmax, ymax in the units of its CRS.
bbox='[402500, 4594000, 406500, 4598000]'

rm -rf demo/model
"$landcover" simulate demo/data --size 768 --seed 0 --overwrite
"$landcover" fit --config configs/demo.yaml --checkpoint.dirpath demo/model
"$landcover" test --ckpt_path demo/model/best.ckpt --output.path demo/report --output.overwrite true
"$landcover" predict --ckpt_path demo/model/best.ckpt --data.bbox "$bbox" \
  --output.path demo/map.tif --output.confidence true --output.png true --output.overwrite true

cat <<END

Made by the demo:
  demo/data             simulated mosaics and labels, in CatLC layout
  demo/model/best.ckpt  the trained network, with all that mapping needs
  demo/runs             training curves and pictures: .venv/bin/tensorboard --logdir demo/runs
  demo/report           scores on the test ground: open demo/report/report.html in a browser
  demo/map.tif          the map of $bbox, for QGIS; demo/map.png shows it with a legend
END
