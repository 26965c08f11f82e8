#!/usr/bin/env bash
# A real Slurm on one machine, for testing the Slurm backend: several simulated nodes with fake GPUs.
#
#   export SLURM_CONF=$(scripts/slurm-testbed.sh start [--nodes N] [--gpus G] [--cpus C] [--fresh])
#   scripts/slurm-testbed.sh stop [--purge]
#   scripts/slurm-testbed.sh kill-controller | start-controller
#   scripts/slurm-testbed.sh kill-node NAME | start-node NAME
#
# start: 2 nodes (sim1, sim2) of 8 GPUs and 32 CPUs unless told otherwise. Returns when every node takes jobs, and
#   prints the path of slurm.conf, nothing else, on stdout. What runs already is left alone, jobs included; what is
#   missing is started. Another size restarts all and cancels the jobs. --fresh forgets all jobs: ids begin at 1.
# stop: cancels all jobs and stops the daemons. The next start still knows the old jobs; --purge removes every trace.
# kill-controller: kill -9 of slurmctld; jobs go on. start-controller: starts it again with the state it had saved.
# kill-node: kill -9 of a node's slurmd and of everything its jobs run; the controller notices after about 30 s.
#   start-node: starts slurmd again, and the node takes jobs again even if it was down or drained.
#
# Needs Debian or Ubuntu; root is not needed once slurmctld, slurmd, slurm-client and munge are installed (root gets
# them from apt). Root makes it more real: `hostname` in a job is the node's, node names resolve (lines in /etc/hosts),
# other users may submit. No system Slurm or munge is touched: configuration, key, sockets and logs are all in
# ${LOSSFLOOR_SLURM_TESTBED:-/tmp/lossfloor-slurm-testbed}. TCP ports: 26817, and 26821 on, one a node.
#
# Not real: the GPUs are copies of /dev/null, memory and CPUs are scheduled but not enforced (no cgroups), and there
# is no accounting (sacct). Partitions: main (the default), and preempt, whose jobs give way to main's: they have 5 s of
# grace and are requeued.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=common.sh disable=SC1091
source "$here/common.sh"

state=${LOSSFLOOR_SLURM_TESTBED:-/tmp/lossfloor-slurm-testbed}
state=${state%/}
conf=$state/slurm.conf
lock_file=$state/.lossfloor-slurm-testbed # also what makes a folder ours
munge_socket=$state/run/munge.socket
controller_port=26817
node_port=26820 # plus the node's number
hosts_mark='# lossfloor-slurm-testbed'
patience=60 # seconds, for anything to come up

nodes=2 gpus=8 cpus=32
declare -A launched=() # when this call started a node's slurmd, by node

main() {
  local command=${1:-} option=''
  (($# == 0)) || shift
  case $command in
    start) ;;
    stop | kill-controller | start-controller | kill-node | start-node)
      (($# <= 1)) || usage
      option=${1:-}
      ;;
    *) usage ;;
  esac
  prepare_environment
  case $command in
    start) start "$@" ;;
    stop) stop "$option" ;;
    kill-controller | start-controller)
      [[ -z $option ]] || usage
      need_testbed
      "${command/-/_}"
      ;;
    kill-node | start-node)
      [[ -n $option ]] || usage
      need_node "$option"
      "${command/-/_}" "$option"
      ;;
  esac
}

usage() {
  die "usage: scripts/slurm-testbed.sh start [--nodes N] [--gpus G] [--cpus C] [--fresh] | stop [--purge] |" \
    "kill-controller | start-controller | kill-node NAME | start-node NAME"
}

prepare_environment() {
  # Such paths need no quoting in slurm.conf, and sockets below them stay short enough for the kernel.
  [[ $state =~ ^/[A-Za-z0-9._/-]{1,70}$ ]] ||
    die "LOSSFLOOR_SLURM_TESTBED='$state' will not do: give an absolute path of letters, digits and ._/-, at most 70"
  [[ ! -e $state || -O $state ]] || die "$state belongs to another user: set LOSSFLOOR_SLURM_TESTBED to another folder"
  # Formats and filters the caller may have set would change what the commands below print.
  unset "${!SLURM_@}" "${!SQUEUE_@}" "${!SCANCEL_@}"
  export SLURM_CONF=$conf PATH=$PATH:/usr/sbin:/sbin
  umask 022
}

# One command at a time. A lock file that a purge took away while we waited for it locks nothing: then once more.
lock() {
  while true; do
    { mkdir -p "$state" && exec 9>"$lock_file"; } 2>/dev/null || die "cannot write to $state"
    flock 9
    [[ ! $lock_file -ef /proc/self/fd/9 ]] || return 0
  done
}

need_testbed() {
  [[ -f $conf ]] || die "there is no testbed in $state: run scripts/slurm-testbed.sh start"
  lock
}

need_node() {
  need_testbed
  grep -q "^NodeName=$1 " "$conf" || die "no node '$1': there is $(node_names | paste -sd ' ')"
}

node_names() { sed -n 's/^NodeName=\([^ ]*\) .*/\1/p' "$conf"; }

# --- Commands ---------------------------------------------------------------------------------------------

start() {
  local fresh=false node
  while (($# > 0)); do
    case $1 in
      --fresh) fresh=true ;;
      --nodes | --gpus | --cpus)
        # 64: as many consoles there are to stand in for GPUs.
        [[ ${2:-} =~ ^([1-9]|[1-5][0-9]|6[0-4])$ ]] || die "$1 takes a number from 1 to 64"
        printf -v "${1#--}" '%s' "$2"
        shift
        ;;
      *) usage ;;
    esac
    shift
  done

  [[ -e $lock_file || ! -e $state || -z $(ls -A "$state") ]] ||
    die "$state holds files that are not a testbed's: set LOSSFLOOR_SLURM_TESTBED to another folder"
  need_packages
  lock
  mkdir -p "$state"/{controller,gpu,log,run,spool}
  if $fresh; then
    stop_daemons
    rm -rf "$state"/{controller,log,spool}/*
  fi
  configure
  add_hosts
  start_munge
  start_slurmctld
  for node in $(node_names); do
    start_slurmd "$node"
  done
  within $patience nodes_ready || nodes_missing
  say "ready: $nodes x ($gpus GPUs, $cpus CPUs), logs in $state/log"
  printf '%s\n' "$conf"
}

stop() {
  case $1 in
    '' | --purge) ;;
    *) usage ;;
  esac
  [[ -e $lock_file ]] || return 0
  lock
  stop_daemons
  say "stopped"
  if [[ $1 == --purge ]]; then
    remove_hosts
    rm -rf "$state"
    say "removed $state"
  fi
}

kill_controller() {
  end_daemon slurmctld KILL
  say "slurmctld is killed"
}

start_controller() {
  start_munge
  start_slurmctld
  say "slurmctld is up"
}

kill_node() {
  kill_processes_of "$1"
  rm -f "$state/run/$1.pid"
  say "$1 is killed"
}

start_node() {
  start_munge
  start_slurmd "$1"
  within $patience nodes_ready "$1" || nodes_missing
  say "$1 is up"
}

# --- Packages and configuration ---------------------------------------------------------------------------

need_packages() {
  local program
  for program in slurmctld slurmd sbatch munged; do
    if ! command -v "$program" >/dev/null; then
      install_packages
      return
    fi
  done
}

install_packages() {
  local -a packages=(slurmctld slurmd slurm-client munge)
  local log=$state/log/apt.log
  command -v apt-get >/dev/null || die "Slurm is missing, and this is no Debian or Ubuntu: install ${packages[*]}"
  ((EUID == 0)) || die "Slurm is missing: sudo apt-get install --no-install-recommends ${packages[*]}"
  lock
  mkdir -p "$state/log"
  say "installing ${packages[*]}"
  # Without /etc/slurm/slurm.conf, the packages' own services start nothing but munge.
  {
    apt-get update &&
      DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${packages[@]}"
  } </dev/null >"$log" 2>&1 9>&- || die "apt-get could not install ${packages[*]}: $(tail -n 1 "$log") (all: $log)"
}

# Writes the configuration. One that differs from what may be running stops that first.
configure() {
  local gpu_files file changed=false
  gpu_files=$(make_gpus)
  slurm_conf >"$conf.new"
  printf '%s\n' AutoDetect=off "Name=gpu Type=fake File=$gpu_files Flags=nvidia_gpu_env" >"$state/gres.conf.new"
  printf '%s\n' "CgroupPlugin=$(cgroup_plugin)" >"$state/cgroup.conf.new"
  for file in slurm.conf gres.conf cgroup.conf; do
    cmp -s "$state/$file.new" "$state/$file" || changed=true
  done
  ! $changed || stop_daemons
  for file in slurm.conf gres.conf cgroup.conf; do
    mv "$state/$file.new" "$state/$file"
  done
}

# Prints the files that pass for GPUs. Slurm takes nothing but distinct character devices; who may not make some has
# the consoles.
make_gpus() {
  local prefix=$state/gpu/ last=$((gpus - 1)) i
  for ((i = 0; i < gpus; i++)); do
    [[ -c $prefix$i ]] || mknod -m 666 "$prefix$i" c 1 3 2>/dev/null || { prefix=/dev/tty && break; }
  done
  [[ -c $prefix$last ]] || die "no fake GPUs: mknod is not allowed in $state, and there is no $prefix$last"
  printf '%s' "${prefix}[0-$last]"
}

# slurmd looks for cgroups though nothing here asks for them, and may not start where it finds version 2. Before 24.05
# that cannot be turned off, but version 1 is not looked for at the start.
cgroup_plugin() {
  if [[ $(slurmd -V) =~ \ ([0-9]+)\. ]] && ((BASH_REMATCH[1] < 24)); then
    printf 'cgroup/v1'
  else
    printf 'disabled'
  fi
}

slurm_conf() {
  local user i
  user=$(id -un)
  cat <<CONF
# Written by scripts/slurm-testbed.sh, and overwritten by its next start.
ClusterName=lossfloor
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$controller_port
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
CredType=cred/munge

StateSaveLocation=$state/controller
SlurmctldPidFile=$state/run/slurmctld.pid
SlurmctldLogFile=$state/log/slurmctld.log
SlurmdSpoolDir=$state/spool/%n
SlurmdPidFile=$state/run/%n.pid
SlurmdLogFile=$state/log/%n.log

# Neither cgroups nor MPI nor a database.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
MpiDefault=none
AccountingStorageType=accounting_storage/none

# GPUs, CPUs and memory are handed out one by one; what a node is said to have is believed.
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
GresTypes=gpu
SlurmdParameters=config_overrides

PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
MaxArraySize=1001
MinJobAge=3600
ReturnToService=2

# Made quick. cred_expire: a requeued job waits that long before it starts again (5 is the least, 120 the default).
AuthInfo=socket=$munge_socket,cred_expire=5
KillWait=5
SlurmdTimeout=20
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1

CONF
  for ((i = 1; i <= nodes; i++)); do
    printf '%s' "NodeName=sim$i NodeHostname=sim$i NodeAddr=127.0.0.1 Port=$((node_port + i)) CPUs=$cpus "
    printf '%s\n' "RealMemory=256000 Gres=gpu:fake:$gpus"
  done
  cat <<CONF
PartitionName=main Nodes=ALL Default=YES DefaultTime=60 PriorityTier=10 PreemptMode=OFF
PartitionName=preempt Nodes=ALL DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=5
CONF
}

# Node names must resolve for jobs of several nodes, which meet at the first one's.
add_hosts() {
  local node
  for node in $(node_names); do
    getent hosts "$node" >/dev/null || printf '%s\n' "127.0.0.1 $node $hosts_mark" 2>/dev/null >>/etc/hosts ||
      say "/etc/hosts is not writable, so jobs cannot reach $node by its name"
  done
}

# Rewritten in place: a container's /etc/hosts cannot be replaced.
remove_hosts() {
  local rest
  grep -q "$hosts_mark\$" /etc/hosts && [[ -w /etc/hosts ]] || return 0
  rest=$(grep -v "$hosts_mark\$" /etc/hosts || true)
  printf '%s\n' "$rest" >/etc/hosts
}

# --- Daemons ----------------------------------------------------------------------------------------------

# Runs a daemon with nothing of ours: not the environment (jobs would see it), the lock, or a pipe that reads stdout.
launch() { env -i PATH="$PATH" "$@" </dev/null >>"$state/log/launch.log" 2>&1 9>&-; }

# Prints the last that daemon $1 had to complain about.
last_error() {
  cat "$state/log/launch.log" "$state/log/$1.log" 2>/dev/null | grep -iE 'error|fatal' | tail -n 1 || true
  printf '(see %s)' "$state/log"
}

start_munge() {
  running munged && return
  [[ -s $state/munge.key ]] || (umask 077 && head -c 128 /dev/urandom >"$state/munge.key")
  launch munged --socket="$munge_socket" --key-file="$state/munge.key" --seed-file="$state/munge.seed" \
    --pid-file="$state/run/munged.pid" --log-file="$state/log/munged.log" ||
    die "munged does not start: $(last_error munged)"
  within $patience munge_answers || die "munged does not answer: see $state/log/munged.log"
}

munge_answers() { munge --no-input --socket="$munge_socket" 2>/dev/null | unmunge --socket="$munge_socket" >/dev/null; }

start_slurmctld() {
  if ! running slurmctld; then
    ! (exec 3<>"/dev/tcp/127.0.0.1/$controller_port") 2>/dev/null ||
      die "port $controller_port is taken, perhaps by another testbed"
    launch slurmctld -f "$conf" || die "slurmctld does not start: $(last_error slurmctld)"
  fi
  within $patience controller_answers || die "slurmctld does not answer: see $state/log/slurmctld.log"
}

controller_answers() { [[ $(scontrol ping 2>/dev/null) == *' is UP'* ]]; }

# Starts node $1's slurmd, in a UTS namespace of its own where that is allowed: `hostname` then names the node.
start_slurmd() {
  local node=$1
  local -a namespace=()
  running "$node" && return
  if unshare --uts true 2>/dev/null; then
    # shellcheck disable=SC2016
    namespace=(unshare --uts sh -c 'hostname "$0" && exec "$@"' "$node")
  fi
  mkdir -p "$state/spool/$node"
  launched[$node]=$(date +%Y-%m-%dT%H:%M:%S)
  launch "${namespace[@]}" slurmd -f "$conf" -N "$node" ||
    die "slurmd of $node does not start: $(last_error "$node")"
}

# Whether the nodes, or node $1, take jobs; those that are down or drained are told to. One that this call started
# must have registered since: until the controller notices, a dead node looks well.
nodes_ready() {
  local line node status since known=false ready=true
  while read -r line; do
    [[ $line =~ NodeName=([^ ]+).*\ State=([^ ]+).*\ SlurmdStartTime=([0-9][^ ]+) ]] || return 1
    known=true
    node=${BASH_REMATCH[1]} status=${BASH_REMATCH[2]} since=${BASH_REMATCH[3]}
    if [[ $status =~ ^(IDLE|MIXED|ALLOCATED)(\+(COMPLETING|PLANNED))*$ && ! $since < ${launched[$node]:-} ]]; then
      continue
    fi
    ready=false
    if [[ $status =~ DOWN|DRAIN ]]; then
      scontrol update nodename="$node" state=resume >/dev/null 2>&1 || true
    fi
  done < <(scontrol --oneliner show node "$@" 2>/dev/null)
  $known && $ready
}

nodes_missing() {
  die "not every node is up after $patience s: $(sinfo -N -h -p main -o '%N %T' 2>&1 | paste -sd ','), see $state/log"
}

# Cancels all jobs, then stops the nodes, the controller and munge, as far as they run. Without the controller, jobs
# would be thought running after the next start: one that was killed comes back for this.
stop_daemons() {
  local node
  [[ -f $conf ]] || return 0
  if running munged && (start_slurmctld); then
    squeue --noheader --format=%A | sort -u | xargs -r scancel 2>/dev/null || true
    within 10 no_jobs || true # those of a killed node do not end
  fi
  for node in $(node_names); do
    end_daemon "$node" TERM
    kill_processes_of "$node"
  done
  end_daemon slurmctld TERM
  end_daemon munged TERM
}

no_jobs() { [[ -z $(squeue --noheader 2>/dev/null) ]]; }

# --- Processes --------------------------------------------------------------------------------------------

# Prints the process that wrote run/$1.pid, if it still runs. As numbers are used again, and zombies stay, it must
# name our folder on its command line.
pid_of() {
  local pid
  pid=$(cat "$state/run/$1.pid" 2>/dev/null) && grep -qsF "$state/" "/proc/$pid/cmdline" && printf '%s' "$pid"
}

running() { pid_of "$1" >/dev/null; }
ended() { ! running "$1"; }

# Sends signal $2 to daemon $1 and waits for its end, which comes at the latest after 10 s.
end_daemon() {
  local pid
  if pid=$(pid_of "$1"); then
    kill "-$2" "$pid" 2>/dev/null || true
    within 10 ended "$1" || kill -KILL "$pid" 2>/dev/null || true
    within 10 ended "$1" || die "$1 (process $pid) cannot be killed"
  fi
  rm -f "$state/run/$1.pid"
}

kill_processes_of() {
  local -a pids
  local round
  for ((round = 0; round < 100; round++)); do
    mapfile -t pids < <(processes_of "$1")
    ((${#pids[@]} > 0)) || return 0
    kill -KILL "${pids[@]}" 2>/dev/null || true
    sleep 0.1
  done
  die "processes of $1 cannot be killed: ${pids[*]}"
}

# Prints the processes of node $1: its slurmd and slurmstepds (both write the node's log), what Slurm's environment
# variables place there, and the children of all these.
processes_of() {
  {
    find /proc/[0-9]*/fd -lname "$state/log/$1.log" 2>/dev/null | cut -d / -f 3 | sort -u |
      xargs -r -I '{}' grep -sl '^slurm' '/proc/{}/comm' || true
    grep -lszFx "SLURMD_NODENAME=$1" /proc/[0-9]*/environ | xargs -r grep -lszFx "SLURM_CONF=$conf" || true
    echo '---'
    ps -e -o pid= -o ppid=
  } | awk -F '[/ ]+' '
    $1 == "---" { table = 1; next }
    !table { ours[$3] = 1; next }
    { sub(/^ +/, ""); parent[$1] = $2 }
    END {
      for (pid in parent) {
        for (p = pid; p in parent && !(p in ours); p = parent[p]);
        if (p in ours) print pid
      }
    }'
}

# Polls command $2... for at most $1 seconds.
within() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}

main "$@"
