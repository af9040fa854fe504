#!/usr/bin/env bash
# Builds the compiled operators (deformable convolution, attention in windows, STNO's query) for a Python that has PyTorch. Optional: all runs without, slower.
#
#   bash setup_dcn.sh            build for the active Python, unless that is done
#   bash setup_dcn.sh --clean    remove what was built
#   PYTHON=/path/python CXX=clang++ CUDA_HOME=/usr/local/cuda TORCH_CUDA_ARCH_LIST="8.0 9.0" bash setup_dcn.sh
#
# Exit codes: 0 built, already built or cleaned; 1 cannot be built (the line says what is missing); 2 wrong usage.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

case "${1:-}" in
"") ;;
--clean)
    rm -rf dcn/build
    echo "dcn: removed dcn/build"
    exit 0
    ;;
*)
    [ "$1" = --help ] || [ "$1" = -h ] || echo "setup_dcn.sh: unknown argument $1" >&2
    sed -n '2,8s/^# \{0,1\}//p' "$0"
    [ "$1" = --help ] || [ "$1" = -h ] && exit 0
    exit 2
    ;;
esac

python=${PYTHON:-}
if [ -z "$python" ]; then
    for candidate in python python3 .venv/bin/python; do
        if command -v "$candidate" >/dev/null && "$candidate" -c "import torch" 2>/dev/null; then
            python=$candidate
            break
        fi
    done
fi
if [ -z "$python" ] || ! "$python" -c "import torch" 2>/dev/null; then
    echo "dcn: not built: no Python with PyTorch (activate the environment or set PYTHON; pip install -r requirements.txt)" >&2
    exit 1
fi
exec "$python" -c "import dcn.build; raise SystemExit(dcn.build.main())"
