#!/usr/bin/env bash
# All that is measured on a GPU, in one run of less than ten minutes: bash benchmarks/cuda.sh FOLDER [PYTHON]
# Tests on the device first, then training and sampling, both sides of each comparison in one process. Each part has a
# bound of its own, so that a slow one takes no time from the others; what they print is in FOLDER/log.txt.
set -u
folder=${1:?give a folder for the log}
python=${2:-python}
cd "$(dirname "${BASH_SOURCE[0]}")/.." && mkdir -p "$folder" || exit 1
log=$folder/log.txt
: >"$log"

part() { # NAME SECONDS COMMAND...
	local name=$1 seconds=$2 status
	shift 2
	echo "== $name: $*" | tee -a "$log"
	timeout "$seconds" "$@" >>"$log" 2>&1
	status=$?
	echo "== $name ended with status $status after $SECONDS s" | tee -a "$log"
}

part device 60 "$python" benchmarks/rates.py
part tests 120 "$python" -m pytest -q -m gpu -p no:cacheprovider tests
part training 100 "$python" benchmarks/training.py 2
part fit-3x16 90 "$python" benchmarks/fit.py --repetitions 3 --steps 50
part fit-8x52 60 "$python" benchmarks/fit.py --repetitions 3 --steps 15 --qubits 8 --gates 52
part sampling 60 "$python" benchmarks/sampling.py 2 1024
part peer 80 "$python" benchmarks/peer/run.py --python "$python" --repetitions 2 --cases "training;sampling" --output "$folder/peer.json"
