#!/bin/bash
# Slurm on one machine, to test the workflow on: a controller and two nodes on the loopback.
#
#   tools/slurm_here.sh up FOLDER [accounting]      starts it; its files and logs are in FOLDER
#   tools/slurm_here.sh down FOLDER                 stops it
#
# As root, with Debian's or Ubuntu's packages slurmctld, slurmd, slurm-client and munge, and for
# accounting slurmdbd and mariadb-server. It needs /etc/slurm/slurm.conf for itself: jobs look there.
set -euo pipefail
command=$1 folder=$(realpath -m "$2") accounting=${3-}

if [ "$command" = down ]; then
    for name in node1 node2 slurmctld slurmdbd munged mariadbd; do
        [ -s "$folder/$name.pid" ] && kill "$(cat "$folder/$name.pid")" 2>/dev/null && sleep 0.3 || true
    done
    rm -f /etc/slurm/slurm.conf /etc/slurm/slurmdbd.conf
    exit
fi

if [ -e /etc/slurm/slurm.conf ]; then
    echo "this machine has a Slurm of its own, by /etc/slurm/slurm.conf" >&2
    exit 1
fi
if [ ${#folder} -gt 60 ]; then
    echo "sockets' names hold 108 characters: take a folder with a shorter path than $folder" >&2
    exit 1
fi
mkdir -p "$folder"/{state,spool,munge}
host=$(hostname)
ln -s "$folder/slurm.conf" /etc/slurm/slurm.conf
cat > "$folder/slurm.conf" <<END
ClusterName=here
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthInfo=socket=$folder/munge/socket
SlurmctldPort=16817
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/%n.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
# a node that does not answer is down after 10 s, and its jobs are queued anew
SlurmdTimeout=10
SchedulerParameters=sched_interval=2,batch_sched_delay=1
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=16821 CPUs=2 RealMemory=8000
NodeName=node2 NodeHostname=$host NodeAddr=127.0.0.1 Port=16822 CPUs=2 RealMemory=8000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE
END
if [ "$accounting" ]; then
    cat >> "$folder/slurm.conf" <<END
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
AccountingStoragePass=$folder/munge/socket
END
    ln -sf "$folder/slurmdbd.conf" /etc/slurm/slurmdbd.conf
    cat > "$folder/slurmdbd.conf" <<END
DbdHost=localhost
DbdPort=16819
AuthInfo=socket=$folder/munge/socket
SlurmUser=root
PidFile=$folder/slurmdbd.pid
LogFile=$folder/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=16806
StorageUser=slurm
StoragePass=slurm
END
    chmod 600 "$folder/slurmdbd.conf"
fi

head -c 64 /dev/urandom > "$folder/munge/key"
chmod 600 "$folder/munge/key"
munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --num-threads=2 \
    --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munge/seed"

if [ "$accounting" ]; then
    database="--no-defaults --user=root --datadir=$folder/database"
    mariadb-install-db $database --auth-root-authentication-method=socket > "$folder/mariadb.log"
    mariadbd $database --socket="$folder/mariadb.socket" --port=16806 --bind-address=127.0.0.1 \
        --pid-file="$folder/mariadbd.pid" >> "$folder/mariadb.log" 2>&1 &
    until mariadb --socket="$folder/mariadb.socket" 2>/dev/null <<END; do sleep 0.5; done
create database slurm_acct_db; create user slurm@127.0.0.1 identified by 'slurm';
grant all on slurm_acct_db.* to slurm@127.0.0.1;
END
    slurmdbd
    until sacctmgr --immediate add cluster here > "$folder/sacctmgr.log" 2>&1; do sleep 0.5; done
fi
slurmctld -c
slurmd -N node1
slurmd -N node2
for _ in $(seq 60); do
    [ "$(sinfo --noheader --Node --states=idle | wc -l)" = 2 ] && exec sinfo --Node
    sleep 0.5
done
echo "the nodes are not up; see $folder/*.log" >&2
exit 1
