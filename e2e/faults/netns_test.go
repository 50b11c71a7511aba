package faults

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// A namespace is a network namespace at the end of a cable that can be pulled:
// packets are dropped then, and neither end is told.
type namespace struct {
	name, addr string
}

// newNamespace returns nil where that is not allowed.
func newNamespace(t *testing.T) *namespace {
	t.Helper()
	if os.Getuid() != 0 {
		t.Log("not root: no faults of the network")
		return nil
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Log("ip is not installed (Debian package iproute2): no faults of the network")
		return nil
	}
	id := os.Getpid() % 10000
	n := &namespace{name: fmt.Sprintf("sse-faults-%d", id)}
	host := fmt.Sprintf("ssef%d", id)
	net := fmt.Sprintf("10.231.%d", id%256)
	n.addr = net + ".2"
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", n.name).Run() })
	for _, args := range [][]string{
		{"netns", "add", n.name},
		{"link", "add", host, "type", "veth", "peer", "name", "far", "netns", n.name},
		{"addr", "add", net + ".1/30", "dev", host},
		{"link", "set", host, "up"},
		{"-n", n.name, "addr", "add", n.addr + "/30", "dev", "far"},
		{"-n", n.name, "link", "set", "lo", "up"},
		{"-n", n.name, "link", "set", "far", "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Logf("no faults of the network: ip %v: %v: %s", args, err, out)
			return nil
		}
	}
	return n
}

// plug connects the cable or pulls it.
func (n *namespace) plug(in bool) error {
	state := "down"
	if in {
		state = "up"
	}
	if out, err := exec.Command("ip", "-n", n.name, "link", "set", "far", state).CombinedOutput(); err != nil {
		return fmt.Errorf("setting the link %s: %w: %s", state, err, out)
	}
	return nil
}
