package faults

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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
	removeAbandoned()
	subnet, err := unusedSubnet()
	if err != nil {
		t.Logf("no faults of the network: %v", err)
		return nil
	}
	n := &namespace{name: fmt.Sprint(namespacePrefix, os.Getpid()), addr: subnet + ".2"}
	host := fmt.Sprint("ssef", os.Getpid())
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", n.name).Run() })
	for _, args := range [][]string{
		{"netns", "add", n.name},
		{"link", "add", host, "type", "veth", "peer", "name", "far", "netns", n.name},
		{"addr", "add", subnet + ".1/30", "dev", host},
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

const namespacePrefix = "sse-faults-"

// removeAbandoned deletes the namespaces of tests that were killed.
func removeAbandoned() {
	abandoned, _ := filepath.Glob("/run/netns/" + namespacePrefix + "*")
	for _, path := range abandoned {
		name := filepath.Base(path)
		if _, err := os.Stat("/proc/" + strings.TrimPrefix(name, namespacePrefix)); os.IsNotExist(err) {
			_ = exec.Command("ip", "netns", "del", name).Run()
		}
	}
}

// unusedSubnet returns the first three numbers of addresses that no interface
// has: of two interfaces with the same ones, only one would be reached.
func unusedSubnet() (string, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("looking for a free subnet: %w", err)
	}
	taken := func(subnet string) bool {
		return slices.ContainsFunc(addrs, func(a net.Addr) bool { return strings.HasPrefix(a.String(), subnet+".") })
	}
	for i := range 256 {
		if subnet := fmt.Sprintf("10.231.%d", (os.Getpid()+i)%256); !taken(subnet) {
			return subnet, nil
		}
	}
	return "", errors.New("all of 10.231.0.0/16 is taken")
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
