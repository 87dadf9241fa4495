#!/usr/bin/env bash
# A Google Cloud TPU slice of any number of hosts: make it, install on all hosts, run on all hosts, watch, clean up.
#
#   launch/tpu_pod.sh [--dry-run] create                 make the slice
#   launch/tpu_pod.sh [--dry-run] install                copy this project (as committed) to every host and set it up
#   launch/tpu_pod.sh [--dry-run] run ARGUMENTS…         start `binlatent ARGUMENTS… --distributed` on every host
#   launch/tpu_pod.sh [--dry-run] logs                   follow what process 0 says
#   launch/tpu_pod.sh [--dry-run] errors                 the last lines of every host
#   launch/tpu_pod.sh [--dry-run] stop                   save and end (`run` with the same arguments resumes)
#   launch/tpu_pod.sh [--dry-run] delete                 give the slice back
#
# For example
#
#   export TPU_NAME=pod TPU_ZONE=us-central2-b TPU_TYPE=v4-32
#   launch/tpu_pod.sh create && launch/tpu_pod.sh install
#   launch/tpu_pod.sh run run --config imagenet_256 --config.data.path=gs://BUCKET/tfds --workdir gs://BUCKET/runs/imagenet
#
# The work directory must be one that all hosts see, so a bucket. TPU_VERSION is the image of the hosts
# (tpu-ubuntu2204-base unless set), TPU_CREATE holds further options of `create`, such as --spot or --project=NAME.
# --dry-run prints the commands and does nothing.
set -euo pipefail

usage() {
  sed -n '2,24s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 2
}

dry_run=
if [ "${1:-}" = --dry-run ]; then
  dry_run=1
  shift
fi
command=${1:-}
[ -n "$command" ] || usage
shift
: "${TPU_NAME:?set TPU_NAME, TPU_ZONE and, to create, TPU_TYPE}" "${TPU_ZONE:?set TPU_ZONE}"

cd "$(dirname "${BASH_SOURCE[0]}")/.."

do_or_say() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

tpu() {
  local verb=$1
  shift
  do_or_say gcloud compute tpus tpu-vm "$verb" "$TPU_NAME" --zone="$TPU_ZONE" "$@"
}

on_all() {
  tpu ssh --worker=all --command="$1"
}

case $command in
create)
  read -r -a more <<<"${TPU_CREATE:-}"
  tpu create --accelerator-type="${TPU_TYPE:?set TPU_TYPE, as v4-32}" --version="${TPU_VERSION:-tpu-ubuntu2204-base}" \
    ${more[@]+"${more[@]}"}
  ;;
install)
  archive=$(mktemp -d)/binlatent.tar.gz
  do_or_say git archive --format=tar.gz --output="$archive" HEAD
  do_or_say gcloud compute tpus tpu-vm scp "$archive" "$TPU_NAME":binlatent.tar.gz --zone="$TPU_ZONE" --worker=all
  # Ubuntu 22.04 brings Python 3.10
  on_all 'set -e
mkdir -p binlatent && tar -xzf binlatent.tar.gz -C binlatent
command -v python3.11 >/dev/null || { sudo apt-get -q update && sudo apt-get -q -y install python3.11 python3.11-venv; }
cd binlatent && bash -c "source launch/environment.sh tpu,gcs"'
  ;;
run)
  [ $# -gt 0 ] || usage
  arguments=$(printf '%q ' "$@")
  # setsid does not fork here, so that the id is that of the run
  on_all "cd binlatent && { nohup setsid .venv/bin/binlatent ${arguments}--distributed >run.log 2>&1 </dev/null &
echo \$! >run.pid; }"
  ;;
logs)
  tpu ssh --worker=0 --command='tail -n 50 -F binlatent/run.log'
  ;;
errors)
  # shellcheck disable=SC2016  # expanded there
  on_all 'echo "$(hostname):"; tail -n 20 binlatent/run.log'
  ;;
stop)
  # shellcheck disable=SC2016  # expanded there
  on_all 'kill -TERM "$(cat binlatent/run.pid)"'
  ;;
delete)
  tpu delete --quiet
  ;;
*)
  usage
  ;;
esac
