package slurmtest

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
)

// Partitions of the cluster: main (the default), parked (DOWN: jobs wait for
// ever), short (at most one minute), and low, whose jobs make way for those of high.
const partitions = `PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 State=UP PriorityTier=5
PartitionName=parked Nodes=ALL MaxTime=INFINITE DefaultTime=10 State=DOWN PriorityTier=5
PartitionName=short Nodes=ALL MaxTime=1 DefaultTime=1 State=UP PriorityTier=5
PartitionName=low Nodes=ALL DefaultTime=10 State=UP PriorityTier=1 PreemptMode=CANCEL
PartitionName=high Nodes=ALL DefaultTime=10 State=UP PriorityTier=9
`

// The rest of the settings. EnforcePartLimits is left at NO, as on many sites,
// so that impossible jobs are taken and wait for ever.
const settings = `ClusterName=test
AuthType=auth/munge
CredType=cred/munge
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
DefMemPerCPU=100
SlurmdParameters=config_overrides
ReturnToService=2
SlurmctldTimeout=30
MinJobAge=300
OverTimeLimit=0
MessageTimeout=5
TCPTimeout=2
GresTypes=gpu
`

// epilog ends what a job's renderer left behind, in process groups of its own
// too. On real clusters cgroups do that (ProctrackType=proctrack/cgroup); a test must do without.
const epilog = `#!/bin/sh
marked=$(grep -lzxF "SLURM_JOB_ID=$SLURM_JOB_ID" /proc/[0-9]*/environ 2>/dev/null)
[ -n "$marked" ] && marked=$(grep -lzxF "SLURM_CONF=%s" $marked 2>/dev/null)
[ -n "$marked" ] && marked=$(grep -lz "^RRM_RESOURCE=" $marked 2>/dev/null)
for e in $marked; do p=${e#/proc/}; kill -9 "${p%%/environ}" 2>/dev/null; done
exit 0
`

// Each fake GPU must be an existing character device; then CUDA_VISIBLE_DEVICES is right.
var devices = [GPUsPerNode]string{"/dev/null", "/dev/zero"}

// configure writes the key and the settings.
func (c *Cluster) configure() error {
	if err := os.Chmod(c.Dir, 0o755); err != nil { // jobs of other users must see it
		return fmt.Errorf("open directory of the cluster: %w", err)
	}
	for _, d := range []string{"munge", "state"} {
		if err := os.Mkdir(c.path(d), 0o711); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	key := make([]byte, 128)
	_, _ = rand.Read(key)
	if err := os.WriteFile(c.path("munge/key"), key, 0o600); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	// Who it belongs to, so that a later run can tell that it was left behind.
	if err := os.WriteFile(c.path(ownerFile), fmt.Append(nil, os.Getpid()), 0o600); err != nil {
		return fmt.Errorf("write owner: %w", err)
	}
	me, err := user.Current()
	if err != nil {
		return fmt.Errorf("find own user: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find own host name: %w", err)
	}
	host, _, _ = strings.Cut(host, ".")
	ports, err := freePorts(len(c.Nodes) + 1)
	if err != nil {
		return err
	}
	var conf, gres strings.Builder
	conf.WriteString(settings)
	fmt.Fprintf(&conf, "KillWait=%d\nSlurmdTimeout=%d\n", int(KillWait.Seconds()), int(SlurmdTimeout.Seconds()))
	fmt.Fprintf(&conf, "SlurmctldHost=%s(127.0.0.1)\nSlurmctldPort=%d\nSlurmUser=%s\nSlurmdUser=%s\n", host, ports[len(c.Nodes)], me.Username, me.Username)
	fmt.Fprintf(&conf, "AuthInfo=socket=%s\nStateSaveLocation=%s\nSlurmdSpoolDir=%s\n", c.path("munge/sock"), c.path("state"), c.path("spool-%n"))
	fmt.Fprintf(&conf, "SlurmctldPidFile=%s\nSlurmdPidFile=%s\n", c.path("slurmctld.pid"), c.path("slurmd-%n.pid"))
	fmt.Fprintf(&conf, "SlurmctldLogFile=%s\nSlurmdLogFile=%s\n", c.path("slurmctld.log"), c.path("slurmd-%n.log"))
	for i, n := range c.Nodes {
		fmt.Fprintf(&conf, "NodeName=%s NodeHostname=%s NodeAddr=127.0.0.1 Port=%d CPUs=%d RealMemory=%d Gres=gpu:%d State=UNKNOWN\n",
			n, host, ports[i], CPUsPerNode, MemoryPerNode, GPUsPerNode)
		for _, d := range devices {
			fmt.Fprintf(&gres, "NodeName=%s Name=gpu File=%s\n", n, d)
		}
	}
	conf.WriteString(partitions)
	fmt.Fprintf(&conf, "Epilog=%s\n", c.path("epilog"))
	if err := os.WriteFile(c.path("epilog"), fmt.Appendf(nil, epilog, c.Conf), 0o755); err != nil { //nolint:gosec // slurmd runs it
		return fmt.Errorf("write epilog: %w", err)
	}
	if err := os.WriteFile(c.path("gres.conf"), []byte(gres.String()), 0o644); err != nil { //nolint:gosec // read by jobs
		return fmt.Errorf("write gres.conf: %w", err)
	}
	if err := os.WriteFile(c.Conf, []byte(conf.String()), 0o644); err != nil { //nolint:gosec // read by jobs
		return fmt.Errorf("write slurm.conf: %w", err)
	}
	return nil
}

func (c *Cluster) path(name string) string { return filepath.Join(c.Dir, name) }

// freePorts holds all of them open at once, so that they differ.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed at once
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer func() { _ = ln.Close() }()
		ports = append(ports, ln.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
