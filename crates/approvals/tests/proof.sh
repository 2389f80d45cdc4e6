#!/usr/bin/env bash
# The long form of the proofs about holds (`proof/`): SIM_STEPS steps of the simulation, a million by
# default, and KILLS kills of a process that keeps a store, a thousand by default.
set -euo pipefail
cd "$(dirname "$0")/../../.."

export SIM_STEPS=${SIM_STEPS:-1000000} KILLS=${KILLS:-1000}
cargo test --locked -p bartizan-approvals --test proof -- --nocapture
