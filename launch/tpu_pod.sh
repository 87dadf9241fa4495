#!/usr/bin/env bash
# A Google Cloud TPU slice of any number of hosts: create it, install and run on all hosts, follow the logs, delete it.
#
#   launch/tpu_pod.sh [--dry-run] create                 create the slice
#   launch/tpu_pod.sh [--dry-run] install                copy the last commit to every host and set it up
#   launch/tpu_pod.sh [--dry-run] run ARGUMENTS…         start `binlatent ARGUMENTS… --distributed` on every host
#   launch/tpu_pod.sh [--dry-run] logs                   follow the output of process 0
#   launch/tpu_pod.sh [--dry-run] errors                 show the last lines of every host
#   launch/tpu_pod.sh [--dry-run] stop                   save and stop (`run` with the same arguments resumes)
#   launch/tpu_pod.sh [--dry-run] delete                 delete the slice
#
# For example
#
#   export TPU_NAME=pod TPU_ZONE=us-central2-b TPU_TYPE=v4-32
#   launch/tpu_pod.sh create && launch/tpu_pod.sh install
#   launch/tpu_pod.sh run run --config imagenet_256 --config.data.path=gs://BUCKET/tfds --workdir gs://BUCKET/runs/imagenet
#
# All hosts must be able to access the work directory, so it must be in a bucket. TPU_VERSION is the hosts' image (default:
# tpu-ubuntu2204-base), TPU_CREATE has further options for `create`, such as --spot or --project=NAME.
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
: "${TPU_NAME:?set TPU_NAME, TPU_ZONE and, for create, TPU_TYPE}" "${TPU_ZONE:?set TPU_ZONE}"

cd "$(dirname "${BASH_SOURCE[0]}")/.."

execute() {
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
  execute gcloud compute tpus tpu-vm "$verb" "$TPU_NAME" --zone="$TPU_ZONE" "$@"
}

on_all() {
  tpu ssh --worker=all --command="$1"
}

case $command in
create)
  read -r -a more <<<"${TPU_CREATE:-}"
  tpu create --accelerator-type="${TPU_TYPE:?set TPU_TYPE, such as v4-32}" --version="${TPU_VERSION:-tpu-ubuntu2204-base}" \
    ${more[@]+"${more[@]}"}
  ;;
install)
  archive=$(mktemp -d)/binlatent.tar.gz
  execute git archive --format=tar.gz --output="$archive" HEAD
  execute gcloud compute tpus tpu-vm scp "$archive" "$TPU_NAME":binlatent.tar.gz --zone="$TPU_ZONE" --worker=all
  # Ubuntu 22.04 has Python 3.10
  on_all 'set -e
mkdir -p binlatent && tar -xzf binlatent.tar.gz -C binlatent
command -v python3.11 >/dev/null || { sudo apt-get -q update && sudo apt-get -q -y install python3.11 python3.11-venv; }
cd binlatent && bash -c "source launch/environment.sh tpu,gcs"'
  ;;
run)
  [ $# -gt 0 ] || usage
  arguments=$(printf '%q ' "$@")
  # setsid does not fork here, so run.pid is the process id of the run
  on_all "cd binlatent && { nohup setsid .venv/bin/binlatent ${arguments}--distributed >run.log 2>&1 </dev/null &
echo \$! >run.pid; }"
  ;;
logs)
  tpu ssh --worker=0 --command='tail -n 50 -F binlatent/run.log'
  ;;
errors)
  # shellcheck disable=SC2016  # expanded on the hosts
  on_all 'echo "$(hostname):"; tail -n 20 binlatent/run.log'
  ;;
stop)
  # shellcheck disable=SC2016  # expanded on the hosts
  on_all 'kill -TERM "$(cat binlatent/run.pid)"'
  ;;
delete)
  tpu delete --quiet
  ;;
*)
  usage
  ;;
esac
